"""/metrics, /healthz and /readyz of the operator."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import generate_latest

from dualpath_operator.metrics import REGISTRY


class Health:
    """What the probes say. `blind` tells why the watches cannot be trusted; empty when they can."""

    def __init__(self, blind: Callable[[], str]) -> None:
        self._blind = blind
        self.ready = False

    async def healthz(self, _: web.Request) -> web.Response:
        """Alive, and not blind."""
        problem = self._blind()
        return web.Response(text=problem or "ok", status=500 if problem else 200)

    async def readyz(self, _: web.Request) -> web.Response:
        """Serving webhooks, and leading or waiting to."""
        return web.Response(text="ok" if self.ready else "starting", status=200 if self.ready else 503)


async def _metrics(_: web.Request) -> web.Response:
    return web.Response(body=generate_latest(REGISTRY), content_type="text/plain", charset="utf-8")


@asynccontextmanager
async def serving(health: Health, host: str, port: int) -> AsyncIterator[int]:
    """Serve until the block ends; gives the port."""
    app = web.Application()
    app.router.add_get("/metrics", _metrics)
    app.router.add_get("/healthz", health.healthz)
    app.router.add_get("/readyz", health.readyz)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
