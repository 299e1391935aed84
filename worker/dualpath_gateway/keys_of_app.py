"""What the routes share, as typed keys of the aiohttp application."""

from __future__ import annotations

import asyncio

from aiohttp import web

from dualpath_gateway.metrics import Metrics
from dualpath_gateway.scheduler.service import SchedulerService
from dualpath_gateway.settings import Settings
from dualpath_gateway.text.model import TextModel
from dualpath_gateway.workpool import WorkPool

REQUEST_ID = web.RequestKey("request_id", str)
SERVICE = web.AppKey("service", SchedulerService)
SETTINGS = web.AppKey("settings", Settings)
MODEL = web.AppKey("model", TextModel)
POOL = web.AppKey("pool", WorkPool)
SOCKETS = web.AppKey("sockets", set[web.WebSocketResponse])
STOPPING = web.AppKey("stopping", asyncio.Event)
METRICS_KEY = web.AppKey("metrics", Metrics)
