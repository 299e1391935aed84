"""The gateway's routes and life: wiring only."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from aiohttp import web

from dualpath_api.cluster import DualPathCluster
from dualpath_gateway import control, debug
from dualpath_gateway.api.chat import chat_completions
from dualpath_gateway.api.completions import completions
from dualpath_gateway.api.serving import HEADER, model, models, name_request
from dualpath_gateway.engines import close_engine_sockets, engines
from dualpath_gateway.errors import as_openai_errors, unavailable
from dualpath_gateway.keys_of_app import (
    ANSWERS,
    METRICS_KEY,
    MODEL,
    POOL,
    REQUEST_ID,
    SERVICE,
    SETTINGS,
    SOCKETS,
    STOPPING,
    Answers,
)
from dualpath_gateway.log import event
from dualpath_gateway.metrics import Metrics
from dualpath_gateway.scheduler.core import Scheduler
from dualpath_gateway.scheduler.service import SchedulerService
from dualpath_gateway.settings import Settings
from dualpath_gateway.text.model import TextModel
from dualpath_gateway.workpool import WorkPool
from dualpath_policy.model import Tuning

log = logging.getLogger("dualpath.gateway")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def build_app(cluster: DualPathCluster, model_files: TextModel, settings: Settings) -> web.Application:
    """The application; must be called in the event loop that will serve it."""
    app = web.Application(
        middlewares=[_named_requests, as_openai_errors, _no_new_ones_at_the_end],
        client_max_size=settings.max_body_bytes,
    )
    scheduler = Scheduler(settings.patience(), Tuning(path_policy=cluster.spec.path_policy.mode))
    metrics = Metrics(scheduler.world)
    app[SETTINGS], app[MODEL], app[METRICS_KEY] = settings, model_files, metrics
    app[SERVICE] = SchedulerService(scheduler, metrics.observe)
    app[POOL] = WorkPool(settings.pool_threads)
    app[STOPPING], app[ANSWERS] = asyncio.Event(), Answers()
    app.on_response_prepare.append(_answer_request_id)
    app[SOCKETS] = set()
    app.on_shutdown.append(close_engine_sockets)
    app.on_cleanup.append(_clean_up)
    app.add_routes(
        [
            web.get("/v1/models", models),
            web.get("/v1/models/{name:.+}", model),
            web.post("/v1/completions", completions),
            web.post("/v1/chat/completions", chat_completions),
            web.get("/healthz", _healthz),
            web.get("/readyz", _readyz),
            web.get("/metrics", _metrics),
            web.get("/debug/requests", debug.get_requests),
            web.get("/debug/requests/{id}", debug.get_request),
            web.get("/control/v1/report", control.get_report),
            web.get("/control/v1/tuning", control.get_tuning),
            web.put("/control/v1/tuning", control.put_tuning),
            web.get("/control/v1/engines/{id}", control.get_engine),
            web.get("/control/v1/engines/{id}/drain", control.get_engine),
            web.post("/control/v1/engines/{id}/drain", control.drain_engine),
            web.post("/control/v1/engines/{id}/resume", control.resume_engine),
            web.get("/engines", engines),
        ]
    )
    return app


async def stop_serving(app: web.Application) -> None:
    """Admit nothing new, let answers reach their clients until the deadline, then end them with errors."""
    app[STOPPING].set()
    service = app[SERVICE]
    event(log, "stopping", open=len(service.scheduler.world.turns))
    try:
        async with asyncio.timeout(app[SETTINGS].stop_s):
            await service.drained()
            await app[ANSWERS].none()
    except TimeoutError:
        service.fail_all("the server is shutting down")


# ---------------------------------------------------------------- middlewares and small routes


@web.middleware
async def _named_requests(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give every request a name, which its log lines and its answer carry."""
    request[REQUEST_ID] = name_request(request, request.app[SERVICE].scheduler)
    response = await handler(request)
    if response.status >= 400:
        event(log, "refused", request=request[REQUEST_ID], path=request.path, status=response.status)
    return response


@web.middleware
async def _no_new_ones_at_the_end(request: web.Request, handler: Handler) -> web.StreamResponse:
    """503 for new generations while the process stops; health, metrics and engines go on."""
    if not request.path.startswith("/v1/") or request.method != "POST":
        return await handler(request)
    if request.app[STOPPING].is_set():
        raise unavailable("the server is shutting down")
    with request.app[ANSWERS]:
        return await handler(request)


async def _answer_request_id(request: web.Request, response: web.StreamResponse) -> None:
    if name := request.get(REQUEST_ID):
        response.headers[HEADER] = name


async def _healthz(_: web.Request) -> web.Response:
    return web.json_response({"status": "ok"})


async def _readyz(request: web.Request) -> web.Response:
    """200 while requests can be served."""
    if request.app[STOPPING].is_set():
        raise unavailable("the server is shutting down")
    if not request.app[SERVICE].scheduler.world.engines.can_serve():
        raise unavailable("waiting for at least one prefill and one decode engine")
    return web.json_response({"status": "ready"})


async def _metrics(request: web.Request) -> web.Response:
    return web.Response(
        body=request.app[METRICS_KEY].page(),
        headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
    )


async def _clean_up(app: web.Application) -> None:
    app[SERVICE].stop()
    app[POOL].close()
