"""The status: what kstatus demands, times that are kept, and when it is worth a write."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from observed import CLUSTER, NOW, findings, findings_of, serving

from dualpath_api.status import ClusterStatus, PathsStatus, ShareStatus
from dualpath_operator.findings import Judgement
from dualpath_operator.observe import Drains, replicas_of
from dualpath_operator.status import GAUGE_STEP_PERMILLE, build_status, edge, moved, printed

T1, T2 = "2026-01-01T00:00:00Z", "2026-01-01T00:05:00Z"
READY = replicas_of("c", [serving("prefill"), serving("decode")], Drains(), NOW)


def conditions(status: ClusterStatus) -> dict[str, str]:
    return {condition.type: condition.status for condition in status.conditions}


def of(status: ClusterStatus, kind: str):
    return next(condition for condition in status.conditions if condition.type == kind)


@given(findings())
def test_tools_that_know_kstatus_are_never_misled(found):
    status = build_status(found, {}, T1)
    told = conditions(status)
    assert not (told["Ready"] == "True" and told["Reconciling"] == "True")
    assert not (told["Stalled"] == "True" and told["Ready"] == "True")
    assert not (told["Stalled"] == "True" and told["Reconciling"] == "True")
    assert "True" in (told["Ready"], told["Reconciling"], told["Stalled"])
    assert status.observed_generation == found.cluster.generation
    assert {c.observed_generation for c in status.conditions} == {found.cluster.generation}
    assert len(told) == len(status.conditions) == 12


@given(findings())
def test_ready_means_that_everything_wanted_serves(found):
    status = build_status(found, {}, T1)
    if conditions(status)["Ready"] == "True" and not found.cluster.spec.suspend:
        assert found.gateway_ready
        for role in (status.roles.prefill, status.roles.decode):
            assert role.ready == role.desired


@given(findings())
def test_the_same_findings_make_the_same_status_and_no_write(found):
    first = printed(build_status(found, {}, T1))
    again = printed(build_status(found, first, T2))
    assert again == first
    assert not edge(first, again)
    assert not moved(first, again)


@given(findings(), findings())
def test_a_condition_keeps_its_time_while_its_status_stays(one, other):
    first = build_status(one, {}, T1)
    second = build_status(other, printed(first), T2)
    for before, after in zip(first.conditions, second.conditions, strict=True):
        assert after.last_transition_time == (T1 if before.status == after.status else T2)


@given(findings(), findings())
def test_what_turns_is_an_edge_and_what_is_an_edge_has_moved(one, other):
    first = printed(build_status(one, {}, T1))
    second = printed(build_status(other, first, T2))
    turned = {c["type"]: c["status"] for c in first["conditions"]}["Ready"] != conditions(
        build_status(other, first, T2)
    )["Ready"]
    assert edge(first, second) or not turned
    assert moved(first, second) or not edge(first, second)


def test_a_cluster_that_serves_is_ready():
    status = build_status(findings_of(READY), {}, T1)
    assert (of(status, "Ready").status, of(status, "Ready").reason) == ("True", "AllRolesServing")
    assert status.roles.prefill.summary == "1/1"
    assert status.revision.current == "aaaaaaaa"
    assert status.progress_time is None


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"gateway_ready": False}, "GatewayNotReady"),
        ({"storage": Judgement(status=False, reason="StoreNotReady")}, "StoreNotReady"),
        ({"wanted": {"prefill": 1, "decode": 2}}, "DecodeNotReady"),
        ({"problems": (Judgement(status=True, reason="NameClash", message="m"),)}, "NameClash"),
    ],
)
def test_ready_says_what_is_missing(more, reason):
    ready = of(build_status(findings_of(READY, **more), {}, T1), "Ready")
    assert (ready.status, ready.reason) == ("False", reason)


def test_a_kind_that_the_api_server_lacks_is_told_while_all_serves():
    before = printed(build_status(findings_of(READY, missing=("a.io/v1/A", "b.io/v1/B")), {}, T1))
    ready = before["conditions"][0]
    assert (ready["type"], ready["status"], ready["reason"]) == ("Ready", "True", "KindMissing")
    assert ready["message"].startswith(
        "it serves without a.io/v1/A, b.io/v1/B, which the API server does not"
    )
    assert moved(before, printed(build_status(findings_of(READY), before, T2)))


def test_an_idle_and_a_suspended_cluster_are_ready():
    nothing = {"prefill": 0, "decode": 0}
    assert of(build_status(findings_of([], wanted=nothing), {}, T1), "Ready").reason == "Idle"
    spec = CLUSTER.spec.model_copy(update={"suspend": True})
    asleep = findings_of([], wanted=nothing, cluster=replace(CLUSTER, spec=spec), gateway_ready=False)
    assert of(build_status(asleep, {}, T1), "Ready").status == "True"
    going = findings_of(READY, wanted=nothing, cluster=replace(CLUSTER, spec=spec))
    assert of(build_status(going, {}, T1), "Reconciling").status == "True"


def test_progress_is_dated_by_what_changed_last():
    waiting = findings_of(READY, wanted={"prefill": 1, "decode": 2})
    first = printed(build_status(waiting, {}, T1))
    assert first["progressTime"] == T1
    assert printed(build_status(waiting, first, T2))["progressTime"] == T1
    other = findings_of(READY, wanted={"prefill": 1, "decode": 3})
    assert printed(build_status(other, first, T2))["progressTime"] == T2


def share(target: int, observed: int) -> dict:
    paths = PathsStatus(decode_share_permille=ShareStatus(target=target, observed=observed))
    return printed(build_status(findings_of(READY, paths=paths), {}, T1))


@given(st.integers(0, 1000), st.integers(0, 1000))
def test_gauges_are_written_when_they_moved_by_more_than_noise(before, after):
    far = abs(before - after) > GAUGE_STEP_PERMILLE
    assert moved(share(500, before), share(500, after)) == far
    assert moved(share(before, 500), share(after, 500)) == far


def test_messages_are_told_along_with_something_else():
    one = findings_of(READY, tuned=Judgement(status=True, reason="A", message="1 s"))
    other = findings_of(READY, tuned=Judgement(status=True, reason="A", message="2 s"))
    first = printed(build_status(one, {}, T1))
    assert not moved(first, printed(build_status(other, first, T2)))
