"""The engine's own HTTP port: /metrics, /healthz and /readyz."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aiohttp import web
from prometheus_client import generate_latest

from dualpath_api.errors import SpecError
from dualpath_worker.metrics import Metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Probes:
    """What the routes ask; all are called on the event loop, so an answer proves that it moves."""

    refresh: Callable[[], None]  # brings the gauges up to date
    problems: Callable[[], Sequence[str]]  # why this process should be restarted
    registered: Callable[[], bool]  # with the scheduler


async def serve_http(metrics: Metrics, host: str, port: int, probes: Probes) -> web.AppRunner:
    """Listen (port 0: on any free one). Raises SpecError for an address that cannot be had."""

    async def scrape(_: web.Request) -> web.Response:
        probes.refresh()
        return web.Response(
            body=generate_latest(metrics.registry), content_type="text/plain", charset="utf-8"
        )

    async def healthy(_: web.Request) -> web.Response:
        if problems := list(probes.problems()):
            return web.json_response({"status": "stuck", "problems": problems}, status=500)
        return web.json_response({"status": "ok"})

    async def ready(_: web.Request) -> web.Response:
        if probes.registered():
            return web.json_response({"status": "ready"})
        return web.json_response({"status": "not registered with the scheduler"}, status=503)

    app = web.Application()
    app.add_routes([web.get("/metrics", scrape), web.get("/healthz", healthy), web.get("/readyz", ready)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        await runner.cleanup()
        raise SpecError(
            f"cannot listen on {host}:{port} for metrics and probes",
            cause=error.strerror or str(error),
            remedy="give a free port with --metrics-port, and an address of this machine with --host",
        ) from None
    return runner
