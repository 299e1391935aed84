"""How many groups are wanted, and single conditions."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from desired_world import LOCAL, MANAGED, NODES, changed, cluster_of
from hypothesis import given
from hypothesis import strategies as st
from observed import NOW, serving

from dualpath_api.status import Pair
from dualpath_operator.applier import Applied
from dualpath_operator.judgements import (
    balance_of,
    gateway_ready,
    judge_scaling,
    judge_storage,
    problems_of,
    progress_overdue,
    refusal,
)
from dualpath_operator.model import Key
from dualpath_operator.observe import Drains, replicas_of
from dualpath_operator.rollout import plan
from dualpath_operator.views import object_view
from dualpath_operator.wanted import owned_replicas, wanted_replicas, wish_for

NO_GROUPS: dict = {"prefill": None, "decode": None}
SHAPE = {
    "computeNics": 8,
    "computeNicBytes": 50 * 10**9,
    "storageBytes": 50 * 10**9,
    "dramBytes": 500 * 10**9,
}


def scaled(**scaling: object):
    spec = changed(LOCAL, "spec.prefill.scaling", scaling)
    other = scaling if scaling.get("mode") == "Planner" else {"replicas": 2}
    return cluster_of(changed(spec, "spec.decode.scaling", other))


def group(replicas: int | None):
    spec = {} if replicas is None else {"replicas": replicas}
    meta = {"name": "qwen-prefill", "uid": "u", "resourceVersion": "1"}
    return object_view({"kind": "DualPathEngineGroup", "metadata": meta, "spec": spec})


def test_static_is_what_the_spec_says():
    cluster = scaled(replicas=3)
    assert wanted_replicas(cluster, NO_GROUPS, Pair(prefill=9, decode=9)) == {"prefill": 3, "decode": 2}
    assert owned_replicas(cluster, {"prefill": 3, "decode": 2}) == {"prefill": 3, "decode": 2}


@pytest.mark.parametrize(("live", "wanted"), [(None, 1), (0, 0), (5, 5)])
def test_external_is_what_the_scale_of_the_group_says(live, wanted):
    cluster = scaled(mode="External")
    groups = {**NO_GROUPS, "prefill": group(live)}
    assert wanted_replicas(cluster, groups, None)["prefill"] == wanted
    assert owned_replicas(cluster, {"prefill": wanted, "decode": 2})["prefill"] is None


def test_external_is_not_lost_with_its_group():
    cluster = scaled(mode="External")
    assert wanted_replicas(cluster, NO_GROUPS, None, {"prefill": 4})["prefill"] == 4
    assert owned_replicas(cluster, {"prefill": 4, "decode": 2}, missing={"prefill"})["prefill"] == 4


@given(low=st.none() | st.integers(0, 5), more=st.integers(0, 5), planned=st.none() | st.integers(0, 64))
def test_the_planner_is_held_inside_the_limits(low, more, planned):
    least = 1 if low is None else low
    most = max(1, least + more)
    limits = {"maxReplicas": most} | ({} if low is None else {"minReplicas": low})
    cluster = scaled(mode="Planner", **limits)
    pair = None if planned is None else Pair(prefill=planned, decode=planned)
    wanted = wanted_replicas(cluster, NO_GROUPS, pair)["prefill"]
    assert least <= wanted <= most
    if planned is not None and least <= planned <= most:
        assert wanted == planned


def test_a_cluster_that_sleeps_or_goes_wants_nothing():
    nothing = {"prefill": 0, "decode": 0}
    cluster = scaled(replicas=3)
    assert wanted_replicas(replace(cluster, deleting=True), NO_GROUPS, None) == nothing
    asleep = cluster_of({**LOCAL, "suspend": True})
    assert wanted_replicas(asleep, NO_GROUPS, Pair(prefill=2, decode=2)) == nothing


def test_a_paused_cluster_that_is_deleted_goes_all_the_same():
    paused = cluster_of({**LOCAL, "paused": True})
    wanted = {"prefill": 0, "decode": 0}
    assert wish_for(paused, "r", wanted).paused
    assert not wish_for(replace(paused, deleting=True), "r", wanted).paused


# ---------------------------------------------------------------- judgements


def stateful_set(ready: int):
    meta = {"name": "qwen-store", "uid": "u", "resourceVersion": "1", "generation": 1}
    status = {"observedGeneration": 1, "updatedReplicas": 3, "readyReplicas": ready}
    return object_view({"kind": "StatefulSet", "metadata": meta, "spec": {"replicas": 3}, "status": status})


def test_the_store_is_judged_by_who_runs_it():
    assert judge_storage(cluster_of(NODES), {}).reason == "External"
    assert judge_storage(cluster_of(LOCAL), {}).reason == "ClaimNotBound"
    for phase, reason in (("Pending", "ClaimNotBound"), ("Bound", "ClaimBound")):
        claim = object_view(
            {
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": "qwen-store", "uid": "u", "resourceVersion": "1"},
                "status": {"phase": phase},
            }
        )
        assert judge_storage(cluster_of(LOCAL), {claim.key: claim}).reason == reason
    managed = cluster_of(MANAGED)
    key = Key(kind="StatefulSet", name="qwen-store")
    assert judge_storage(managed, {}).status is False
    waiting = judge_storage(managed, {key: stateful_set(2)})
    assert (waiting.status, waiting.message) == (False, "waiting for qwen-store")
    assert judge_storage(managed, {key: stateful_set(3)}).status is True


def deployment(**status: int):
    meta = {"name": "qwen-gateway", "uid": "u", "resourceVersion": "1", "generation": 2}
    body = {"kind": "Deployment", "metadata": meta, "spec": {"replicas": 1}, "status": status}
    return {Key(kind="Deployment", name="qwen-gateway"): object_view(body)}


def test_a_gateway_is_ready_when_its_newest_form_is():
    cluster = cluster_of(LOCAL)
    new = {"updatedReplicas": 1, "readyReplicas": 1}
    assert gateway_ready(cluster, deployment(observedGeneration=2, **new))
    assert not gateway_ready(cluster, deployment(observedGeneration=1, **new))
    assert not gateway_ready(cluster, deployment(observedGeneration=2, readyReplicas=1))
    assert not gateway_ready(cluster, {})


def test_scaling_says_who_decides():
    assert judge_scaling(scaled(replicas=1), None).reason == "Static"
    assert judge_scaling(scaled(mode="External"), None).reason == "External"
    assert judge_scaling(scaled(mode="Planner", maxReplicas=2), None).status is None
    assert judge_scaling(cluster_of({**LOCAL, "suspend": True}), None).reason == "Suspended"


@pytest.mark.parametrize(
    ("p", "d", "reason"),
    [(2, 2, "WithinBottleneckFreeRange"), (64, 1, "OutsideBottleneckFreeRange"), (1, 0, "Idle")],
)
def test_the_ratio_is_judged_by_the_hardware(p, d, reason):
    cluster = cluster_of({**LOCAL, "hardware": SHAPE})
    status, judged = balance_of(cluster.spec, {"prefill": p, "decode": d})
    assert judged.reason == reason
    assert status.lower_permille < status.upper_permille
    assert balance_of(cluster_of(LOCAL).spec, {"prefill": p, "decode": d})[1].reason == "HardwareUnknown"


def test_a_rollout_is_overdue_after_its_deadline_and_only_while_it_may_go_on():
    cluster = cluster_of({**LOCAL, "rollout": {"progressDeadline": "60s"}})
    views = replicas_of("qwen", [serving("prefill")], Drains(), NOW)
    wanted = {"prefill": 1, "decode": 1}
    going = plan([view.replica for view in views], wish_for(cluster, "aaaaaaaa", wanted))
    since = {"progressTime": "2026-01-01T00:00:00Z"}
    start = datetime(2026, 1, 1, tzinfo=UTC)
    assert not progress_overdue(cluster, going, since, start + timedelta(seconds=60))
    assert progress_overdue(cluster, going, since, start + timedelta(seconds=61))
    assert not progress_overdue(cluster, going, {}, start + timedelta(days=1))
    paused = cluster_of({**LOCAL, "paused": True})
    assert not progress_overdue(paused, going, since, start + timedelta(days=1))


def test_problems_that_need_a_person_come_worst_first():
    cluster = cluster_of(LOCAL)
    idle = plan([], wish_for(cluster, "r", {"prefill": 0, "decode": 0}))
    refused = [(Key(kind="Pod", name="p"), "no"), (Key(kind="Service", name="s"), "no")]
    applied = Applied(clashes=[Key(kind="Service", name="qwen")], refused=refused)
    found = problems_of(applied, cluster, idle, {}, NOW)
    assert [problem.reason for problem in found] == ["NameClash", "ApplyRefused", "PodRefused"]
    assert problems_of(Applied(), cluster, idle, {}, NOW) == ()


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            'pods "p" is forbidden: exceeded quota: q, requested: pods=1, used: pods=3, limited: pods=3',
            "exceeded quota: q, requested: pods=1, used: pods=3, limited: pods=3;"
            " ask for less, or raise the namespace's ResourceQuota",
        ),
        (
            'pods "p" is forbidden: violates PodSecurity "restricted:latest": host namespaces',
            'violates PodSecurity "restricted:latest": host namespaces;'
            " take that out of the spec, or allow it by the namespace's Pod Security labels",
        ),
        (
            'Pod in version "v1" cannot be handled as a Pod: strict decoding error: unknown field "spec.a"',
            'Pod in version "v1" cannot be handled as a Pod: strict decoding error: unknown field "spec.a";'
            " correct that field of the podTemplate",
        ),
        (
            'Pod "p" is invalid: spec.x: no',
            'Pod "p" is invalid: spec.x: no; change the spec, or what refuses it',
        ),
    ],
)
def test_a_refusal_says_what_was_refused_why_and_what_to_do(said, told):
    assert refusal(Key(kind="Pod", name="p"), said) == f"Pod p is refused: {told}"
