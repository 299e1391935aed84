"""`/control/v1`: what an operator reads and sets. See `access` for who may."""

from __future__ import annotations

from collections import deque
from typing import Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, StrictBool, model_validator
from pydantic.alias_generators import to_camel

from dualpath_api.cluster import PathMode
from dualpath_api.wire import Nic, Role
from dualpath_gateway.access import check_access
from dualpath_gateway.api.body import read_body
from dualpath_gateway.errors import ApiError
from dualpath_gateway.keys_of_app import SERVICE
from dualpath_gateway.scheduler.engine import Engine
from dualpath_gateway.scheduler.world import World
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
    """Body of the drain call; without one the engine takes nothing new, but still serves reads."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, populate_by_name=True)

    accept_new: StrictBool = False
    serve_reads: StrictBool = True


def tuning_as_dict(tuning: Tuning) -> dict[str, Any]:
    """The tuning as JSON."""
    return TuningBody(
        path_policy=tuning.path_policy,
        bias_tokens=tuning.bias_tokens,
        decode_min_permille=tuning.decode_min_permille,
        decode_max_permille=tuning.decode_max_permille,
    ).model_dump(mode="json", by_alias=True)


def engine_as_dict(engine: Engine) -> dict[str, Any]:
    """One engine's state."""
    register, report = engine.register, engine.report
    found: dict[str, Any] = {
        "id": engine.name,
        "role": engine.role.value,
        "group": register.group,
        "rank": register.rank,
        "incarnation": register.incarnation,
        "pid": register.pid,
        "metricsUrl": register.metrics_url,
        "state": engine.status,
        "acceptNew": engine.accepts,
        "serveReads": engine.reads,
        "inFlight": max(len(engine.jobs), report.seq_e if report else 0),
        "servingReads": report.serving_reads if report else 0,
        "drained": engine.drained,
        "bufferSlots": register.buffer_slots,
        "cachePages": register.cache_pages,
    }
    if report is not None:
        found |= {
            "seqE": report.seq_e,
            "tokE": report.tok_e,
            "readQ": report.read_q,
            "readBytesQueued": report.read_bytes_queued,
            "readBytesTotal": report.read_bytes_total,
            "freeSlots": report.free_slots,
            "freePages": report.free_pages,
            "quarantined": report.quarantined,
            "nics": [_nic_as_dict(nic) for nic in report.nics],
        }
    return found


def _nic_as_dict(nic: Nic) -> dict[str, Any]:
    link = nic.link_bytes_per_s
    return {
        "name": nic.name,
        "role": nic.role,
        "rxBytes": nic.rx_bytes,
        "txBytes": nic.tx_bytes,
        "rxBytesPerS": nic.rx_bytes_per_s,
        "txBytesPerS": nic.tx_bytes_per_s,
        "linkBytesPerS": link,
        "utilisation": max(nic.rx_bytes_per_s, nic.tx_bytes_per_s) / link if link else None,
    }


def report_as_dict(world: World) -> dict[str, Any]:
    """The whole report."""
    totals = world.totals
    read = totals.prefill_read_bytes + totals.decode_read_bytes
    return {
        "engines": [engine_as_dict(engine) for engine in sorted(world.engines, key=lambda e: e.name)],
        "sides": {role.value: _side(world, role) for role in Role},
        "queue": {"waiting": len(world.queue), "running": len(world.jobs) - len(world.queue)},
        "promptTokens": totals.prompt_tokens,
        "hitTokens": totals.hit_tokens,
        "hitRatio": totals.hit_tokens / totals.prompt_tokens if totals.prompt_tokens else None,
        "read": {
            "prefillBytes": totals.prefill_read_bytes,
            "decodeBytes": totals.decode_read_bytes,
            "decodeShare": totals.decode_read_bytes / read if read else None,
            "recentDecodeShare": _recent_share(world.recent_reads),
            "lostBlocks": totals.lost_blocks,
        },
        "tuning": tuning_as_dict(world.tuning),
    }


def _side(world: World, role: Role) -> dict[str, Any]:
    """One role's sums, and the utilisation of its NICs by their role."""
    engines = world.engines.of(role)
    nics = [nic for engine in engines if engine.report for nic in engine.report.nics]
    utilisation: dict[str, float | None] = {}
    for kind in ("storage", "compute"):
        known = [nic for nic in nics if nic.role == kind and nic.link_bytes_per_s]
        link = sum(nic.link_bytes_per_s for nic in known)
        busy = sum(max(nic.rx_bytes_per_s, nic.tx_bytes_per_s) for nic in known)
        utilisation[kind] = busy / link if link else None
    loads = world.engines.loads(role)
    return {
        "engines": len(engines),
        "accepting": sum(engine.accepts for engine in engines),
        "seqE": sum(load.seq_e for load in loads),
        "tokE": sum(load.tok_e for load in loads),
        "readQ": sum(engine.read_queue() for engine in engines),
        "utilisation": utilisation,
    }


def _recent_share(reads: deque[tuple[int, int]]) -> float | None:
    """The decode side's share of the bytes that the newest requests read."""
    total = sum(prefill + decode for prefill, decode in reads)
    return sum(decode for _, decode in reads) / total if total else None


# ---------------------------------------------------------------- routes


async def get_report(request: web.Request) -> web.Response:
    """`GET /control/v1/report`."""
    check_access(request)
    return web.json_response(report_as_dict(request.app[SERVICE].scheduler.world))


async def get_tuning(request: web.Request) -> web.Response:
    """`GET /control/v1/tuning`."""
    check_access(request)
    return web.json_response(tuning_as_dict(request.app[SERVICE].scheduler.world.tuning))


async def put_tuning(request: web.Request) -> web.Response:
    """`PUT /control/v1/tuning`: applied to the next decision."""
    check_access(request)
    body = await read_body(request, TuningBody, strict=True)
    request.app[SERVICE].tune(body.tuning())
    return web.json_response(tuning_as_dict(body.tuning()))


def _engine(request: web.Request) -> Engine:
    name = request.match_info["id"]
    engine = request.app[SERVICE].scheduler.world.engines.get(name)
    if engine is None:
        raise ApiError(404, f"no engine {name!r} is connected", code="engine_not_found")
    return engine


async def get_engine(request: web.Request) -> web.Response:
    """`GET /control/v1/engines/{id}` and `GET .../drain`."""
    check_access(request)
    return web.json_response(engine_as_dict(_engine(request)))


async def drain_engine(request: web.Request) -> web.Response:
    """`POST /control/v1/engines/{id}/drain`: take nothing new; `serveReads` false: nor read for others."""
    check_access(request)
    body = await read_body(request, DrainBody, strict=True) if request.can_read_body else DrainBody()
    return _wish(request, accept_new=body.accept_new, serve_reads=body.serve_reads)


async def resume_engine(request: web.Request) -> web.Response:
    """`POST /control/v1/engines/{id}/resume`: take new requests again."""
    check_access(request)
    return _wish(request, accept_new=True, serve_reads=True)


def _wish(request: web.Request, *, accept_new: bool, serve_reads: bool) -> web.Response:
    engine = _engine(request)
    request.app[SERVICE].drain(engine.name, accept_new=accept_new, serve_reads=serve_reads)
    return web.json_response(engine_as_dict(engine))
