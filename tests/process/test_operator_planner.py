"""Mode Planner against a real gateway: what engines report becomes the number of groups."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from gateway_cluster import GatewayCluster, Pod, gateway_with_engines
from operator_side import KEY, Side, operator_of

from dualpath_api import wire
from dualpath_operator.sizing import Fleet

P = Pod(name="c-prefill-aaaaaaaa-0", revision="aaaaaaaa", uid="u1", node="n1")
D = Pod(name="c-decode-aaaaaaaa-0", revision="aaaaaaaa", uid="u2", node="n2")
BODY = {"model": "tiny", "prompt": list(range(100, 230)), "max_tokens": 2}


def planner(low: int = 1, high: int = 8) -> dict:
    scaling = {"mode": "Planner", "minReplicas": low, "maxReplicas": high}
    return {"prefill_scaling": scaling, "decode_scaling": scaling}


@pytest.fixture
async def gateway(tmp_path):
    async with gateway_with_engines(tmp_path, prefill=[P], decode=[D], token="secret") as running:
        yield running


async def work(gateway: GatewayCluster, prefill: float = 0.0, pages_used: float = 0.0) -> None:
    """Prefill computes this part of its time, decode has used this part of its KV pages."""
    figures, began = gateway.engines[P.engine].figures, time.monotonic()
    decode = gateway.engines[D.engine]
    decode.figures["free_pages"] = round(decode.registration.cache_pages * (1 - pages_used))
    until = began + 20
    while time.monotonic() < until:
        figures["busy_s"] = prefill * (time.monotonic() - began)
        await gateway._report(P.engine)
        await gateway._report(D.engine)
        sides = (await gateway.report())["sides"]
        seen = (sides["prefill"]["busyPermille"] or 0, sides["decode"]["kvCachePermille"] or 0)
        if abs(seen[0] - 1000 * prefill) < 60 and abs(seen[1] - 1000 * pages_used) < 60:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(seen)


def planned(side: Side) -> tuple[int, int] | None:
    pair = side.telemetry.told(KEY).sized.planned
    return None if pair is None else (pair.prefill, pair.decode)


async def test_a_busy_role_grows_and_the_status_says_why(gateway):
    async with operator_of(gateway, **planner()) as side:
        await work(gateway, pages_used=0.95)
        told = await side.visit()
        assert planned(side) == (1, 2)
        assert told.sized.scaling.status is True
        assert told.sized.scaling.reason == "DecodeDemand"
        last = told.sized.last_scale
        assert (last.before.decode, last.after.decode, last.reason) == (1, 2, "DecodeDemand")


async def test_prefill_grows_by_the_time_it_computes(gateway):
    async with operator_of(gateway, **planner()) as side:
        await side.visit()
        assert planned(side) == (1, 1)
        await work(gateway, prefill=0.95)
        told = await side.visit()
        assert planned(side) == (2, 1)
        assert told.sized.scaling.reason == "PrefillDemand"


async def test_a_decision_stands_until_what_it_asked_for_is_there_and_measured(gateway):
    async with operator_of(gateway, **planner()) as side:
        await work(gateway, pages_used=0.95)
        await side.visit()
        for _ in range(3):  # the same load, the new group still starts
            await side.visit()
            assert planned(side) == (1, 2)
        await gateway.add(wire.Role.DECODE, Pod(name="c-decode-aaaaaaaa-1", revision="aaaaaaaa", uid="u3"))
        side.fleet = Fleet(ready={"prefill": 1, "decode": 2})
        side.follow()
        await side.visit()
        assert planned(side) == (1, 2)
        told = await side.visit(31)
        assert planned(side) == (1, 2)
        assert told.sized.scaling.reason == "WithinHysteresis"


async def test_the_limits_hold(gateway):
    async with operator_of(gateway, **planner(low=1, high=1)) as side:
        await work(gateway, pages_used=0.95)
        await side.visit()
        assert planned(side) == (1, 1)


async def test_the_gpu_budget_holds(gateway):
    resources = {"dramBuffer": "1Gi", "kvCache": "1Gi", "gpus": 4}
    more = {"prefill_resources": resources, "decode_resources": resources, "gpuBudget": 8}
    async with operator_of(gateway, **planner(), **more) as side:
        side.fleet = Fleet(ready={"prefill": 1, "decode": 1}, gpus_held=8)
        side.follow()
        await work(gateway, pages_used=0.95)
        told = await side.visit()
        assert planned(side) == (1, 1)
        assert told.sized.scaling.reason == "GpuBudgetBinds"


async def test_without_requests_everything_goes_and_the_first_request_brings_it_back(gateway):
    status = json.dumps({"planned": {"prefill": 1, "decode": 1}}).encode()
    async with operator_of(gateway, status, **planner(low=0)) as side:
        await side.visit()
        assert planned(side) == (1, 1)
        told = await side.visit(601)
        assert planned(side) == (0, 0)
        assert told.sized.scaling.reason == "ScaledToZero"
        for pod in (P, D):
            await gateway.remove(pod.engine)
        side.fleet = Fleet(ready={})
        side.follow()
        await side.visit(20)
        assert planned(side) == (0, 0)
        assert side.due == 1.0  # a request would wait for the next visit
        assert (await gateway.call("POST", "/v1/completions", BODY))[0] == 503  # with Retry-After
        told = await side.visit(1)
        assert planned(side) == (1, 1)
        assert told.sized.scaling.reason == "RequestsWaiting"
        for role, pod in ((wire.Role.PREFILL, P), (wire.Role.DECODE, D)):
            await gateway.add(role, pod)
        assert (await gateway.call("POST", "/v1/completions", BODY))[0] == 200
        await side.visit(31)
        assert planned(side) == (1, 1)


async def test_without_a_report_the_last_decision_holds_and_the_condition_says_so(gateway):
    async with operator_of(gateway, **planner()) as side:
        await work(gateway, pages_used=0.95)
        await side.visit()
        await gateway.stop()
        await side.visit(10)
        assert planned(side) == (1, 2)
        told = await side.visit(61)
        assert planned(side) == (1, 2)
        assert (told.sized.scaling.status, told.sized.scaling.reason) == (False, "StaleTelemetry")
        await gateway.start()
