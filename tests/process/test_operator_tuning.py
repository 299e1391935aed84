"""The slow loop of the operator against a real gateway: what is measured moves what is set, and is told."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from gateway_cluster import LINK_BYTES_PER_S, GatewayCluster, Pod, gateway_with_engines
from operator_side import INTERVAL_S, KEY, Side, operator_of

from dualpath_api import wire
from dualpath_operator import control, metrics
from dualpath_operator.metrics import REGISTRY

P = Pod(name="c-prefill-aaaaaaaa-0", revision="aaaaaaaa", uid="u1", node="n1")
D = Pod(name="c-decode-aaaaaaaa-0", revision="aaaaaaaa", uid="u2", node="n2")
BODY = {"model": "tiny", "prompt": list(range(100, 230)), "max_tokens": 2}
READS = 0.3 * LINK_BYTES_PER_S


@pytest.fixture
async def gateway(tmp_path):
    async with gateway_with_engines(tmp_path, prefill=[P], decode=[D], token="secret") as running:
        for pod in (P, D):
            await running.load(pod.engine, storage=0.0)
        sides = ("prefill", "decode")
        await running.until(
            lambda report: all(report["sides"][side]["storageLinkBytesPerS"] for side in sides)
        )
        yield running


async def skewed(gateway: GatewayCluster, prefill: float = 0.9, decode: float = 0.4) -> None:
    """Both sides read alike, but their NICs are busy to these parts."""
    await gateway.load(P.engine, storage=prefill, reads=READS)
    await gateway.load(D.engine, storage=decode, reads=READS)
    await gateway.until(
        lambda report: (
            all(report["sides"][side]["readBytesPerS"] for side in ("prefill", "decode"))
            and report["sides"]["prefill"]["utilisation"]["storage"] == prefill
        )
    )


async def in_force(gateway: GatewayCluster) -> dict[str, Any]:
    return (await gateway.call("GET", "/control/v1/tuning"))[1]


def middle(tuning: dict[str, Any]) -> float:
    return (tuning["decodeMinPermille"] + tuning["decodeMaxPermille"]) / 2


def target(side: Side) -> int | None:
    return side.telemetry.told(KEY).paths.decode_share_permille.target


def reason(side: Side) -> str:
    return side.telemetry.told(KEY).tuned.reason


async def test_a_hot_side_gets_less_to_read_and_the_gateway_is_told(gateway):
    async with operator_of(gateway) as side:
        await side.visit()
        assert (target(side), reason(side)) == (500, "Started")
        assert middle(await in_force(gateway)) == 500
        await skewed(gateway)
        await side.visit()
        assert reason(side) == "PrefillStorageNicHot"
        assert target(side) > 500
        assert middle(await in_force(gateway)) == target(side)
        await skewed(gateway, prefill=0.4, decode=0.9)
        before = target(side)
        told = await side.visit()
        assert told.tuned.reason == "DecodeStorageNicHot"
        assert target(side) < before
        assert told.nics.decode.storage.p95_permille == 900


async def test_one_step_is_made_per_interval_however_often_the_gateway_is_visited(gateway):
    async with operator_of(gateway) as side:
        await side.visit()
        await skewed(gateway)
        await side.visit()
        moved = target(side)
        for _ in range(5):
            await side.visit(1)
        assert target(side) == moved
        assert side.due == INTERVAL_S - 5
        await side.visit(5)
        assert target(side) > moved


async def test_a_cluster_without_requests_is_visited_rarely_until_one_comes(gateway):
    async with operator_of(gateway) as side:
        await side.visit()
        assert side.due == INTERVAL_S
        await side.visit(61)
        assert side.due == 90.0
        assert (await gateway.call("POST", "/v1/completions", BODY))[0] == 200
        await side.visit(90)
        assert side.due <= INTERVAL_S


async def test_a_gateway_that_was_restarted_is_told_the_tuning_again(gateway):
    async with operator_of(gateway) as side:
        await side.visit()
        await skewed(gateway)
        await side.visit()
        tuning, moved = await in_force(gateway), target(side)
        await gateway.stop()
        await side.visit(2)
        await gateway.start()
        await side.visit(2)  # no engine has come back yet
        assert target(side) == moved
        assert await in_force(gateway) == tuning
        await gateway.restart()
        await side.visit(2)
        assert target(side) == moved
        assert await in_force(gateway) == tuning


async def test_another_operator_goes_on_from_the_status(gateway):
    async with operator_of(gateway) as side:
        await side.visit()
        await skewed(gateway)
        told = await side.visit()
    share = told.paths.model_dump(mode="json", by_alias=True, exclude_none=True)
    judged = {"type": "PathTuned", "status": "True", "reason": told.tuned.reason, "message": "m"}
    status = json.dumps({"paths": share, "conditions": [judged]}).encode()
    async with operator_of(gateway, status) as side:
        first = side.telemetry.told(KEY)
        assert (first.tuned.reason, first.paths) == (told.tuned.reason, told.paths)
        await side.visit()
        assert 0 < target(side) - first.paths.decode_share_permille.target <= 50


async def test_silent_engines_hold_the_last_target_and_the_condition_says_so(gateway):
    async with operator_of(
        gateway, pathPolicy_retune_interval="1s", pathPolicy_retune_staleAfter="1s"
    ) as side:
        await side.visit()
        await skewed(gateway)
        await side.visit()
        moved, tuning = target(side), await in_force(gateway)
        gateway._beat.cancel()  # the engines stay connected, but tell nothing any more
        await gateway.until(lambda report: report["sides"]["prefill"]["sampleAgeS"] > 1.2)
        told = await side.visit()
        assert (told.tuned.status, told.tuned.reason) == (False, "StaleTelemetry")
        assert target(side) == moved
        assert await in_force(gateway) == tuning


async def test_a_silent_gateway_holds_the_last_target_and_then_the_condition_says_so(gateway, monkeypatch):
    monkeypatch.setattr(control, "TIMEOUT_S", 0.3)
    async with operator_of(gateway) as side:
        await side.visit()
        await skewed(gateway)
        before = await side.visit()
        moved = target(side)
        gateway.process.send_signal(signal.SIGSTOP)
        try:
            told = await side.visit()
            assert told.tuned == before.tuned  # an old report is not acted on a second time
            told = await side.visit(61)
        finally:
            gateway.process.send_signal(signal.SIGCONT)
        assert (told.tuned.status, told.tuned.reason) == (False, "StaleTelemetry")
        assert "no answer within 0.3 s" in told.tuned.message
        assert target(side) == moved
        told = await side.visit()
        assert told.tuned.reason == "PrefillStorageNicHot"


async def test_a_gateway_that_never_answered_is_unknown_and_not_stale():
    async with operator_of("http://127.0.0.1:9") as side:
        told = await side.visit(600)
        assert (told.tuned.status, told.tuned.reason) == (None, "NoTelemetry")
        assert told.paths.decode_share_permille.target is None


async def test_a_new_mode_is_in_force_at_once_and_what_was_learnt_before_is_not_taken_for_its_own(gateway):
    async with operator_of(gateway) as side:
        await side.visit()
        side.planned = []
        side.change(pathPolicy_mode="PrefillOnly")
        assert side.planned == [0.0]
        told = await side.visit(0.1)
        assert (await in_force(gateway))["pathPolicy"] == "PrefillOnly"
        assert (told.tuned.reason, target(side), told.paths.mode) == ("Fixed", 0, "PrefillOnly")
        side.change(pathPolicy_mode="Split")
        await side.visit(0.1)
        assert (target(side), reason(side)) == (500, "Started")
        assert (await in_force(gateway))["pathPolicy"] == "Split"


async def test_new_bounds_are_in_force_at_once(gateway):
    async with operator_of(gateway) as side:
        await side.visit()
        side.change(pathPolicy_decodeShare={"minPermille": 700})
        await side.visit(0.1)
        assert (await in_force(gateway))["decodeMinPermille"] >= 700
        assert target(side) >= 700


async def test_tuning_that_is_off_sets_the_bounds_alone(gateway):
    async with operator_of(gateway, pathPolicy_retune_enabled=False) as side:
        await skewed(gateway)
        told = await side.visit()
        assert told.tuned.reason == "Fixed"
        assert target(side) is None
        tuning = await in_force(gateway)
        assert (tuning["decodeMinPermille"], tuning["decodeMaxPermille"]) == (0, 1000)


async def test_more_engines_start_the_target_anew(gateway):
    async with operator_of(gateway) as side:
        await side.visit()
        await gateway.add(wire.Role.DECODE, Pod(name="c-decode-aaaaaaaa-1", revision="aaaaaaaa", uid="u3"))
        await gateway.load("c-decode-aaaaaaaa-1-0", storage=0.1)
        await gateway.load(P.engine, storage=0.1)
        await gateway.load(D.engine, storage=0.1)
        await gateway.until(lambda report: report["sides"]["decode"]["storageLinkBytesPerS"] == 50e9)
        await side.visit()
        assert (target(side), reason(side)) == (667, "TopologyChanged")


# ---------------------------------------------------------------- metrics


def sample(name: str, **labels: str) -> float | None:
    of = {"namespace": KEY[0], "cluster": KEY[1], **labels}
    return REGISTRY.get_sample_value(name, of)


async def test_dashboards_see_what_the_report_says_and_nothing_of_a_cluster_that_is_gone(gateway):
    async with operator_of(gateway) as side:
        await side.visit()
        await skewed(gateway)
        await side.visit()
        hot = {"role": "prefill", "nic_class": "storage", "quantile": "0.95"}
        assert sample("dualpath_nic_utilization_ratio", **hot) == 0.9
        assert sample("dualpath_nic_utilization_ratio", **hot | {"nic_class": "compute"}) is None
        assert sample("dualpath_decode_share_ratio", kind="target") == target(side) / 1000
        assert sample("dualpath_decode_share_ratio", kind="observed") is None
        assert sample("dualpath_read_queue_seconds", role="decode") == 0.0
        assert sample("dualpath_telemetry_age_seconds") == 0.0
        side.now += 7
        assert sample("dualpath_telemetry_age_seconds") == 7.0
        side.change(suspend=True)
        assert sample("dualpath_telemetry_age_seconds") is None
        side.telemetry.forget(KEY)
        metrics.forget_cluster(*KEY)
        assert sample("dualpath_nic_utilization_ratio", **hot) is None
        assert sample("dualpath_telemetry_age_seconds") is None
