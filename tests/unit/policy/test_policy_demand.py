"""The pair of replica numbers follows the load, inside every limit, and rests when the load does."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from random import Random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dualpath_policy.bounds import PdBounds
from dualpath_policy.demand import Demand, DemandKnobs, DemandReason, Load, Pair, RoleScale, replicas_for

STEADY = Load(prefill=0.7, decode=0.7, storage=0.7)
ZERO = Pair(prefill=0, decode=0)


def role(wanted: int, ready: int | None = None, **more) -> RoleScale:
    return RoleScale(wanted=wanted, ready=wanted if ready is None else ready, **more)


def asked(answer: Demand) -> tuple[int, int]:
    return answer.wanted.prefill, answer.wanted.decode


@pytest.mark.parametrize(
    ("load", "pair", "reason"),
    [
        (STEADY, (4, 6), DemandReason.STEADY),
        (replace(STEADY, prefill=0.95), (6, 6), DemandReason.PREFILL),
        (replace(STEADY, decode=1.4), (4, 12), DemandReason.DECODE),
        (replace(STEADY, prefill=0.3, decode=0.3, storage=0.2), (2, 3), DemandReason.LOW),
        (replace(STEADY, storage=0.95), (6, 8), DemandReason.STORAGE),
    ],
)
def test_the_stage_that_is_short_grows_and_what_is_idle_shrinks(load, pair, reason):
    answer = replicas_for(load, role(4), role(6))
    assert (asked(answer), answer.reason) == (pair, reason)
    assert answer.now == answer.wanted


def test_storage_keeps_nodes_that_the_engines_would_not_need():
    load = replace(STEADY, prefill=0.1, decode=0.7, storage=0.8)
    assert asked(replicas_for(load, role(4), role(6))) == (4, 6)


def test_replicas_that_still_start_are_not_asked_for_again():
    load = replace(STEADY, prefill=0.95)
    assert asked(replicas_for(load, role(6, ready=4), role(6))) == (6, 6)


@pytest.mark.parametrize(
    "load", [None, replace(STEADY, prefill=2.0, age_s=61), replace(STEADY, storage=float("nan"))]
)
def test_without_fresh_figures_all_stays(load):
    answer = replicas_for(load, role(4), role(6))
    assert (asked(answer), answer.reason) == ((4, 6), DemandReason.STALE)
    asleep = role(0, min_replicas=0)
    assert asked(replicas_for(load, asleep, asleep)) == (0, 0)
    assert asked(replicas_for(load, role(0), role(0))) == (1, 1)


def test_nothing_is_measured_while_a_role_has_no_ready_replica():
    answer = replicas_for(replace(STEADY, decode=0.0), role(4, ready=0), role(6))
    assert (asked(answer), answer.reason) == ((4, 6), DemandReason.STARTING)


def test_nothing_shrinks_soon_after_a_change():
    load = Load(prefill=0.1, decode=0.1, storage=0.1)
    assert asked(replicas_for(load, role(4), role(6), since_change_s=299)) == (4, 6)
    assert asked(replicas_for(load, role(4), role(6), since_change_s=300)) == (1, 1)


def test_only_an_idle_cluster_whose_minimum_is_zero_goes_to_zero():
    idle = Load(prefill=0.0, decode=0.0, storage=0.0, idle_s=600)
    free = {"min_replicas": 0}
    assert asked(replicas_for(idle, role(1, **free), role(1, **free))) == (0, 0)
    assert asked(replicas_for(idle, role(1, **free), role(1))) == (1, 1)
    assert asked(replicas_for(replace(idle, idle_s=599), role(1, **free), role(1, **free))) == (1, 1)
    assert asked(replicas_for(replace(idle, waiting=1), role(1, **free), role(1, **free))) == (1, 1)


def test_a_waiting_request_wakes_a_pair():
    asleep = role(0, min_replicas=0)
    assert asked(replicas_for(Load(prefill=0, decode=0, storage=0), asleep, asleep)) == (0, 0)
    answer = replicas_for(Load(prefill=0, decode=0, storage=0, waiting=1), asleep, asleep)
    assert (asked(answer), answer.reason) == ((1, 1), DemandReason.WOKEN)


def test_where_the_budget_binds_one_role_shrinks_first_and_the_other_grows_after():
    load = Load(prefill=1.2, decode=0.2, storage=0.5)
    prefill, decode = role(4, gpus=8), role(8, gpus=8)
    answer = replicas_for(load, prefill, decode, DemandKnobs(gpu_budget=96))
    assert (answer.now, answer.wanted) == (Pair(prefill=4, decode=3), Pair(prefill=7, decode=3))
    assert "when GPUs have come free" in answer.message
    load = replace(load, decode=1.6 / 3)
    later = replicas_for(load, prefill, role(3, gpus=8), DemandKnobs(gpu_budget=96, gpus_held=88))
    assert later.now == Pair(prefill=5, decode=3)


def test_a_demand_beyond_the_budget_is_shared_by_load():
    load = Load(prefill=3.0, decode=1.5, storage=0.7)
    answer = replicas_for(load, role(4, gpus=8), role(4, gpus=8), DemandKnobs(gpu_budget=96))
    assert (asked(answer), answer.reason) == ((8, 4), DemandReason.BUDGET)


def test_a_budget_below_the_minimum_changes_nothing_and_is_told():
    answer = replicas_for(STEADY, role(1, gpus=8), role(1, gpus=8), DemandKnobs(gpu_budget=15))
    assert (asked(answer), answer.reason) == ((1, 1), DemandReason.NO_BUDGET)


def test_the_scarcer_role_grows_rather_than_leave_the_bottleneck_free_range():
    knobs = DemandKnobs(bounds=PdBounds(lower=Fraction(1, 7), upper=Fraction(7, 2)))
    answer = replicas_for(STEADY, role(1), role(9), knobs)
    assert (asked(answer), answer.reason) == ((2, 9), DemandReason.RATIO)


# ---------------------------------------------------------------- any load, any limits

gpus = st.sampled_from([0, 1, 4, 8])
shares = st.sampled_from([Fraction(1, 8), Fraction(1, 2), 1, 2])


@st.composite
def scales(draw) -> RoleScale:
    least = draw(st.integers(0, 4))
    wanted = draw(st.integers(0, 12))
    return RoleScale(
        wanted=wanted,
        ready=draw(st.integers(0, wanted)),
        min_replicas=least,
        max_replicas=draw(st.integers(max(1, least), 16)),
        gpus=draw(gpus),
        nodes=draw(shares),
    )


loads = st.builds(
    Load,
    prefill=st.floats(0, 3),
    decode=st.floats(0, 3),
    storage=st.floats(0, 2),
    waiting=st.integers(0, 2),
    idle_s=st.sampled_from([0.0, 600.0]),
    age_s=st.sampled_from([0.0, 0.0, 0.0, 61.0]),
)
knobs = st.builds(
    DemandKnobs,
    gpu_budget=st.none() | st.integers(0, 200),
    gpus_held=st.none() | st.integers(0, 250),
    bounds=st.none() | st.just(PdBounds(lower=Fraction(1, 7), upper=Fraction(7, 2))),
)


def cost(pair: Pair, prefill: RoleScale, decode: RoleScale) -> int:
    return pair.prefill * prefill.gpus + pair.decode * decode.gpus


@settings(max_examples=500)
@given(load=st.none() | loads, prefill=scales(), decode=scales(), knobs=knobs)
def test_every_answer_is_inside_all_limits_and_a_pair(load, prefill, decode, knobs):
    answer = replicas_for(load, prefill, decode, knobs)
    assume(answer.reason is not DemandReason.NO_BUDGET)
    roles = ((prefill, answer.wanted.prefill), (decode, answer.wanted.decode))
    if answer.wanted == ZERO:
        assert max(prefill.min_replicas, decode.min_replicas) == 0
    else:
        assert all(max(1, r.min_replicas) <= n <= r.max_replicas for r, n in roles)
    for pair in (answer.now, answer.wanted):
        assert (pair.prefill == 0) == (pair.decode == 0)
        assert knobs.gpu_budget is None or cost(pair, prefill, decode) <= knobs.gpu_budget
    assert answer.now.prefill <= answer.wanted.prefill
    assert answer.now.decode <= answer.wanted.decode


@settings(max_examples=500)
@given(load=loads, prefill=scales(), decode=scales(), knobs=knobs)
def test_what_grows_now_has_its_gpus_already(load, prefill, decode, knobs):
    answer = replicas_for(load, prefill, decode, knobs)
    if answer.reason is DemandReason.NO_BUDGET or knobs.gpu_budget is None:
        return
    current = Pair(prefill=prefill.wanted, decode=decode.wanted)
    held = cost(current, prefill, decode) if knobs.gpus_held is None else knobs.gpus_held
    grown = max(0, answer.now.prefill - prefill.wanted) * prefill.gpus
    grown += max(0, answer.now.decode - decode.wanted) * decode.gpus
    assert grown == 0 or held + grown <= knobs.gpu_budget


def decisions(work, prefill: RoleScale, decode: RoleScale, knobs: DemandKnobs, noise, count: int):
    """Pairs wanted one after the other, each carried out before the next is decided."""
    for _ in range(count):
        prefill, decode = replace(prefill, ready=prefill.wanted), replace(decode, ready=decode.wanted)
        load = Load(
            prefill=noise() * work[0] / prefill.wanted,
            decode=noise() * work[1] / decode.wanted,
            storage=noise() * work[2] / float(prefill.wanted * prefill.nodes + decode.wanted * decode.nodes),
        )
        answer = replicas_for(load, prefill, decode, replace(knobs, gpus_held=0))
        assume(answer.reason is not DemandReason.NO_BUDGET)
        yield answer.wanted
        prefill = replace(prefill, wanted=answer.wanted.prefill)
        decode = replace(decode, wanted=answer.wanted.decode)


works = st.tuples(st.floats(0.01, 12), st.floats(0.01, 12), st.floats(0.01, 20))
running = scales().map(lambda found: replace(found, wanted=max(1, found.wanted)))


@settings(max_examples=500)
@given(work=works, prefill=running, decode=running, knobs=knobs)
def test_under_constant_load_two_decisions_are_enough_and_no_role_turns_back(work, prefill, decode, knobs):
    seen = list(decisions(work, prefill, decode, knobs, lambda: 1.0, 5))
    assert seen[2:] == [seen[1]] * 3
    for path in (
        [prefill.wanted, *(pair.prefill for pair in seen[:2])],
        [decode.wanted, *(pair.decode for pair in seen[:2])],
    ):
        assert path in (sorted(path), sorted(path, reverse=True))


@settings(max_examples=500)
@given(work=works, prefill=running, decode=running, seed=st.integers(0, 1 << 20))
def test_noise_of_a_twentieth_moves_a_pair_a_few_times_in_one_direction_at_most(work, prefill, decode, seed):
    random = Random(seed)
    seen = list(decisions(work, prefill, decode, DemandKnobs(), lambda: random.uniform(0.975, 1.025), 20))
    assert sum(a != b for a, b in pairwise(seen)) <= 3
