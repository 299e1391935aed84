"""`/control/v1`: what an operator reads and sets. See `access` for who may."""

from __future__ import annotations

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, StrictBool, model_validator
from pydantic.alias_generators import to_camel

from dualpath_api.cluster import PathMode
from dualpath_api.report import Part, encode_report
from dualpath_gateway.access import check_access
from dualpath_gateway.api.body import read_body
from dualpath_gateway.errors import ApiError
from dualpath_gateway.keys_of_app import SERVICE
from dualpath_gateway.report import engine_report, make_report, tuning_report
from dualpath_gateway.scheduler.engine import Engine
from dualpath_policy.model import Tuning


class TuningBody(BaseModel):
    """Body of `PUT /control/v1/tuning`: the whole tuning, level-based; a missing field has its default."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, populate_by_name=True)

    path_policy: PathMode = PathMode.AUTO
    bias_tokens: int = Field(0, ge=-(10**12), le=10**12)
    decode_min_permille: int = Field(0, ge=0, le=1000)
    decode_max_permille: int = Field(1000, ge=0, le=1000)

    @model_validator(mode="after")
    def _ordered(self) -> TuningBody:
        if self.decode_min_permille > self.decode_max_permille:
            raise ValueError("decodeMinPermille: must not be larger than decodeMaxPermille")
        return self

    def tuning(self) -> Tuning:
        """As the policy takes it."""
        return Tuning(**self.model_dump())


class DrainBody(BaseModel):
    """Body of the drain call; without one the engine takes nothing new, but still serves reads.

    With `podUid` it is refused where the engine is another Pod's, that took the name.
    """

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, populate_by_name=True)

    accept_new: StrictBool = False
    serve_reads: StrictBool = True
    pod_uid: str | None = None


# ---------------------------------------------------------------- routes


async def get_report(request: web.Request) -> web.Response:
    """`GET /control/v1/report`."""
    check_access(request)
    service = request.app[SERVICE]
    return _json(make_report(service.scheduler.world, service.now()))


async def get_tuning(request: web.Request) -> web.Response:
    """`GET /control/v1/tuning`."""
    check_access(request)
    return _json(tuning_report(request.app[SERVICE].scheduler.world.tuning))


async def put_tuning(request: web.Request) -> web.Response:
    """`PUT /control/v1/tuning`: applied to the next decision."""
    check_access(request)
    body = await read_body(request, TuningBody, strict=True)
    request.app[SERVICE].tune(body.tuning())
    return _json(tuning_report(body.tuning()))


def _engine(request: web.Request) -> Engine:
    name = request.match_info["id"]
    engine = request.app[SERVICE].scheduler.world.engines.get(name)
    if engine is None:
        raise ApiError(404, f"no engine {name!r} is connected", code="engine_not_found")
    return engine


async def get_engine(request: web.Request) -> web.Response:
    """`GET /control/v1/engines/{id}` and `GET .../drain`."""
    check_access(request)
    return _json(engine_report(_engine(request), request.app[SERVICE].now()))


async def drain_engine(request: web.Request) -> web.Response:
    """`POST /control/v1/engines/{id}/drain`: take nothing new; `serveReads` false: nor read for others."""
    check_access(request)
    body = await read_body(request, DrainBody, strict=True) if request.can_read_body else DrainBody()
    known = _engine(request).register.pod_uid
    if body.pod_uid not in (None, known):
        raise ApiError(409, f"the engine is now one of the pod {known!r}", code="other_pod")
    return _wish(request, accept_new=body.accept_new, serve_reads=body.serve_reads)


async def resume_engine(request: web.Request) -> web.Response:
    """`POST /control/v1/engines/{id}/resume`: take new requests again."""
    check_access(request)
    return _wish(request, accept_new=True, serve_reads=True)


def _wish(request: web.Request, *, accept_new: bool, serve_reads: bool) -> web.Response:
    engine = _engine(request)
    service = request.app[SERVICE]
    service.drain(engine.name, accept_new=accept_new, serve_reads=serve_reads)
    return _json(engine_report(engine, service.now()))


def _json(part: Part) -> web.Response:
    return web.Response(body=encode_report(part), content_type="application/json")
