"""The WebSocket `/engines`: one connection an engine, one wire message a frame.

An engine that is silent for three heartbeats is lost, even if its socket is still open: a stopped process or
a pulled cable closes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

import msgspec
from aiohttp import WSCloseCode, WSMsgType, web

from dualpath_api.wire import PROTOCOL, Register, decode_to_scheduler
from dualpath_gateway.access import check_access
from dualpath_gateway.keys_of_app import SERVICE, SETTINGS, SOCKETS
from dualpath_gateway.log import warn
from dualpath_gateway.scheduler.service import SchedulerService

log = logging.getLogger("dualpath.engines")

MISSED_HEARTBEATS = 3
MAX_FRAME_BYTES = 64 << 20
MAX_BACKLOG_FRAMES = 100_000
CLOSE_REFUSED = 4000


class Connection:
    """One engine's socket; frames are sent by a task of its own, so that posting never waits."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self.socket = socket
        self._frames: asyncio.Queue[bytes] = asyncio.Queue()

    def post(self, frame: bytes) -> None:
        """Queue one frame. A peer that takes none for too long is cut off."""
        self._frames.put_nowait(frame)
        if self._frames.qsize() > MAX_BACKLOG_FRAMES and (transport := self.socket._req):
            assert transport.transport is not None
            transport.transport.abort()

    async def write(self) -> None:
        """Send frames until cancelled or the socket is gone."""
        with contextlib.suppress(ConnectionError):
            while True:
                await self.socket.send_bytes(await self._frames.get())


async def engines(request: web.Request) -> web.StreamResponse:
    """Serve one engine until its connection ends."""
    check_access(request)
    service, heartbeat = request.app[SERVICE], request.app[SETTINGS].heartbeat_s
    socket = web.WebSocketResponse(
        autoping=False, compress=False, max_msg_size=MAX_FRAME_BYTES, timeout=heartbeat
    )
    await socket.prepare(request)
    connection = Connection(socket)
    register = await _registration(socket, service, heartbeat)
    if register is None:
        return socket
    writer = asyncio.create_task(connection.write())
    service.connect(register, connection)
    open_sockets = request.app[SOCKETS]
    open_sockets.add(socket)
    reason = "this process ends"
    try:
        reason = await _receive(connection, register.engine, service, heartbeat)
    finally:
        open_sockets.discard(socket)
        service.disconnect(register.engine, connection, reason)
        writer.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await writer
        await socket.close()
    return socket


async def close_engine_sockets(app: web.Application) -> None:
    """Tell all engines that this process goes away."""
    sockets = app[SOCKETS]
    going_away = [socket.close(code=WSCloseCode.GOING_AWAY) for socket in sockets]
    await asyncio.gather(*going_away, return_exceptions=True)


async def _registration(
    socket: web.WebSocketResponse, service: SchedulerService, heartbeat: float
) -> Register | None:
    """The first message; the connection is closed with a reason where it cannot be served."""
    problem = "the first message was not Register"
    with contextlib.suppress(TimeoutError, msgspec.DecodeError):
        frame = await socket.receive(timeout=MISSED_HEARTBEATS * heartbeat)
        if frame.type is WSMsgType.BINARY:
            message = decode_to_scheduler(frame.data)
            if isinstance(message, Register):
                layout = service.scheduler.world.engines.layout_of(message.revision)
                if message.protocol != PROTOCOL:
                    problem = f"protocol {message.protocol} is not {PROTOCOL}"
                elif layout not in (None, message.layout):
                    problem = "its KV layout differs from that of the other engines of its revision"
                else:
                    return message
    warn(log, "engine refused", reason=problem)
    await socket.close(code=CLOSE_REFUSED, message=problem.encode())
    return None


async def _receive(connection: Connection, engine: str, service: SchedulerService, heartbeat: float) -> str:
    """Handle frames until the connection ends; returns why it ended."""
    socket, missed = connection.socket, 0
    while True:
        try:
            frame = await socket.receive(timeout=heartbeat)
        except TimeoutError:
            missed += 1
            if missed >= MISSED_HEARTBEATS:
                return f"silent for {MISSED_HEARTBEATS} heartbeats of {heartbeat} s"
            with contextlib.suppress(ConnectionError):
                await asyncio.wait_for(socket.ping(), heartbeat)
            continue
        missed = 0
        match frame.type:
            case WSMsgType.BINARY:
                try:
                    message = decode_to_scheduler(frame.data)
                except msgspec.DecodeError as error:
                    warn(log, "message ignored", engine=engine, reason=str(error))
                    continue
                service.receive(engine, connection, message)
            case WSMsgType.PING:
                await socket.pong(frame.data)
            case WSMsgType.PONG:
                pass
            case _:
                return f"the connection was closed ({socket.close_code})"
