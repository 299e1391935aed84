"""What Kubernetes asks an engine: does it live, and may it get requests."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from dualpath_api.errors import SpecError
from dualpath_worker.metrics import Metrics
from dualpath_worker.serving import Probes, serve_http
from dualpath_worker.storage.base import ReadResult
from dualpath_worker.storage.io import ReadQueue


class Hanging:
    """A store whose disk does not answer until it is let go."""

    def __init__(self) -> None:
        self.go_on = threading.Event()

    def read_full(self, keys, into):
        self.go_on.wait(60)
        return [ReadResult.HIT for _ in keys]


@asynccontextmanager
async def probed(found: list[str], registered: asyncio.Event) -> AsyncIterator[aiohttp.ClientSession]:
    probes = Probes(refresh=lambda: None, problems=lambda: found, registered=registered.is_set)
    served = await serve_http(Metrics(), "127.0.0.1", 0, probes)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{served.addresses[0][1]}") as session:
        yield session
    await served.cleanup()


async def test_an_engine_is_ready_while_it_is_registered_and_alive_unless_it_is_stuck():
    found, registered = [], asyncio.Event()
    async with probed(found, registered) as session:
        assert (await session.get("/readyz")).status == 503
        registered.set()
        assert (await session.get("/readyz")).status == 200
        assert (await session.get("/healthz")).status == 200
        found.append("a read hangs")
        answer = await session.get("/healthz")
        assert (answer.status, (await answer.json())["problems"]) == (500, ["a read hangs"])
        assert "dualpath_kv_blocks_total" in await (await session.get("/metrics")).text()


async def test_a_taken_port_is_told():
    probes = Probes(refresh=lambda: None, problems=list, registered=lambda: True)
    served = await serve_http(Metrics(), "127.0.0.1", 0, probes)
    with pytest.raises(SpecError, match="cannot listen"):
        await serve_http(Metrics(), "127.0.0.1", served.addresses[0][1], probes)
    await served.cleanup()


async def test_a_read_that_hangs_beyond_its_deadline_is_told_until_it_comes_back():
    store = Hanging()
    reads = ReadQueue(store, deadline_s=0.01)
    settled = threading.Event()
    outcome = await reads.read([b"k"], [memoryview(bytearray(8))], on_settled=settled.set)
    assert outcome.late == (0,)
    assert reads.stuck_s() > 0
    store.go_on.set()
    await asyncio.to_thread(settled.wait, 20)
    assert reads.stuck_s() == 0
    reads.close()
