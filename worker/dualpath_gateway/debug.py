"""`/debug/requests`: what happened to recent requests and why; names and figures, no content."""

from __future__ import annotations

import time

from aiohttp import web

from dualpath_gateway.access import check_access
from dualpath_gateway.errors import ApiError
from dualpath_gateway.keys_of_app import SERVICE

LISTED = 100


async def get_request(request: web.Request) -> web.Response:
    """`GET /debug/requests/{id}`: by request id, or by the id of the answer."""
    check_access(request)
    service, given = request.app[SERVICE], request.match_info["id"]
    records = service.scheduler.world.records
    for name in (given, given.removeprefix("chatcmpl-"), given.removeprefix("cmpl-")):
        for one in (name, f"{name}~0"):
            if record := records.get(one):
                return web.json_response(record.as_dict(time.time() - service.now()))
    raise ApiError(404, f"no request {given!r} among the recent ones", code="request_not_found")


async def get_requests(request: web.Request) -> web.Response:
    """`GET /debug/requests`: the newest, newest first."""
    check_access(request)
    service = request.app[SERVICE]
    offset = time.time() - service.now()
    newest = service.scheduler.world.records.newest(LISTED)
    keys = ("id", "arrived", "outcome", "prompt_tokens", "cached_tokens", "generated_tokens")
    return web.json_response(
        {"requests": [{key: record.as_dict(offset)[key] for key in keys} for record in newest]}
    )
