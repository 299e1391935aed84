"""The Lease against an API server that answers late, wrongly or not at all."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from kubernetes.aio.client.configuration import Configuration

from dualpath_operator.kube import Api
from dualpath_operator.leader import Lease, lead
from dualpath_operator.settings import LeaderElectionSettings

SETTINGS = LeaderElectionSettings(lease_duration="2s", renew_deadline="1s", retry_period="100ms")


class Leases:
    """A server of one Lease."""

    def __init__(self) -> None:
        self.lease: dict | None = None
        self.version = 0
        self.answers = asyncio.Event()
        self.answers.set()

    def put(self, spec: dict) -> web.Response:
        self.version += 1
        self.lease = {"metadata": {"resourceVersion": str(self.version)}, "spec": spec}
        return web.json_response(self.lease)

    async def get(self, _: web.Request) -> web.Response:
        await self.answers.wait()
        return web.json_response(self.lease) if self.lease else web.json_response({}, status=404)

    async def post(self, request: web.Request) -> web.Response:
        if self.lease:
            return web.json_response({}, status=409)
        return self.put((await request.json())["spec"])

    async def patch(self, request: web.Request) -> web.Response:
        await self.answers.wait()
        body = await request.json()
        if body["metadata"]["resourceVersion"] != str(self.version):
            return web.json_response({}, status=409)
        return self.put({**self.lease["spec"], **body["spec"]})


@asynccontextmanager
async def serving():
    leases, app = Leases(), web.Application()
    path = "/apis/coordination.k8s.io/v1/namespaces/ops/leases"
    app.router.add_get(f"{path}/dualpath-operator", leases.get)
    app.router.add_patch(f"{path}/dualpath-operator", leases.patch)
    app.router.add_post(path, leases.post)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    configuration = Configuration()
    configuration.host = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with Api(configuration) as api:
        try:
            yield leases, api
        finally:
            leases.answers.set()
            await runner.cleanup()


async def test_one_of_two_leads_until_it_gives_back():
    async with serving() as (leases, api):
        first, second = (Lease(api, SETTINGS, "ops", name) for name in ("a", "b"))
        assert await first.hold()
        assert not await second.hold()
        assert await first.hold()
        await first.give_back()
        assert await second.hold()
        assert leases.lease["spec"]["holderIdentity"] == "b"
        assert not await first.hold()


async def test_a_silent_holder_is_followed_after_its_duration_by_the_own_clock():
    now = 0.0
    async with serving() as (_, api):
        assert await Lease(api, SETTINGS, "ops", "a").hold()
        second = Lease(api, SETTINGS, "ops", "b", clock=lambda: now)
        assert not await second.hold()
        now = 1.9
        assert not await second.hold()
        now = 2.1
        assert await second.hold()


async def test_whoever_cannot_renew_stops_at_its_deadline_even_if_the_call_hangs():
    async with serving() as (leases, api):
        ended = asyncio.Event()

        async def work() -> None:
            leases.answers.clear()
            try:
                await asyncio.sleep(60)
            finally:
                ended.set()

        async with asyncio.timeout(10):  # a call alone may take three times as long
            assert await lead(Lease(api, SETTINGS, "ops", "a"), SETTINGS, work) is False
        assert ended.is_set()


async def test_a_lease_that_somebody_took_ends_the_work():
    async with serving() as (leases, api):

        async def work() -> None:
            leases.put({"holderIdentity": "b", "leaseDurationSeconds": 60, "renewTime": "now"})
            await asyncio.sleep(60)

        async with asyncio.timeout(10):
            assert await lead(Lease(api, SETTINGS, "ops", "a"), SETTINGS, work) is False
        assert leases.lease["spec"]["holderIdentity"] == "b"


async def test_work_that_ends_by_itself_ends_the_lead_and_its_error_is_told():
    async with serving() as (_, api):

        async def work() -> None:
            raise RuntimeError("broken")

        with pytest.raises(RuntimeError, match="broken"):
            await lead(Lease(api, SETTINGS, "ops", "a"), SETTINGS, work)

        async def done() -> None:
            return None

        assert await lead(Lease(api, SETTINGS, "ops", "a"), SETTINGS, done) is True
