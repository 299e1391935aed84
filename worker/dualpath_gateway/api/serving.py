"""The served model, and names of requests."""

from __future__ import annotations

import re
import secrets

from aiohttp import web

from dualpath_gateway.errors import ApiError
from dualpath_gateway.keys_of_app import MODEL, REQUEST_ID, SERVICE
from dualpath_gateway.scheduler.core import Scheduler

_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
HEADER = "X-Request-Id"


async def models(request: web.Request) -> web.Response:
    """`GET /v1/models`."""
    return web.json_response({"object": "list", "data": [_card(request.app)]})


async def model(request: web.Request) -> web.Response:
    """`GET /v1/models/{name}`."""
    check_model(request.app, request.match_info["name"])
    return web.json_response(_card(request.app))


def _card(app: web.Application) -> dict[str, object]:
    served, context = app[MODEL], app[SERVICE].scheduler.world.engines.context()
    return {
        "id": served.name,
        "object": "model",
        "created": served.created,
        "owned_by": "dualpath",
        "max_model_len": context or None,
    }


def check_model(app: web.Application, name: str) -> None:
    """Raises ApiError 404 for another model than the served one."""
    if name != app[MODEL].name:
        raise ApiError(
            404,
            f"the model {name!r} does not exist; this server serves {app[MODEL].name!r}",
            param="model",
            code="model_not_found",
        )


def name_request(request: web.Request, scheduler: Scheduler) -> str:
    """The client's X-Request-Id where it is usable and new, else a random name."""
    given = request.headers.get(HEADER, "")
    if _REQUEST_ID.fullmatch(given) and scheduler.world.records.get(given) is None:
        return given
    fresh = secrets.token_hex(12)
    return f"{given}-{fresh[:8]}" if _REQUEST_ID.fullmatch(given) and len(given) < 100 else fresh


def requests_of(request: web.Request, prompts: int) -> list[str]:
    """Names for the scheduler: the call's own for a single prompt, numbered ones for several."""
    name: str = request[REQUEST_ID]
    return [name] if prompts == 1 else [f"{name}~{index}" for index in range(prompts)]
