"""Running prompts: encode, submit, and turn token streams into pieces of answers."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from aiohttp import web

from dualpath_api.keys import block_keys
from dualpath_api.wire import Sampling
from dualpath_gateway.api.answer import ChoiceText, Piece
from dualpath_gateway.errors import ApiError, from_failure, from_scheduler, internal_error, unavailable
from dualpath_gateway.keys_of_app import MODEL, SERVICE
from dualpath_gateway.scheduler.core import NoEnginesError, QueueFullError
from dualpath_gateway.scheduler.service import SchedulerService, StreamFailed, TokenStream

log = logging.getLogger("dualpath.gateway")

HASH_SLICE_BLOCKS = 256
"""Blocks hashed before other work of the loop gets its turn: well below 1 ms."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one or several prompts."""

    prompt: int
    completion: int
    cached: int

    def as_dict(self) -> dict[str, object]:
        """As OpenAI writes it."""
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": {"cached_tokens": self.cached},
        }


class Generation:
    """One prompt being answered n times."""

    def __init__(
        self, service: SchedulerService, stream: TokenStream, prompt: Sequence[int], texts: list[ChoiceText]
    ) -> None:
        self._service = service
        self._stream = stream
        self.prompt = prompt
        self.texts = texts

    async def pieces(self) -> AsyncIterator[dict[int, Piece]]:
        """What each step adds, by choice, until all choices are finished. Raises StreamFailed."""
        while not all(text.finished for text in self.texts):
            batch = await self._stream.batch()
            if not batch:
                return
            step: dict[int, Piece] = {}
            for drawn in batch:
                text = self.texts[drawn.choice]
                if text.finished:
                    continue
                piece = text.push(drawn)
                if text.finished and drawn.finish is None:
                    self._service.cancel_choice(self._stream.request, drawn.choice)
                step.setdefault(drawn.choice, Piece()).add(piece)
            yield {choice: piece for choice, piece in step.items() if piece}

    def close(self) -> None:
        """Free everything; without effect on a finished request."""
        self._service.cancel(self._stream.request)

    def usage(self) -> Usage:
        """Counts so far."""
        return Usage(
            prompt=len(self.prompt),
            completion=sum(text.tokens for text in self.texts),
            cached=self._service.cached_tokens(self._stream.request),
        )


def total_usage(generations: Sequence[Generation]) -> Usage:
    """The sum over several prompts."""
    each = [generation.usage() for generation in generations]
    return Usage(
        prompt=sum(usage.prompt for usage in each),
        completion=sum(usage.completion for usage in each),
        cached=sum(usage.cached for usage in each),
    )


def context_of(app: web.Application) -> int:
    """Tokens that a request may have. Raises ApiError 503, or 429, where none would be admitted now."""
    scheduler = app[SERVICE].scheduler
    try:
        scheduler.admit()
    except (NoEnginesError, QueueFullError) as error:
        raise from_scheduler(error) from None
    return scheduler.world.engines.context()


async def start(
    app: web.Application,
    name: str,
    prompt: Sequence[int],
    sampling: Sampling,
    n: int,
    stops: Sequence[str],
) -> Generation:
    """Hash and submit one prompt. Raises ApiError 429 or 503."""
    service, vocabulary = app[SERVICE], app[MODEL].vocabulary
    keys = {}
    for layout in service.scheduler.world.engines.layouts():
        keys[layout] = await hash_prompt(layout.root(), prompt, layout.block_tokens)
    if not keys:
        raise unavailable("no engine is connected")
    if name in service.scheduler.world.turns:  # two clients chose the same name at the same time
        name = f"{name}~{secrets.token_hex(4)}"
    try:
        stream = service.submit(name, tuple(prompt), keys, sampling, n)
    except (NoEnginesError, QueueFullError) as error:
        raise from_scheduler(error) from None
    return Generation(service, stream, prompt, [ChoiceText(vocabulary, stops) for _ in range(n)])


async def hash_prompt(root: bytes, tokens: Sequence[int], block: int) -> tuple[bytes, ...]:
    """Keys of all complete blocks; long prompts in slices, with other work in between."""
    keys: list[bytes] = []
    size = HASH_SLICE_BLOCKS * block
    for start_at in range(0, len(tokens), size):
        keys += block_keys(keys[-1] if keys else root, tokens[start_at : start_at + size], block)
        if len(tokens) > size:
            await asyncio.sleep(0)
    return tuple(keys)


async def finish_all(generations: Sequence[Generation]) -> list[list[Piece]]:
    """All answers, whole: by prompt, by choice. Raises ApiError; closes everything on the way out."""

    async def one(generation: Generation) -> list[Piece]:
        whole = [Piece() for _ in generation.texts]
        async for step in generation.pieces():
            for choice, piece in step.items():
                whole[choice].add(piece)
        return whole

    tasks = [asyncio.create_task(one(generation)) for generation in generations]
    try:
        return list(await asyncio.gather(*tasks))
    except StreamFailed as error:
        raise from_failure(error.failure) from None
    finally:
        for task in tasks:
            task.cancel()
        for generation in generations:
            generation.close()


class Merged:
    """The pieces of several prompts as they come, with a time limit on each wait."""

    def __init__(self, generations: Sequence[Generation]) -> None:
        self._generations = generations
        self._steps: asyncio.Queue[tuple[int, dict[int, Piece]] | ApiError | None] = asyncio.Queue(256)
        self._tasks = [asyncio.create_task(self._feed(i, g)) for i, g in enumerate(generations)]
        self._open = len(generations)

    async def _feed(self, index: int, generation: Generation) -> None:
        try:
            async for step in generation.pieces():
                await self._steps.put((index, step))
        except StreamFailed as error:
            await self._steps.put(from_failure(error.failure))
        except Exception:
            log.exception("unexpected error in a stream")
            await self._steps.put(internal_error())
        else:
            await self._steps.put(None)

    async def next(self, seconds: float) -> tuple[int, dict[int, Piece]] | None:
        """(prompt, what each of its choices adds); None: the end. Raises ApiError and TimeoutError."""
        while self._open:
            async with asyncio.timeout(seconds):
                item = await self._steps.get()
            if isinstance(item, ApiError):
                raise item
            if item is not None:
                return item
            self._open -= 1
        return None

    def close(self) -> None:
        """Free everything."""
        for task in self._tasks:
            task.cancel()
        for generation in self._generations:
            generation.close()


def now_s() -> int:
    """Unix time, for `created`."""
    return int(time.time())
