"""What every process of a store serves: /metrics, /healthz, /readyz, and its end on a signal."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterable

from aiohttp import web

from dualpath_api.errors import SpecError

Answer = Callable[[], Awaitable[web.Response]]


async def serve(host: str, port: int, routes: Iterable[web.RouteDef]) -> web.AppRunner:
    """Listen. Raises SpecError for an address that cannot be had."""
    app = web.Application()
    app.add_routes(routes)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        await runner.cleanup()
        raise SpecError(
            f"cannot listen on {host}:{port} for metrics and probes",
            cause=error.strerror or str(error),
            remedy="give a free port with --metrics-port, and an address of this machine with --metrics-host",
        ) from None
    return runner


def get(path: str, answer: Answer) -> web.RouteDef:
    """A route without arguments."""

    async def handle(_: web.Request) -> web.Response:
        return await answer()

    return web.get(path, handle)


def said(status: str, *, ok: bool = True) -> web.Response:
    """Answer of a probe."""
    return web.json_response({"status": status}, status=200 if ok else 503)


def on_signals() -> asyncio.Event:
    """Set at the first SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop
