"""Events tell turns: no first good state, nothing twice, no noise of tuning."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from observed import CLUSTER, findings

from dualpath_api.status import ShareStatus
from dualpath_operator.recorder import RETUNE_EVERY_S, RETUNE_STEP_PERMILLE, edges, event, retuned
from dualpath_operator.status import build_status, printed

T1, T2 = "2026-01-01T00:00:00Z", "2026-01-01T00:05:00Z"


def status(**conditions: tuple[str, str]) -> dict:
    return {
        "conditions": [
            {"type": kind, "status": state, "reason": reason, "message": "m"}
            for kind, (state, reason) in conditions.items()
        ]
    }


def told(before: dict, after: dict) -> list[tuple[str, str]]:
    return [(one["reason"], one["type"]) for one in edges(CLUSTER, before, after)]


def test_a_cluster_that_becomes_ready_tells_it():
    ready = status(Ready=("True", "AllRolesServing"))
    assert told({}, ready) == [("AllRolesServing", "Normal")]
    assert told(status(Ready=("False", "PrefillNotReady")), ready) == [("AllRolesServing", "Normal")]
    assert told(ready, ready) == []
    assert told(ready, status(Ready=("False", "PrefillNotReady"))) == [("PrefillNotReady", "Normal")]


def test_what_needs_a_person_is_a_warning_and_its_end_is_told():
    stalled, fine = status(Stalled=("True", "NameClash")), status(Stalled=("False", "Idle"))
    assert told({}, fine) == []
    assert told({}, stalled) == [("NameClash", "Warning")]
    assert told(stalled, fine) == [("StalledRestored", "Normal")]


def test_a_state_that_nobody_knows_yet_is_no_news():
    assert told({}, status(Ready=("False", "GatewayNotReady"), PathTuned=("Unknown", "NoTelemetry"))) == []
    assert told({}, status(PathTuned=("True", "Started"))) == []
    assert told({}, status(StorageReady=("False", "StoreNotReady"))) == []


@given(findings(), findings())
def test_the_same_state_is_told_once(one, other):
    first = printed(build_status(one, {}, T1))
    second = printed(build_status(other, first, T2))
    assert edges(CLUSTER, second, second) == []
    for news in edges(CLUSTER, first, second):
        assert news["involvedObject"]["uid"] == CLUSTER.uid
        assert news["reason"]
        assert news["message"]


def test_the_same_event_within_a_second_has_the_same_name():
    names = {event(CLUSTER, "Reason", "message")["metadata"]["name"] for _ in range(20)}
    assert len(names) <= 2
    assert event(replace(CLUSTER, uid="other"), "Reason", "message")["metadata"]["name"] not in names
    assert len(event(CLUSTER, "R", "x" * 5000)["message"]) == 1000


# ---------------------------------------------------------------- retuning


@given(st.lists(st.tuples(st.none() | st.integers(0, 1000), st.floats(0, 100)), max_size=30))
def test_retunes_are_told_rarely_and_only_when_far(moves):
    before, now, last = None, 0.0, None
    for target, seconds in moves:
        now += seconds
        known = before
        before, news = retuned(CLUSTER, ShareStatus(target=target, reason="R"), before, now)
        if news is not None:
            assert abs(target - known[0]) > RETUNE_STEP_PERMILLE
            assert last is None or now - last >= RETUNE_EVERY_S
            assert news["reason"] == "RetunedPath"
            last = now
        if target is not None and before is not None and now - before[1] >= RETUNE_EVERY_S:
            assert abs(target - before[0]) <= RETUNE_STEP_PERMILLE


def test_a_first_target_is_no_news_and_the_next_is():
    before, news = retuned(CLUSTER, ShareStatus(target=500), None, 1000.0)
    assert news is None
    _, news = retuned(CLUSTER, ShareStatus(target=550, reason="PrefillStorageNicHot"), before, 1001.0)
    assert news["message"] == "target of the decode side: 500 to 550 permille (PrefillStorageNicHot)"
