"""What the routes share, as typed keys of the aiohttp application."""

from __future__ import annotations

import asyncio

from aiohttp import web

from dualpath_gateway.metrics import Metrics
from dualpath_gateway.scheduler.service import SchedulerService
from dualpath_gateway.settings import Settings
from dualpath_gateway.text.model import TextModel
from dualpath_gateway.workpool import WorkPool


class Answers:
    """Answers that are being made, or written to clients that read slowly."""

    def __init__(self) -> None:
        self._open = 0
        self._none = asyncio.Event()
        self._none.set()

    def __enter__(self) -> None:
        self._open += 1
        self._none.clear()

    def __exit__(self, *_: object) -> None:
        self._open -= 1
        if not self._open:
            self._none.set()

    async def none(self) -> None:
        """Wait until there is none."""
        await self._none.wait()


REQUEST_ID = web.RequestKey("request_id", str)
SERVICE = web.AppKey("service", SchedulerService)
SETTINGS = web.AppKey("settings", Settings)
MODEL = web.AppKey("model", TextModel)
POOL = web.AppKey("pool", WorkPool)
SOCKETS = web.AppKey("sockets", set[web.WebSocketResponse])
STOPPING = web.AppKey("stopping", asyncio.Event)
ANSWERS = web.AppKey("answers", Answers)
METRICS_KEY = web.AppKey("metrics", Metrics)
