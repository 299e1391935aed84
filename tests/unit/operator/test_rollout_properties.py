"""Rollouts in which everything happens late, in any order, in part, or not at all."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random

from hypothesis import event, given, settings
from hypothesis import strategies as st
from unit.operator.rollout_world import D, P, World, fleet, run_until_settled, wish

from dualpath_api.wire import Role
from dualpath_operator.rollout import plan
from dualpath_operator.rollout_model import Create, Drain, Replica, State, Strategy, Wish

CASES = settings(max_examples=2000)

SMALL = st.integers(0, 2)
SEEDS = st.integers(0, 1 << 20)


@st.composite
def wishes(draw, least: int = 0, surge=SMALL, unavailable=SMALL, budgets=True) -> Wish:
    """A rollout to revision b whose budget, if any, has room for one step beside all replicas."""
    p, d = draw(st.integers(least, 4)), draw(st.integers(least, 6))
    gpus = draw(st.sampled_from([(1, 1), (8, 4), (2, 8)]))
    found = wish(
        "b",
        p,
        d,
        surge=(draw(surge), draw(surge)),
        unavailable=(draw(unavailable), draw(unavailable)),
        gpus=gpus,
    )
    if budgets and draw(st.booleans()):
        found = replace(found, gpu_budget=(p + 1) * gpus[0] + (d + 1) * gpus[1])
    return found


def started(wanted: Wish, seed: int) -> World:
    """A complete old revision a."""
    old = fleet("a", wanted.prefill.wanted, wanted.decode.wanted)
    return World({r.id: r for r in old}, Random(seed))


@CASES
@given(wanted=wishes(), seed=SEEDS)
def test_a_rollout_ends_and_on_its_way_keeps_availability_skew_and_budget(wanted: Wish, seed: int):
    run_until_settled(started(wanted, seed), wanted)


@CASES
@given(wanted=wishes(least=1, surge=st.integers(1, 2)), seed=SEEDS)
def test_with_surge_what_is_available_is_available_in_pairs(wanted: Wish, seed: int):
    world, done = started(wanted, seed), False
    smaller = min(wanted.of(role).wanted for role in Role)
    least = min(1 - wanted.of(role).unavailable / wanted.of(role).wanted for role in Role) - 1 / smaller
    while not done:
        done = world.step(wanted).complete
        assert all(
            world.paired(role) >= wanted.of(role).wanted - wanted.of(role).unavailable for role in Role
        )
        assert _pair_capacity(world, wanted) > least - 1e-9
        world.let_time_pass(0.6)


def _pair_capacity(world: World, wanted: Wish) -> float:
    """What all revisions can serve, each as much as its scarcer role allows; 1 is what is wanted."""
    ready = Counter((r.revision, r.role) for r in world.replicas.values() if r.state is State.READY)
    return sum(min(ready[v, role] / wanted.of(role).wanted for role in Role) for v in "ab")


@CASES
@given(
    wanted=wishes(surge=st.just(0), unavailable=st.integers(0, 3), budgets=False),
    seed=SEEDS,
)
def test_without_surge_a_rollout_needs_no_gpu_more_and_ends(wanted: Wish, seed: int):
    gpus = sum(wanted.of(role).wanted * wanted.of(role).gpus for role in Role)
    run_until_settled(started(wanted, seed), replace(wanted, gpu_budget=gpus))


@CASES
@given(wanted=wishes(), seed=SEEDS, passes=st.integers(1, 15))
def test_going_back_keeps_what_serves_and_only_finishes_what_had_left(wanted: Wish, seed: int, passes: int):
    world = started(wanted, seed)
    for _ in range(passes):
        world.step(wanted)
        world.let_time_pass()
    back = replace(wanted, target="a")
    world.log.clear()
    alive = {r.id for r in world.replicas.values() if r.revision == "a" and r.state is State.READY}
    run_until_settled(world, back)
    assert alive <= set(world.replicas)
    assert not any(f"Drain(id='{name}'" in line for name in alive for line in world.log)


@CASES
@given(
    first=wishes(),
    then=st.tuples(st.integers(0, 5), st.integers(0, 7)),
    seed=SEEDS,
    passes=st.integers(1, 12),
)
def test_a_scale_in_the_middle_of_a_rollout_goes_on_from_there(first: Wish, then, seed: int, passes: int):
    world = started(first, seed)
    for _ in range(passes):
        world.step(first)
        world.let_time_pass()
    roles = (replace(first.of(role), wanted=n) for role, n in zip((P, D), then, strict=True))
    prefill, decode = roles
    second = replace(first, prefill=prefill, decode=decode, gpu_budget=None)
    event(f"starts with at most a step between the roles: {world.skew_at_most_one(second)}")
    run_until_settled(world, second)


@CASES
@given(
    seed=SEEDS,
    changes=st.lists(
        st.tuples(wishes(), st.sampled_from("abc"), st.sampled_from(Strategy), st.integers(1, 6)),
        min_size=1,
        max_size=2,
    ),
    last=wishes(budgets=False),
)
def test_failures_and_changes_of_mind_never_wedge_a_rollout(seed: int, changes, last: Wish):
    world = started(last, seed)
    for wanted, target, strategy, passes in changes:
        for _ in range(passes):
            paused = world.random.random() < 0.2
            world.step(replace(wanted, target=target, strategy=strategy, paused=paused))
            world.let_time_pass()
            if world.random.random() < 0.3:
                world.trouble()
    run_until_settled(world, last)


replicas = st.lists(
    st.tuples(st.sampled_from(Role), st.sampled_from("abc"), st.integers(0, 4), st.sampled_from(State)),
    max_size=16,
    unique_by=lambda r: r[:3],
).map(
    lambda rows: [
        Replica(id=f"{role}-{v}-{i}", role=role, revision=v, index=i, state=state)
        for role, v, i, state in rows
    ]
)


@CASES
@given(found=replicas, wanted=wishes(), seed=SEEDS, paused=st.booleans())
def test_one_pass_over_any_replicas_is_safe_and_knows_no_order(found, wanted: Wish, seed: int, paused: bool):
    wanted = replace(wanted, paused=paused)
    shuffled = list(found)
    Random(seed).shuffle(shuffled)
    assert plan(found, wanted) == plan(shuffled, wanted)
    World({r.id: r for r in found}, Random(seed)).step(wanted)


@CASES
@given(found=replicas, wanted=wishes())
def test_no_replica_gets_two_steps_and_a_paused_rollout_begins_nothing(found, wanted: Wish):
    steps = plan(found, wanted).steps
    touched = [step.id for step in steps if not isinstance(step, Create)]
    assert len(touched) == len(set(touched))
    waits = plan(found, replace(wanted, paused=True)).steps
    held = Counter(r.role for r in found if r.state is not State.LOST)
    made = Counter(step.role for step in waits if isinstance(step, Create))
    assert all(not made[role] or held[role] + made[role] <= wanted.of(role).wanted for role in Role)
    goes = {step.id for step in waits if isinstance(step, Drain)}
    stays = Counter(r.role for r in found if r.state in (State.READY, State.UNREADY) and r.id not in goes)
    had = Counter(r.role for r in found if r.state in (State.READY, State.UNREADY))
    assert all(stays[role] >= min(had[role], wanted.of(role).wanted) for role in Role)
