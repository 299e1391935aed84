"""The engine's connection to the scheduler, against a real WebSocket server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import WSMsgType, web

from dualpath_api import wire
from dualpath_api.keys import KvLayout
from dualpath_worker.link import ANSWER_S, SchedulerLink

LAYOUT = KvLayout(fingerprint="f", dtype="float32", layers=1, kv_heads=1, head_dim=2, block_tokens=16)
HELLO = wire.Drain(accept_new=True, serve_reads=True)


class Scheduler:
    """Takes engines at /engines; answers a registration unless told to refuse."""

    def __init__(self) -> None:
        self.registered: list[wire.Register] = []
        self.messages: asyncio.Queue[wire.ToScheduler] = asyncio.Queue()
        self.sockets: list[web.WebSocketResponse] = []
        self.refuse = False
        self.junk: list[bytes] = []

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.sockets.append(socket)
        async for frame in socket:
            if frame.type is WSMsgType.BINARY:
                message = wire.decode_to_scheduler(frame.data)
                self.messages.put_nowait(message)
                if isinstance(message, wire.Register):
                    self.registered.append(message)
                    if self.refuse:
                        await socket.close(code=4000)
                        break
                    for data in (*self.junk, wire.encode(HELLO)):
                        await socket.send_bytes(data)
        return socket


class Engine:
    """The engine's end, and what it saw."""

    def __init__(self, url: str, answer_s: float = ANSWER_S) -> None:
        self.incarnations = 0
        self.received: asyncio.Queue[wire.ToEngine] = asyncio.Queue()
        self.lost: asyncio.Queue[None] = asyncio.Queue()
        self.link = SchedulerLink(
            url,
            token=None,
            register=self._register,
            on_message=self.received.put_nowait,
            on_lost=lambda: self.lost.put_nowait(None),
            answer_s=answer_s,
        )

    def _register(self) -> wire.Register:
        self.incarnations += 1
        peer = wire.Peer(engine="decode-0-0", incarnation=str(self.incarnations), agent=b"", pool=b"")
        return wire.Register(
            protocol=wire.PROTOCOL,
            engine="decode-0-0",
            role=wire.Role.DECODE,
            group="decode-0",
            rank=0,
            incarnation=str(self.incarnations),
            pid=1,
            layout=LAYOUT,
            max_context=10,
            buffer_slots=2,
            cache_pages=2,
            peer=peer,
            metrics_url="",
        )


@asynccontextmanager
async def connected(
    prepare: Callable[[Scheduler], None] = lambda scheduler: None,
) -> AsyncIterator[tuple[Scheduler, Engine]]:
    scheduler = Scheduler()
    prepare(scheduler)
    app = web.Application()
    app.add_routes([web.get("/engines", scheduler.serve)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    engine = Engine(f"ws://127.0.0.1:{runner.addresses[0][1]}/engines")
    task = asyncio.create_task(engine.link.run())
    try:
        yield scheduler, engine
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await runner.cleanup()


async def test_registered_means_answered() -> None:
    async with connected() as (scheduler, engine):
        await asyncio.wait_for(engine.link.registered.wait(), 30)
        assert await engine.received.get() == HELLO
        engine.link.send(wire.Stored(keys=(b"k",)))
        assert isinstance(await scheduler.messages.get(), wire.Register)
        assert await scheduler.messages.get() == wire.Stored(keys=(b"k",))


async def test_a_broken_connection_is_told_and_made_anew_as_another_incarnation() -> None:
    async with connected() as (scheduler, engine):
        await asyncio.wait_for(engine.received.get(), 30)
        await scheduler.sockets[0].close()
        await asyncio.wait_for(engine.lost.get(), 30)
        engine.link.send(wire.Stored(keys=(b"for the old scheduler",)))
        await asyncio.wait_for(engine.received.get(), 30)
        assert [one.incarnation for one in scheduler.registered] == ["1", "2"]
        engine.link.send(wire.Stored(keys=(b"new",)))
        seen = [await scheduler.messages.get() for _ in range(3)]
        assert seen[2] == wire.Stored(keys=(b"new",))


async def test_a_message_of_another_version_is_passed_over() -> None:
    def prepare(scheduler: Scheduler) -> None:
        scheduler.junk = [b"\xc1", b"\x81\xa4type\xa7Unknown"]

    async with connected(prepare) as (_, engine):
        assert await asyncio.wait_for(engine.received.get(), 30) == HELLO


async def test_a_refused_registration_is_lost_and_tried_again() -> None:
    def prepare(scheduler: Scheduler) -> None:
        scheduler.refuse = True

    async with connected(prepare) as (scheduler, engine):
        for _ in range(2):
            await asyncio.wait_for(engine.lost.get(), 30)
        assert not engine.link.registered.is_set()
        scheduler.refuse = False
        await asyncio.wait_for(engine.link.registered.wait(), 30)


async def test_a_connection_that_nobody_answers_is_given_up_for_another() -> None:
    taken: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
    server = await asyncio.start_server(lambda _, writer: taken.put_nowait(writer), "127.0.0.1", 0)
    engine = Engine(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/engines", answer_s=0.1)
    task = asyncio.create_task(engine.link.run())
    held = [await asyncio.wait_for(taken.get(), 30) for _ in range(2)]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    server.close()
    for writer in held:
        writer.close()
