"""The engine's own HTTP port: /metrics and /healthz."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web
from prometheus_client import generate_latest

from dualpath_worker.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Served:
    """A running HTTP port."""

    url: str  # of /metrics
    runner: web.AppRunner


async def serve_metrics(metrics: Metrics, host: str, refresh: Callable[[], None]) -> Served:
    """Listen on a free port of `host`; `refresh` brings the gauges up to date before each scrape."""

    async def scrape(_: web.Request) -> web.Response:
        refresh()
        return web.Response(
            body=generate_latest(metrics.registry), content_type="text/plain", charset="utf-8"
        )

    async def healthy(_: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    app = web.Application()
    app.add_routes([web.get("/metrics", scrape), web.get("/healthz", healthy)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, host, 0)
    await site.start()
    port = runner.addresses[0][1]
    return Served(f"http://{host}:{port}/metrics", runner)
