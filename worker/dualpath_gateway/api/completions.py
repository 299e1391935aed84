"""`POST /v1/completions`."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from dualpath_gateway.api.answer import Piece
from dualpath_gateway.api.body import read_body
from dualpath_gateway.api.generate import (
    Generation,
    Merged,
    context_of,
    finish_all,
    now_s,
    start,
    total_usage,
)
from dualpath_gateway.api.limits import MAX_ANSWERS
from dualpath_gateway.api.logprobs import completion_logprobs
from dualpath_gateway.api.models import CompletionRequest
from dualpath_gateway.api.params import check_cache, check_room, sampling_of
from dualpath_gateway.api.prompts import encode_prompt, split_prompts
from dualpath_gateway.api.serving import check_model, requests_of
from dualpath_gateway.api.sse import stream_answers
from dualpath_gateway.errors import bad_request
from dualpath_gateway.keys_of_app import MODEL, REQUEST_ID, SERVICE, SETTINGS
from dualpath_gateway.text.detokenize import Vocabulary


async def completions(request: web.Request) -> web.StreamResponse:
    """Complete one or several prompts, whole or streamed."""
    body = await read_body(request, CompletionRequest)
    check_model(request.app, body.model)
    prompts = split_prompts(body.prompt)
    if len(prompts) * body.choices > MAX_ANSWERS:
        raise bad_request(
            f"n: at most {MAX_ANSWERS} answers in a call, over all prompts", "n", "invalid_value"
        )
    generations = await _start_all(request, body, prompts)
    answer = _Answer(request, body, generations)
    if not body.stream:
        return web.json_response(answer.whole(await finish_all(generations)))
    merged = Merged(generations)
    try:
        return await stream_answers(
            request,
            merged,
            answer.chunks,
            first=[],
            last=answer.last_chunks,
            keepalive_s=request.app[SETTINGS].keepalive_s,
        )
    finally:
        merged.close()


async def _start_all(request: web.Request, body: CompletionRequest, prompts: list[Any]) -> list[Generation]:
    """Check all prompts, then submit them; nothing is left running where one is refused."""
    app = request.app
    context = context_of(app)
    engines = app[SERVICE].scheduler.world.engines
    ready = []
    for prompt in prompts:
        ids = await encode_prompt(app, prompt, context)
        most = check_room(body, len(ids), context)
        check_cache(len(ids), most, body.choices, *engines.cache_tokens())
        ready.append((ids, sampling_of(body, app[MODEL], most, body.logprobs)))
    generations: list[Generation] = []
    try:
        for name, (ids, sampling) in zip(requests_of(request, len(ready)), ready, strict=True):
            generations.append(await start(app, name, ids, sampling, body.choices, body.stops))
    except BaseException:
        for generation in generations:
            generation.close()
        raise
    return generations


class _Answer:
    """The JSON of one call."""

    def __init__(self, request: web.Request, body: CompletionRequest, generations: list[Generation]) -> None:
        self._body = body
        self._generations = generations
        self._vocabulary: Vocabulary = request.app[MODEL].vocabulary
        self._head = {
            "id": f"cmpl-{request[REQUEST_ID]}",
            "object": "text_completion",
            "created": now_s(),
            "model": body.model,
        }

    def _choice(self, prompt: int, choice: int, piece: Piece) -> dict[str, Any]:
        top = self._body.logprobs
        found: dict[str, Any] = {
            "index": prompt * self._body.choices + choice,
            "text": piece.text,
            "logprobs": None if top is None else completion_logprobs(piece, self._vocabulary, top),
            "finish_reason": piece.finish,
        }
        if self._body.return_token_ids:
            found["token_ids"] = piece.token_ids
        return found

    def whole(self, answers: list[list[Piece]]) -> dict[str, Any]:
        """A non-streamed answer."""
        choices = []
        for prompt, pieces in enumerate(answers):
            for choice, piece in enumerate(pieces):
                choices.append(self._choice(prompt, choice, piece))
                if self._body.return_token_ids:
                    choices[-1]["prompt_token_ids"] = list(self._generations[prompt].prompt)
        found = {**self._head, "choices": choices, "usage": total_usage(self._generations).as_dict()}
        if self._body.return_token_ids and len(answers) == 1:
            found["prompt_token_ids"] = list(self._generations[0].prompt)
        return found

    def chunks(self, prompt: int, choice: int, piece: Piece) -> list[dict[str, Any]]:
        """What a step adds to one choice."""
        usage = {"usage": None} if self._body.include_usage else {}
        return [{**self._head, "choices": [self._choice(prompt, choice, piece)], **usage}]

    def last_chunks(self) -> list[dict[str, Any]]:
        """The usage, if it is wanted."""
        if not self._body.include_usage:
            return []
        return [{**self._head, "choices": [], "usage": total_usage(self._generations).as_dict()}]
