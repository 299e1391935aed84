"""The operator's loops against a real gateway: admission, drains with proof, and gateways that do not answer."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from gateway_cluster import GatewayCluster, Pod, gateway_with_engines
from operator_side import KEY, operator_of, pod_view

from dualpath_api import wire
from dualpath_operator import control
from dualpath_operator.heard import Contact
from dualpath_operator.rollout_model import State

P = Pod(name="c-prefill-aaaaaaaa-0", revision="aaaaaaaa", uid="u1", node="n1")
D = Pod(name="c-decode-aaaaaaaa-0", revision="aaaaaaaa", uid="u2", node="n2")
BODY = {"model": "tiny", "prompt": list(range(100, 230)), "max_tokens": 5}


@pytest.fixture
async def gateway(tmp_path):
    async with gateway_with_engines(tmp_path, prefill=[P], decode=[D], token="secret") as running:
        yield running


async def engine_of(gateway: GatewayCluster, pod: Pod) -> dict:
    return (await gateway.call("GET", f"/control/v1/engines/{pod.engine}"))[1]


# ---------------------------------------------------------------- admission


async def test_a_pod_is_admitted_once_its_engine_is_known_and_not_before(gateway):
    async with operator_of(gateway) as side:
        late = Pod(name="c-decode-aaaaaaaa-1", revision="aaaaaaaa", uid="u3")
        side.pods = [pod_view(P), pod_view(late)]
        assert side.admissions() == {}  # nothing has been heard yet
        await side.visit()
        assert side.admissions() == {P.name: True}
        await gateway.add(wire.Role.DECODE, late)
        await side.visit()
        assert side.admissions() == {P.name: True, late.name: True}


async def test_a_pod_whose_engine_is_gone_is_not_admitted_any_more(gateway):
    async with operator_of(gateway) as side:
        side.pods = [pod_view(D, admitted=True)]
        await side.visit()
        assert side.admissions() == {}
        await gateway.remove(D.engine)
        await side.visit()
        assert side.admissions() == {D.name: False}
        side.pods = [pod_view(D, admitted=True, containers_ready=False)]
        assert side.admissions() == {D.name: False}


async def test_another_pod_of_the_same_name_is_not_taken_for_the_one_that_is_connected(gateway):
    async with operator_of(gateway) as side:
        side.pods = [pod_view(Pod(name=P.name, revision=P.revision, uid="another"))]
        await side.visit()
        assert side.admissions() == {}


async def test_all_ranks_of_a_pod_have_to_be_connected_before_it_is_admitted(gateway):
    async with operator_of(gateway, decode_parallelism_data=2) as side:
        side.pods = [pod_view(D)]
        await side.visit()
        assert side.admissions() == {}
        await gateway.add(wire.Role.DECODE, Pod(name=D.name, rank=1, revision=D.revision, uid=D.uid))
        await side.visit()
        assert side.admissions() == {D.name: True}


async def test_a_pod_that_goes_is_left_alone(gateway):
    async with operator_of(gateway) as side:
        side.pods = [pod_view(P, deletion="2030-01-01T00:00:00Z")]
        await side.visit()
        assert side.admissions() == {}


# ---------------------------------------------------------------- drains


async def test_a_drain_ends_with_proof(gateway):
    engine = gateway.engines[D.engine]
    engine.hold_tokens.clear()
    request = asyncio.create_task(gateway.call("POST", "/v1/completions", BODY))
    await engine.saw(wire.Start)
    engine.figures["serving_reads"] = 1
    async with operator_of(gateway) as side:
        side.pods = [pod_view(D, admitted=True)]
        await side.visit()
        assert side.replica().replica.state is State.READY

        await side.telemetry.drain(side.cluster, side.replica())
        await side.visit(1)
        assert side.replica().replica.state is State.DRAINING
        assert side.due == 1.0
        now = await engine_of(gateway, D)
        assert (now["acceptNew"], now["serveReads"]) == (False, True)

        await side.telemetry.drain(side.cluster, side.replica())  # a request still runs: reads stay open
        assert (await engine_of(gateway, D))["serveReads"] is True

        engine.hold_tokens.set()
        assert (await request)[0] == 200
        await gateway.until(lambda report: report["engines"][0]["inFlight"] == 0)
        await side.visit(1)
        await side.telemetry.drain(side.cluster, side.replica())
        assert (await engine_of(gateway, D))["serveReads"] is False
        await side.visit(1)
        assert side.replica().replica.state is State.DRAINING  # somebody still reads from it

        engine.figures["serving_reads"] = 0
        await gateway.until(lambda report: report["engines"][0]["drained"])
        await side.visit(1)
        assert side.replica().replica.state is State.DRAINED


async def test_a_resumed_replica_serves_again(gateway):
    async with operator_of(gateway) as side:
        side.pods = [pod_view(D, admitted=True)]
        await side.visit()
        await side.telemetry.drain(side.cluster, side.replica())
        await side.visit(1)
        assert side.replica().replica.state is State.DRAINING
        await side.telemetry.resume(side.cluster, side.replica())
        await gateway.until(lambda report: report["engines"][0]["acceptNew"])
        await side.visit(1)
        assert side.replica().replica.state is State.READY


async def test_a_drain_that_is_taken_back_before_it_was_reported_is_resumed_once_it_is(gateway):
    async with operator_of(gateway) as side:
        side.pods = [pod_view(D, admitted=True)]
        await side.visit()
        await side.visit()
        await side.telemetry.drain(side.cluster, side.replica())
        await side.telemetry.resume(side.cluster, side.replica())  # by the report all is well
        woken = side.woken
        await side.visit(1)
        assert side.woken == woken + 1
        assert side.replica().replica.state is State.DRAINING
        await side.telemetry.resume(side.cluster, side.replica())
        await gateway.until(lambda report: report["engines"][0]["acceptNew"])


async def test_a_drain_that_another_operator_began_goes_on(gateway):
    async with operator_of(gateway) as first:
        first.pods = [pod_view(D, admitted=True)]
        await first.visit()
        await first.telemetry.drain(first.cluster, first.replica())
    async with operator_of(gateway) as second:
        second.pods = [pod_view(D, admitted=True)]
        assert second.replica().replica.state is State.READY  # it has not heard of anything yet
        await second.visit()
        assert second.replica().replica.state is State.DRAINING


async def test_a_drain_before_the_first_visit_is_asked_for_after_it(gateway):
    async with operator_of(gateway) as side:
        side.pods = [pod_view(D, admitted=True)]
        await side.telemetry.drain(side.cluster, side.replica())
        assert (await engine_of(gateway, D))["acceptNew"] is True
        await side.visit()
        await side.telemetry.drain(side.cluster, side.replica())
        assert (await engine_of(gateway, D))["acceptNew"] is False


async def test_a_replica_whose_deadline_has_passed_may_go(gateway):
    gateway.engines[D.engine].figures["serving_reads"] = 1
    async with operator_of(gateway, drain_deadline="60s") as side:
        side.pods = [pod_view(D, admitted=True)]
        await side.visit()
        await side.telemetry.drain(side.cluster, side.replica())
        await side.visit(59)
        assert side.replica().replica.state is State.DRAINING
        await side.visit(2)
        assert side.replica().replica.state is State.DRAINED


async def test_a_replica_without_engines_has_nothing_to_finish(gateway):
    async with operator_of(gateway) as side:
        side.pods = [pod_view(Pod(name="c-decode-aaaaaaaa-7", revision="aaaaaaaa", uid="u7"), admitted=True)]
        await side.visit()
        await side.telemetry.drain(side.cluster, side.replica())
        assert side.replica().replica.state is State.DRAINED


async def test_drains_are_forgotten_with_their_replicas(gateway):
    async with operator_of(gateway) as side:
        side.pods = [pod_view(D, admitted=True)]
        await side.visit()
        await side.telemetry.drain(side.cluster, side.replica())
        side.telemetry.gone(KEY, ())
        await side.visit(1)
        await side.telemetry.resume(side.cluster, side.replica())
        await gateway.until(lambda report: report["engines"][0]["acceptNew"])
        await side.visit(1)
        assert side.due > 1.0


# ---------------------------------------------------------------- gateways that do not answer


async def test_without_a_gateway_a_draining_replica_may_go(gateway):
    async with operator_of(gateway) as side:
        side.pods = [pod_view(D, admitted=True)]
        await side.visit()
        await side.telemetry.drain(side.cluster, side.replica())
        await gateway.stop()
        await side.visit()
        assert side.telemetry._heard[KEY].contact is Contact.ABSENT
        assert side.replica().replica.state is State.DRAINED
        assert side.admissions() == {}  # no report: no gate is touched
        await gateway.start()


async def test_a_gateway_that_is_silent_proves_nothing(gateway, monkeypatch):
    monkeypatch.setattr(control, "TIMEOUT_S", 0.3)
    async with operator_of(gateway) as side:
        side.pods = [pod_view(D, admitted=True)]
        await side.visit()
        gateway.process.send_signal(signal.SIGSTOP)
        try:
            await side.telemetry.drain(side.cluster, side.replica())
            assert side.telemetry._heard[KEY].contact is Contact.SILENT
            await side.visit()
            assert side.replica().replica.state is State.DRAINING
        finally:
            gateway.process.send_signal(signal.SIGCONT)
        await side.visit()
        await side.telemetry.drain(side.cluster, side.replica())
        assert (await engine_of(gateway, D))["acceptNew"] is False


async def test_a_refused_token_is_told_once_so_that_it_is_read_again(gateway):
    async with operator_of(gateway) as side:
        side.token = "old"
        side.follow()
        side.pods = [pod_view(P)]
        await side.visit()
        assert side.telemetry._heard[KEY].contact is Contact.SILENT
        assert side.admissions() == {}
        assert side.telemetry.refused(KEY)
        assert not side.telemetry.refused(KEY)
        side.token, side.planned = "secret", []
        side.follow()
        assert side.planned == [0.0]
        await side.visit()
        assert side.admissions() == {P.name: True}


async def test_visits_to_a_gateway_that_is_not_there_become_rare_until_it_is_ready():
    async with operator_of("http://127.0.0.1:9") as side:
        side.follow(gateway_ready=False)
        due = []
        for _ in range(6):
            await side.visit()
            due.append(side.due)
        assert due == [2.0, 5.0, 15.0, 60.0, 300.0, 300.0]
        side.planned = []
        side.follow(gateway_ready=True)
        assert side.planned == [0.0]
        await side.visit()
        assert side.due < 60.0


async def test_a_name_that_does_not_exist_is_no_gateway_either(tmp_path):
    async with operator_of("http://c.invalid:8000") as side:
        await side.visit()
        assert side.telemetry._heard[KEY].contact is Contact.ABSENT


async def test_while_a_pod_waits_visits_are_frequent_and_wake_passes(gateway):
    async with operator_of(gateway) as side:
        await side.visit()
        assert side.due > 1.0
        side.planned = []
        side.follow(awaited=True)
        assert side.planned == [0.0]
        woken = side.woken
        await side.visit()
        assert side.woken > woken
        assert side.due == 1.0
        side.follow(awaited=True)
        assert side.planned == [0.0]  # it is told once
        await side.visit(61)
        assert side.due == 5.0
        side.follow()
        await side.visit()
        assert side.due > 5.0


async def test_a_cluster_that_goes_during_a_visit_is_not_kept(gateway):
    async with operator_of(gateway) as side:
        visiting = asyncio.create_task(side.telemetry.visit(KEY))
        await asyncio.sleep(0)
        side.telemetry.forget(KEY)
        assert await visiting is None
        assert await side.telemetry.visit(KEY) is None
