"""The engine's WebSocket to the scheduler: register, send, receive, reconnect.

Every connection is a new incarnation: whatever the scheduler and the other engines knew of the one before is
void, so a connection that broke while this process was stopped can never be mistaken for a live one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

import aiohttp
import msgspec

from dualpath_api import wire

log = logging.getLogger(__name__)

HEARTBEAT_S = 6.0  # a dead scheduler closes the socket; this is for lost hosts, and patient on a busy one
RETRY_S = (0.1, 0.2, 0.5, 1.0, 2.0)
ANSWER_S = 5.0
"""To connect in. While a gateway is replaced, its Service may send a connection to the pod that is gone:
nobody refuses it, and another one, a moment later, gets through."""


class SchedulerLink:
    """One connection at a time; what is sent while there is none is dropped: the scheduler is then new."""

    def __init__(
        self,
        url: str,
        *,
        token: str | None,
        register: Callable[[], wire.Register],
        on_message: Callable[[wire.ToEngine], None],
        on_lost: Callable[[], None],
        answer_s: float = ANSWER_S,
    ) -> None:
        self._url = url
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._register = register
        self._on_message = on_message
        self._on_lost = on_lost
        self._timeout = aiohttp.ClientTimeout(total=answer_s)
        self._out: asyncio.Queue[bytes] | None = None
        self.registered = asyncio.Event()

    def send(self, message: wire.ToScheduler) -> None:
        """Queue a message for the current connection."""
        if self._out is not None:
            self._out.put_nowait(wire.encode(message))

    async def run(self) -> None:
        """Connect and serve until cancelled; an unreachable scheduler is tried again with growing pauses."""
        failures = 0
        async with aiohttp.ClientSession(headers=self._headers, timeout=self._timeout) as session:
            while True:
                try:
                    async with session.ws_connect(self._url, heartbeat=HEARTBEAT_S, max_msg_size=0) as socket:
                        answered = await self._serve(socket)
                        failures = 0 if answered else failures + 1
                        log.warning("scheduler closed the connection (code %s)", socket.close_code)
                except (aiohttp.ClientError, OSError, TimeoutError) as error:
                    if failures == 0:
                        log.warning("scheduler unreachable, will retry: %s", str(error) or "no answer")
                    failures += 1
                await asyncio.sleep(RETRY_S[min(failures, len(RETRY_S) - 1)])

    async def _serve(self, socket: aiohttp.ClientWebSocketResponse) -> bool:
        """Until the connection ends; whether the scheduler has answered the registration."""
        answered = False
        self._out = asyncio.Queue()
        self.send(self._register())
        writer = asyncio.create_task(self._write(socket, self._out))
        try:
            async for frame in socket:
                if frame.type is not aiohttp.WSMsgType.BINARY:
                    continue
                answered = True
                self.registered.set()  # the scheduler answers a registration with what it wants
                try:
                    self._on_message(wire.decode_to_engine(frame.data))
                except msgspec.DecodeError as error:
                    log.error("ignored a message that this version does not know: %s", error)
        finally:
            self._out = None
            self.registered.clear()
            writer.cancel()
            self._on_lost()
        return answered

    async def _write(self, socket: aiohttp.ClientWebSocketResponse, out: asyncio.Queue[bytes]) -> None:
        with contextlib.suppress(ConnectionError, aiohttp.ClientError):  # the reader notices, too
            while True:
                await socket.send_bytes(await out.get())
