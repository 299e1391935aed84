"""What watches make of all that an API server, or something before it, may send."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from aiohttp import web
from kubernetes.aio.client.configuration import Configuration
from test_views_and_sight import live_pod

from dualpath_operator import watches
from dualpath_operator.kinds import POD
from dualpath_operator.kube import Api
from dualpath_operator.watches import Watches
from dualpath_operator.world import World

CLUSTER = ("team-a", "qwen")


def event(kind: str, body: dict) -> bytes:
    return json.dumps({"type": kind, "object": {"kind": "Pod", **body}}).encode() + b"\n"


def bookmark(version: int) -> bytes:
    return event("BOOKMARK", {"metadata": {"resourceVersion": str(version)}})


TOO_OLD = json.dumps({"type": "ERROR", "object": {"code": 410, "reason": "Expired"}}).encode() + b"\n"


class Server:
    """Answers each watch with the next of `streams`; later ones stay open and silent."""

    def __init__(self, *streams: list[bytes] | int) -> None:
        self.streams = list(streams)
        self.listed: list[dict] = []
        self.asked: list[str] = []  # resourceVersion of each watch
        self.silent = asyncio.Event()  # all streams were given out, and all watches wait
        self.watches, self.waiting = 1, 0
        self.lists = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if "watch" not in request.query:
            assert "resourceVersion" not in request.query  # an old list would bring back what is gone
            self.lists += 1
            first, rest = self.listed[:1], self.listed[1:]  # in two pages
            if "continue" in request.query:
                return web.json_response({"items": rest, "metadata": {"resourceVersion": "70"}})
            meta = {"resourceVersion": "70", **({"continue": "on"} if rest else {})}
            return web.json_response({"items": first, "metadata": meta})
        self.asked.append(request.query["resourceVersion"])
        response = web.StreamResponse()
        if not self.streams:
            await response.prepare(request)
            self.waiting += 1
            if self.waiting == self.watches:
                self.silent.set()
            await asyncio.Event().wait()
        stream = self.streams.pop(0)
        if isinstance(stream, int):
            return web.json_response({"message": "no", "reason": "Broken"}, status=stream)
        await response.prepare(request)
        for part in stream:
            await response.write(part)
        return response


@asynccontextmanager
async def followed(
    server: Server, world: World, woken: list, monkeypatch, sources: int = 1
) -> AsyncIterator[Api]:
    """Follow until the server has given out all its streams."""
    monkeypatch.setattr(watches, "PAUSE_S", (0.0,))
    server.watches = sources
    app = web.Application()
    app.router.add_get("/{path:.*}", server.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    configuration = Configuration()
    configuration.host = f"http://127.0.0.1:{runner.addresses[0][1]}"
    configuration.connection_pool_maxsize = 64
    async with Api(configuration) as api:
        starts = [((POD, None), "5")] * sources
        following = asyncio.create_task(Watches(api, world, woken.append).follow(starts))
        async with asyncio.timeout(20):
            await server.silent.wait()
        yield api
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following
    await runner.cleanup()


def known(world: World) -> list[tuple[str, str]]:
    return list(world.versions("Pod", None).values())


async def test_events_change_the_world_and_wake_the_cluster(monkeypatch):
    world, woken = World(), []
    server = Server([event("ADDED", live_pod(6)), event("MODIFIED", live_pod(7))])
    async with followed(server, world, woken, monkeypatch):
        assert known(world) == [("u1", "7")]
        assert woken == [CLUSTER, CLUSTER]
        assert server.asked == ["5", "7"]


async def test_a_watch_goes_on_from_a_bookmark(monkeypatch):
    server = Server([bookmark(40)])
    woken: list = []
    async with followed(server, World(), woken, monkeypatch):
        assert server.asked == ["5", "40"]
        assert woken == []


async def test_what_is_deleted_is_forgotten_unless_its_name_is_in_use_again(monkeypatch):
    world, woken = World(), []
    gone = event("DELETED", live_pod(9, "u1"))
    server = Server([event("ADDED", live_pod(6, "u1")), gone, event("ADDED", live_pod(10, "u2")), gone])
    async with followed(server, world, woken, monkeypatch):
        assert known(world) == [("u2", "10")]


async def test_an_event_may_come_in_pieces_and_with_others(monkeypatch):
    world, woken = World(), []
    first, second = event("ADDED", live_pod(6)), event("MODIFIED", live_pod(7))
    server = Server([first[:9], first[9:] + second[:200], second[200:]])
    async with followed(server, world, woken, monkeypatch):
        assert known(world) == [("u1", "7")]


async def test_a_stream_that_is_cut_within_an_event_goes_on_from_the_event_before(monkeypatch):
    world, woken = World(), []
    server = Server([event("ADDED", live_pod(6)), event("MODIFIED", live_pod(7))[:50]])
    async with followed(server, world, woken, monkeypatch):
        assert server.asked == ["5", "6"]


async def test_a_version_that_is_too_old_is_replaced_by_a_list(monkeypatch):
    world, woken = World(), []
    world.put({"kind": "Pod", **live_pod(3, "old")})
    server = Server([TOO_OLD])
    async with followed(server, world, woken, monkeypatch):
        assert server.asked == ["5", "70"]
        assert known(world) == []
        assert woken == [CLUSTER]


async def test_a_list_brings_what_was_missed(monkeypatch):
    world, woken = World(), []
    world.put({"kind": "Pod", **live_pod(3, "u1")})
    server = Server(410)
    other = live_pod(67, "u2")
    other["metadata"]["name"] = "another"
    server.listed = [live_pod(66, "u1"), other]
    async with followed(server, world, woken, monkeypatch):
        assert known(world) == [("u1", "66"), ("u2", "67")]
        assert woken == [CLUSTER, CLUSTER]


async def test_refusals_and_rubbish_are_asked_again_from_the_same_version(monkeypatch):
    world, woken = World(), []
    server = Server(
        500, 429, [b"<html>\n"], [b"[1]\n"], [b'{"type": "ADDED"}\n'], [event("ADDED", live_pod(6))]
    )
    async with followed(server, world, woken, monkeypatch):
        assert server.asked == ["5"] * 6 + ["6"]
        assert server.lists == 0
        assert known(world) == [("u1", "6")]


async def test_any_number_of_watches_leaves_room_for_calls(monkeypatch):
    server = Server()
    async with followed(server, World(), [], monkeypatch, sources=200) as api:
        assert await api.list(POD, None) == []
