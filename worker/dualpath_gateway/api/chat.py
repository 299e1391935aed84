"""`POST /v1/chat/completions`."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from dualpath_gateway.api.answer import Piece
from dualpath_gateway.api.body import read_body
from dualpath_gateway.api.generate import Generation, Merged, context_of, finish_all, now_s, start
from dualpath_gateway.api.logprobs import chat_logprobs
from dualpath_gateway.api.models import ChatRequest
from dualpath_gateway.api.params import check_cache, check_room, sampling_of
from dualpath_gateway.api.prompts import encode_text
from dualpath_gateway.api.serving import check_model, requests_of
from dualpath_gateway.api.sse import stream_answers
from dualpath_gateway.errors import bad_request
from dualpath_gateway.keys_of_app import MODEL, POOL, REQUEST_ID, SERVICE, SETTINGS
from dualpath_gateway.text.chat_template import TemplateFailed
from dualpath_gateway.text.detokenize import Vocabulary


async def chat_completions(request: web.Request) -> web.StreamResponse:
    """Answer a conversation, whole or streamed."""
    body = await read_body(request, ChatRequest)
    check_model(request.app, body.model)
    generation = await _start(request, body)
    answer = _Answer(request, body, generation)
    if not body.stream:
        return web.json_response(answer.whole((await finish_all([generation]))[0]))
    merged = Merged([generation])
    try:
        return await stream_answers(
            request,
            merged,
            answer.chunks,
            first=answer.first_chunks(),
            last=answer.last_chunks,
            keepalive_s=request.app[SETTINGS].keepalive_s,
        )
    finally:
        merged.close()


async def _start(request: web.Request, body: ChatRequest) -> Generation:
    """Render, encode and submit the conversation."""
    app = request.app
    context = context_of(app)
    prompt = await _render(app, body)
    ids = await encode_text(app, prompt, context, special=False, param="messages")
    most = check_room(body, len(ids), context)
    engines = app[SERVICE].scheduler.world.engines
    check_cache(len(ids), most, body.choices, *engines.cache_tokens())
    logprobs = (body.top_logprobs or 0) if body.logprobs else None
    sampling = sampling_of(body, app[MODEL], most, logprobs)
    return await start(app, requests_of(request, 1)[0], ids, sampling, body.choices, body.stops)


async def _render(app: web.Application, body: ChatRequest) -> str:
    """The conversation as the checkpoint's template writes it. Raises ApiError 400."""
    template = app[MODEL].template
    if template is None:
        raise bad_request("this model has no chat template; use /v1/completions", "messages", "no_template")
    messages = [message.for_template() for message in body.messages]
    size = sum(len(message["content"]) for message in messages)
    tools = body.tools if body.tool_choice != "none" else None
    try:
        return await app[POOL].run(
            size,
            lambda: template.render(
                messages,
                tools=tools,
                extra=body.chat_template_kwargs,
                seconds=app[SETTINGS].template_s,
            ),
        )
    except TemplateFailed as error:
        raise bad_request(f"messages: {error}", "messages", "template_error") from None


class _Answer:
    """The JSON of one call."""

    def __init__(self, request: web.Request, body: ChatRequest, generation: Generation) -> None:
        self._body = body
        self._generation = generation
        self._vocabulary: Vocabulary = request.app[MODEL].vocabulary
        self._id, self._created = f"chatcmpl-{request[REQUEST_ID]}", now_s()

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._body.model}

    def _logprobs(self, piece: Piece) -> dict[str, Any] | None:
        if not self._body.logprobs:
            return None
        return chat_logprobs(piece, self._vocabulary, self._body.top_logprobs or 0)

    def whole(self, pieces: list[Piece]) -> dict[str, Any]:
        """A non-streamed answer."""
        choices = []
        for index, piece in enumerate(pieces):
            message = {"role": "assistant", "content": piece.text, "refusal": None}
            choice: dict[str, Any] = {
                "index": index,
                "message": message,
                "logprobs": self._logprobs(piece),
                "finish_reason": piece.finish,
            }
            if self._body.return_token_ids:
                choice["token_ids"] = piece.token_ids
            choices.append(choice)
        usage = self._generation.usage().as_dict()
        found = {**self._head("chat.completion"), "choices": choices, "usage": usage}
        if self._body.return_token_ids:
            found["prompt_token_ids"] = list(self._generation.prompt)
        return found

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        usage = {"usage": None} if self._body.include_usage else {}
        return {**self._head("chat.completion.chunk"), "choices": choices, **usage}

    def first_chunks(self) -> list[dict[str, Any]]:
        """Who speaks."""
        delta = {"role": "assistant", "content": ""}
        return [
            self._chunk([{"index": index, "delta": delta, "logprobs": None, "finish_reason": None}])
            for index in range(self._body.choices)
        ]

    def chunks(self, _prompt: int, choice: int, piece: Piece) -> list[dict[str, Any]]:
        """What a step adds to one choice; the finish reason comes in a chunk of its own."""
        found = []
        if piece.text or piece.drawn:
            added: dict[str, Any] = {
                "index": choice,
                "delta": {"content": piece.text},
                "logprobs": self._logprobs(piece),
                "finish_reason": None,
            }
            if self._body.return_token_ids:
                added["token_ids"] = piece.token_ids
            found.append(self._chunk([added]))
        if piece.finish is not None:
            end = {"index": choice, "delta": {}, "logprobs": None, "finish_reason": piece.finish}
            found.append(self._chunk([end]))
        return found

    def last_chunks(self) -> list[dict[str, Any]]:
        """The usage, if it is wanted."""
        if not self._body.include_usage:
            return []
        return [{**self._chunk([]), "usage": self._generation.usage().as_dict()}]
