"""One step of a cluster's slow loop: what is held, when a step is made, what odd reports can do."""

from __future__ import annotations

import msgspec
import pytest
from desired_world import LOCAL, changed, cluster_of
from hypothesis import given
from hypothesis import strategies as st

from dualpath_api.report import (
    ControlReport,
    EngineReport,
    NicClasses,
    Quantiles,
    QueueReport,
    ReadReport,
    SideReport,
    SidesReport,
    TuningReport,
)
from dualpath_api.status import LastScale, Pair
from dualpath_operator.sizing import Fleet, Signs, Sized, size
from dualpath_operator.tuner import RETURN_S, Moment, Told, step

ISO = "2026-01-01T00:00:00Z"
CLUSTER = cluster_of(LOCAL)
PLANNER = {"mode": "Planner", "minReplicas": 1, "maxReplicas": 4}
PLANNED = cluster_of(changed(changed(LOCAL, "spec.prefill.scaling", PLANNER), "spec.decode.scaling", PLANNER))


def side(busy: float = 0.5, **more) -> SideReport:
    parts = {"read_bytes_per_s": 20e9, "sample_age_s": 0.0, "engines": 1, **more}
    return SideReport(storage_link_bytes_per_s=50e9, storage_busy_bytes_per_s=busy * 50e9, **parts)


def report(prefill: float = 0.5, decode: float = 0.5, engines: tuple[str, ...] = ("p", "d"), **more):
    return ControlReport(
        sides=SidesReport(prefill=side(prefill), decode=side(decode)),
        engines=tuple(EngineReport(id=name, incarnation="1") for name in engines),
        **more,
    )


def at(clock: float, age_s: float = 0.0, *, fresh: bool = True) -> Moment:
    return Moment(
        age_s=age_s, clock=clock, iso=ISO, fresh=fresh, fleet=Fleet(ready={"prefill": 1, "decode": 1})
    )


def target(told: Told) -> int | None:
    return told.paths.decode_share_permille.target


def started() -> Told:
    return step(CLUSTER, report(), Told(), at(0))


def test_the_first_report_starts_the_target_and_the_second_moves_it():
    told = started()
    assert (target(told), told.tuned.reason) == (500, "Started")
    told = step(CLUSTER, report(0.9, 0.3), told, at(10))
    assert (target(told), told.tuned.reason) == (550, "PrefillStorageNicHot")
    assert told.tuning.decode_min_permille <= 550 <= told.tuning.decode_max_permille


def test_an_interval_has_one_step():
    told = step(CLUSTER, report(0.9, 0.3), started(), at(9.9))
    assert target(told) == 500
    assert target(step(CLUSTER, report(0.9, 0.3), told, at(10))) == 550


def test_an_old_report_is_acted_on_once():
    told = step(CLUSTER, report(0.9, 0.3), started(), at(10))
    held = step(CLUSTER, report(0.9, 0.3), told, at(30, 20, fresh=False))
    assert target(held) == target(told)
    assert held.tuned == told.tuned
    stale = step(CLUSTER, report(0.9, 0.3), held, at(80, 70, fresh=False))
    assert target(stale) == target(told)
    assert (stale.tuned.status, stale.tuned.reason) == (False, "StaleTelemetry")


def test_engines_that_reconnect_are_waited_for_and_those_that_stay_away_are_a_change():
    told = started()
    some = step(CLUSTER, report(0.9, 0.3, engines=("p",)), told, at(10))
    assert target(some) == 500
    assert step(CLUSTER, report(engines=("p", "d")), some, at(12)).changed_at is None
    gone = step(CLUSTER, report(engines=("p",)), some, at(RETURN_S))
    assert gone.changed_at == RETURN_S
    assert gone.tuned.reason == "TopologyChanged"
    new = step(CLUSTER, report(engines=("p", "d", "e")), told, at(10))
    assert new.changed_at == 10


def test_a_restarted_operator_takes_the_engines_it_finds_for_known():
    remembered = Told(paths=started().paths, tuned=started().tuned)
    told = step(CLUSTER, report(0.9, 0.3, tuning=TuningReport(bias_tokens=7)), remembered, at(5000))
    assert told.changed_at is None
    assert target(told) == 550


SHARES = st.none() | st.floats(-10, 10)
PERMILLES = st.none() | st.integers(-5000, 5000)
SIDES = st.builds(
    SideReport,
    engines=st.integers(-1, 5),
    reporting_engines=st.integers(-5, 5),
    sample_age_s=st.none() | st.floats(-10, 1e6),
    read_bytes_per_s=st.none() | st.floats(-1e12, 1e12),
    storage_link_bytes_per_s=st.floats(-1e12, 1e12),
    storage_busy_bytes_per_s=st.floats(-1e12, 1e12),
    busy_permille=PERMILLES,
    kv_cache_permille=PERMILLES,
    nics=st.builds(NicClasses, storage=st.builds(Quantiles, p50_permille=PERMILLES, p95_permille=PERMILLES)),
)
REPORTS = st.builds(
    ControlReport,
    sides=st.builds(SidesReport, prefill=SIDES, decode=SIDES),
    engines=st.lists(st.sampled_from("abc").map(lambda n: EngineReport(id=n)), max_size=3).map(tuple),
    queue=st.builds(
        QueueReport, waiting=st.integers(-1, 9), running=st.integers(-1, 9), turned_away=st.integers(0, 9)
    ),
    recent_hit_permille=PERMILLES,
    read=st.builds(ReadReport, recent_decode_share=SHARES),
    tuning=st.builds(TuningReport, bias_tokens=st.integers(-(10**6), 10**6)),
)


@given(st.lists(st.tuples(st.none() | REPORTS, st.floats(0, 100), st.floats(0, 100)), min_size=1, max_size=6))
def test_whatever_gateways_report_the_status_stays_one(visits):
    told, clock = Told(), 0.0
    for found, seconds, age in visits:
        clock += seconds
        told = step(PLANNED, found, told, at(clock, age, fresh=found is not None))
        share = target(told)
        assert share is None or 0 <= share <= 1000
        if told.tuning is not None:
            assert 0 <= told.tuning.decode_min_permille <= told.tuning.decode_max_permille <= 1000
        pair = told.sized.planned
        assert pair is None or (1 <= pair.prefill <= 4 and 1 <= pair.decode <= 4)


@pytest.mark.parametrize(
    ("mode", "told"),
    [("Auto", "between two nodes reads stay on the prefill side"), ("Split", "by their queues alone")],
)
def test_without_rules_for_nics_the_status_says_what_becomes_of_reads(mode, told):
    cluster = cluster_of(changed({**LOCAL, "nics": []}, "spec.pathPolicy.mode", mode))
    judged = step(cluster, ControlReport(), Told(), at(0)).tuned
    assert judged.reason == "NicsNotNamed"
    assert told in judged.message


def test_noise_is_no_news():
    told = started()
    later = msgspec.structs.replace(report(), queue=QueueReport(running=3))
    assert not step(CLUSTER, later, told, at(1)).differs(told)
    assert step(CLUSTER, report(0.9, 0.3), told, at(10)).differs(told)


# ---------------------------------------------------------------- mode Planner


def signs(age_s: float = 0.0, settled_s: float = 1e9, **more) -> Signs:
    return Signs(age_s=age_s, idle_s=0.0, settled_s=settled_s, iso=ISO, **more)


FLEET = Fleet(ready={"prefill": 1, "decode": 1})
FULL = ControlReport(sides=SidesReport(prefill=side(busy=0.1), decode=side(busy=0.1, kv_cache_permille=950)))


def test_other_modes_plan_nothing_but_remember_the_last_decision():
    pair = Pair(prefill=1, decode=1)
    before = Sized(planned=pair, last_scale=LastScale(time=ISO, before=pair, after=pair, reason="R"))
    assert size(CLUSTER, FULL, FLEET, before, signs()) == Sized(last_scale=before.last_scale)


def test_without_knowledge_the_decision_before_stands():
    before = Sized(planned=Pair(prefill=2, decode=2))
    assert size(PLANNED, None, FLEET, before, signs()) == before
    assert size(PLANNED, FULL, None, before, signs()) == before


def test_figures_of_a_changed_fleet_are_waited_for_unless_there_is_none():
    before = Sized(planned=Pair(prefill=1, decode=1))
    held = size(PLANNED, FULL, FLEET, before, signs(settled_s=5))
    assert held.planned == before.planned
    assert size(PLANNED, FULL, FLEET, before, signs(settled_s=31)).planned == Pair(prefill=1, decode=2)


def test_a_decision_and_its_reason_are_remembered_until_the_next():
    first = size(PLANNED, FULL, FLEET, Sized(planned=Pair(prefill=1, decode=1)), signs())
    assert first.last_scale.after == Pair(prefill=1, decode=2)
    second = size(PLANNED, FULL, FLEET, first, signs())
    assert (second.planned, second.last_scale) == (first.planned, first.last_scale)


def test_groups_that_were_asked_for_hold_their_gpus_already():
    resources = {"dramBuffer": "1Gi", "kvCache": "1Gi", "gpus": 8}
    spec = changed(changed(LOCAL, "spec.prefill.scaling", PLANNER), "spec.decode.scaling", PLANNER)
    for role in ("prefill", "decode"):
        spec = changed(spec, f"spec.{role}.resources", resources)
    cluster = cluster_of({**spec, "gpuBudget": 16})
    told = size(cluster, FULL, Fleet(ready=FLEET.ready, gpus_held=0), Sized(), signs())
    assert told.planned == Pair(prefill=1, decode=1)
    assert told.scaling.reason == "GpuBudgetBinds"
