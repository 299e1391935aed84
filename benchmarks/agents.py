"""Agents for benchmarks: each re-sends a context whose KV is in the store, with a little more at its end.

They talk to the OpenAI API with token ids, as tokenising is not what is measured.
"""

from __future__ import annotations

import json
import random
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPResponse

BLOCK = 64
APPENDED, GENERATED = 16, 2
VOCABULARY = (10, 250)
TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One finished request. Times are monotonic seconds."""

    began: float
    first_token: float
    ended: float
    cached_tokens: int
    tokens: tuple[int, ...]
    """The generated ones."""

    @property
    def ttft_s(self) -> float:
        """Time to first token."""
        return self.first_token - self.began


def ask(openai: str, model: str, prompt: Sequence[int], generated: int) -> Turn:
    """One request for exactly `generated` tokens. Raises OSError."""
    body = {
        "model": model,
        "prompt": prompt,
        "max_tokens": generated,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_token_ids": True,
    }
    request = urllib.request.Request(f"{openai}/completions", json.dumps(body).encode())
    request.add_header("Content-Type", "application/json")
    tokens: list[int] = []
    began, first, cached = time.monotonic(), 0.0, 0
    with _opened(request) as answer:
        for line in answer:
            if not line.startswith(b"data: {"):
                continue
            told = json.loads(line[6:])
            if "error" in told:
                raise OSError(f"the stream ended with an error: {told['error']}")
            first = first or time.monotonic()
            tokens += [token for choice in told["choices"] for token in choice["token_ids"]]
            if usage := told.get("usage"):
                cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
    ended = time.monotonic()
    return Turn(began=began, first_token=first, ended=ended, cached_tokens=cached, tokens=tuple(tokens))


@contextmanager
def _opened(request: urllib.request.Request) -> Iterator[HTTPResponse]:
    """The answer. Raises OSError with what the server says."""
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            yield answer
    except urllib.error.HTTPError as refused:
        with refused:
            raise OSError(
                f"HTTP status {refused.code}: {refused.read().decode(errors='replace')}"
            ) from refused


@dataclass(slots=True)
class Fleet:
    """Contexts of some agents, in the store of the cluster at `openai`."""

    openai: str
    model: str
    contexts: list[list[int]]
    recomputed: int = 0
    """Turns of which a part was computed that should have been read: they say nothing about reading."""
    _random: random.Random = field(default_factory=lambda: random.Random(1))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def of(cls, openai: str, model: str, agents: int, context: int) -> Fleet:
        """Agents with random contexts of `context` tokens each, not stored yet."""
        source = random.Random(agents * 1_000_003 + context)
        contexts = [[source.randrange(*VOCABULARY) for _ in range(context)] for _ in range(agents)]
        return cls(openai, model, contexts)

    def store(self, within_s: float = 120.0) -> None:
        """Have all contexts computed, and wait until each is wholly in the store. Raises TimeoutError."""
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(self.turn, range(len(self.contexts))))
        end = time.monotonic() + within_s
        for agent, context in enumerate(self.contexts):
            while self.turn(agent).cached_tokens < len(context):
                if time.monotonic() > end:
                    raise TimeoutError(f"the context of agent {agent} is not in the store")

    def turn(self, agent: int) -> Turn:
        """One turn: the context and some new tokens in, some tokens out. Raises OSError."""
        with self._lock:
            appended = [self._random.randrange(*VOCABULARY) for _ in range(APPENDED)]
        return ask(self.openai, self.model, [*self.contexts[agent], *appended], GENERATED)

    def closed_loop(self, turns: int, skip: int) -> float:
        """Every agent begins its next turn as soon as the last ended, `turns` in all; turns per second.

        The first `skip` fill the pipeline and do not count.
        """
        ended: list[float] = []
        left = iter(range(turns))

        def run(agent: int) -> None:
            while True:
                with self._lock:
                    if next(left, None) is None:
                        return
                turn = self.turn(agent)
                with self._lock:
                    ended.append(turn.ended)
                    self.recomputed += turn.cached_tokens < len(self.contexts[agent])

        with ThreadPoolExecutor(len(self.contexts)) as pool:
            list(pool.map(run, range(len(self.contexts))))
        ended.sort()
        last = len(ended) - len(self.contexts)  # the pipeline runs empty behind it
        return (last - skip) / (ended[last - 1] - ended[skip - 1])

    def arrivals(self, gaps_s: Sequence[float]) -> list[Turn]:
        """Turns that begin after these gaps, whether or not earlier ones have ended, agent after agent."""
        with ThreadPoolExecutor(max(8, len(gaps_s))) as pool:
            running, due = [], time.monotonic()
            for number, gap in enumerate(gaps_s):
                due += gap
                time.sleep(max(0.0, due - time.monotonic()))
                running.append(pool.submit(self.turn, number % len(self.contexts)))
            return [turn.result() for turn in running]
