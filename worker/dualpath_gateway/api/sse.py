"""Server-sent events: chunks, keep-alives, errors, the end mark."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import msgspec
from aiohttp import web

from dualpath_gateway.api.answer import Piece
from dualpath_gateway.api.generate import Merged
from dualpath_gateway.errors import ApiError, internal_error

Chunks = Callable[[int, int, Piece], list[dict[str, Any]]]
"""(prompt, choice, what is added) -> chunks to send."""

log = logging.getLogger("dualpath.gateway")
_encoder = msgspec.json.Encoder()


class EventStream:
    """One streamed answer. Writing waits while the client reads slowly."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self.response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}
        )

    async def open(self) -> None:
        """Send the head of the response."""
        await self.response.prepare(self._request)

    async def send(self, chunks: list[dict[str, Any]]) -> None:
        """Send some chunks at once."""
        if chunks:
            await self.response.write(b"".join(b"data: %b\n\n" % _encoder.encode(c) for c in chunks))

    async def keep_alive(self) -> None:
        """A comment, which clients ignore."""
        await self.response.write(b": keep-alive\n\n")

    async def close(self) -> None:
        """Send the end mark."""
        await self.response.write(b"data: [DONE]\n\n")
        await self.response.write_eof()


async def stream_answers(
    request: web.Request,
    merged: Merged,
    chunks: Chunks,
    *,
    first: list[dict[str, Any]],
    last: Callable[[], list[dict[str, Any]]],
    keepalive_s: float,
) -> web.StreamResponse:
    """Send `first`, chunks as they come, and `last`; an error becomes an event before the end mark."""
    events = EventStream(request)
    await events.open()
    try:
        try:
            await events.send(first)
            await _send_steps(events, merged, chunks, keepalive_s)
            await events.send(last())
        except ApiError as error:
            await events.send([error.body])
        except ConnectionError:
            raise
        except Exception:
            log.exception("unexpected error in a stream")
            await events.send([internal_error().body])
        await events.close()
    except ConnectionError:  # the client is gone: there is nobody to tell
        pass
    return events.response


async def _send_steps(events: EventStream, merged: Merged, chunks: Chunks, keepalive_s: float) -> None:
    """Send what comes, and a sign of life where nothing comes for too long."""
    while True:
        try:
            step = await merged.next(keepalive_s)
        except TimeoutError:
            await events.keep_alive()
            continue
        if step is None:
            return
        prompt, pieces = step
        await events.send([c for choice, piece in pieces.items() for c in chunks(prompt, choice, piece)])
