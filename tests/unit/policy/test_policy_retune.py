"""The slow loop finds the share at which both sides' storage NICs are equally busy, and then leaves it alone."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from itertools import pairwise
from random import Random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dualpath_api.cluster import PathMode
from dualpath_api.wire import ReadMode, Role
from dualpath_policy.model import EngineLoad, Tuning
from dualpath_policy.paths import choose_mode, shorter_queue
from dualpath_policy.reads import ReadList, first_grant
from dualpath_policy.retune import (
    Retuned,
    RetuneKnobs,
    SideTraffic,
    Traffic,
    TuneReason,
    capacity_share,
    next_tuning,
    tuning_for,
)

GB = 1e9


def traffic(prefill: float, decode: float, *, capacity=(100 * GB, 100 * GB), reads=None, **more) -> Traffic:
    """Utilisations of both sides; all of it reads of this cluster unless said otherwise."""
    sides = [
        SideTraffic(bytes_per_s=u * c, capacity_bytes_per_s=c)
        for u, c in zip((prefill, decode), capacity, strict=True)
    ]
    reads = sum(side.bytes_per_s for side in sides) if reads is None else reads
    return Traffic(prefill=sides[0], decode=sides[1], read_bytes_per_s=reads, **more)


def test_a_hot_prefill_side_moves_reads_to_decode_and_the_other_way_round():
    up = next_tuning(traffic(0.8, 0.5), share_permille=400)
    assert (up.reason, up.share_permille > 400, up.bias_tokens > 0) == (TuneReason.PREFILL_HOT, True, True)
    down = next_tuning(traffic(0.5, 0.8), share_permille=400)
    assert (down.reason, down.share_permille < 400) == (TuneReason.DECODE_HOT, True)
    assert down.bias_tokens == -up.bias_tokens


@pytest.mark.parametrize(
    ("measured", "reason"),
    [
        (None, TuneReason.STALE),
        (traffic(0.9, 0.1, age_s=61), TuneReason.STALE),
        (traffic(float("nan"), 0.1), TuneReason.STALE),
        (traffic(0.9, 0.1, capacity=(100 * GB, 0)), TuneReason.ONE_SIDED),
        (traffic(0.9, 0.1, reads=19 * GB), TuneReason.LOW_TRAFFIC),
        (traffic(0.62, 0.60), TuneReason.WITHIN_DEADBAND),
    ],
)
def test_where_nothing_can_be_learnt_the_last_target_stays(measured: Traffic | None, reason: TuneReason):
    answer = next_tuning(measured, share_permille=430, bias_tokens=77)
    assert (answer.share_permille, answer.bias_tokens, answer.reason) == (430, 77, reason)
    assert str(430) in answer.message


def test_after_a_change_of_engines_the_target_dwells_at_the_share_of_the_capacity():
    measured = traffic(0.9, 0.1, capacity=(100 * GB, 300 * GB), since_change_s=29)
    answer = next_tuning(measured, share_permille=200, bias_tokens=5)
    assert (answer.share_permille, answer.bias_tokens) == (750, 0)
    assert answer.reason is TuneReason.TOPOLOGY_CHANGED
    later = next_tuning(replace(measured, since_change_s=30), share_permille=750)
    assert later.reason is TuneReason.PREFILL_HOT


def test_the_first_target_is_that_of_the_spec_else_of_the_capacity_else_the_middle():
    measured = traffic(0.5, 0.5, capacity=(100 * GB, 300 * GB))
    assert next_tuning(measured, share_permille=None).reason is TuneReason.STARTED
    assert next_tuning(measured, share_permille=None).share_permille == 750
    assert (
        next_tuning(measured, share_permille=None, knobs=RetuneKnobs(initial_permille=600)).share_permille
        == 600
    )
    assert next_tuning(None, share_permille=None).share_permille == 500


def test_bounds_hold_whatever_is_measured():
    knobs = RetuneKnobs(min_permille=300, max_permille=420)
    answer = next_tuning(traffic(0.9, 0.2), share_permille=410, knobs=knobs)
    assert (answer.share_permille, answer.reason) == (420, TuneReason.CLAMPED)
    assert next_tuning(None, share_permille=900, knobs=knobs).share_permille == 420
    assert (answer.tuning.decode_min_permille, answer.tuning.decode_max_permille) == (320, 420)


@given(
    u=st.tuples(st.floats(0, 2), st.floats(0, 2)),
    capacity=st.tuples(st.floats(0, 1e12), st.floats(0, 1e12)),
    share=st.none() | st.integers(0, 1000),
    bias=st.integers(-(10**9), 10**9),
    bounds=st.tuples(st.integers(0, 1000), st.integers(0, 1000)),
)
def test_any_figures_give_a_legal_tuning_and_a_small_step(u, capacity, share, bias, bounds):
    knobs = RetuneKnobs(min_permille=min(bounds), max_permille=max(bounds))
    answer = next_tuning(
        traffic(*u, capacity=capacity),
        share_permille=share,
        bias_tokens=bias,
        knobs=knobs,
    )
    assert min(bounds) <= answer.share_permille <= max(bounds)
    assert abs(answer.bias_tokens) <= max(512, abs(bias))
    tuning = answer.tuning
    assert tuning.decode_min_permille <= answer.share_permille <= tuning.decode_max_permille
    if share is not None and max(20, min(bounds)) <= share <= min(980, max(bounds)):
        assert abs(answer.share_permille - share) <= knobs.max_step_permille
    assert answer == next_tuning(
        traffic(*u, capacity=capacity),
        share_permille=share,
        bias_tokens=bias,
        knobs=knobs,
    )


# ---------------------------------------------------------------- closed loop


@dataclass
class Plant:
    """Two sides whose NICs carry reads and traffic of others; `natural` is where late binding would settle."""

    capacity: tuple[float, float]
    others: tuple[float, float]
    reads: float
    delay: int
    noise: float
    random: Random
    natural: float | None = None

    def best(self) -> float:
        """The decode share at which both sides are equally busy."""
        (p, d), (fp, fd) = self.capacity, self.others
        return ((self.reads + fp) / p - fd / d) / (self.reads * (1 / p + 1 / d))

    def share(self, answer: Retuned) -> float:
        if self.natural is None:
            return answer.share_permille / 1000
        low, high = answer.tuning.decode_min_permille, answer.tuning.decode_max_permille
        return max(low / 1000, min(high / 1000, self.natural))

    def measure(self, share: float) -> Traffic:
        (p, d), (fp, fd) = self.capacity, self.others
        u = ((self.reads * (1 - share) + fp) / p, (self.reads * share + fd) / d)
        wobble = [self.random.uniform(-self.noise, self.noise) for _ in u]
        return traffic(
            *(a + b for a, b in zip(u, wobble, strict=True)), capacity=self.capacity, reads=self.reads
        )

    def run(self, start: int, intervals: int = 150) -> list[tuple[float, int]]:
        """(real share, target) after each interval."""
        answer = next_tuning(self.measure(start / 1000), share_permille=start)
        acting = deque([answer] * (self.delay + 1), maxlen=self.delay + 1)
        seen = []
        for _ in range(intervals):
            real = self.share(acting[0])
            answer = next_tuning(self.measure(real), share_permille=acting[-1].share_permille)
            acting.append(answer)
            seen.append((real, answer.share_permille))
        return seen


@settings(max_examples=500)
@given(
    capacity=st.tuples(st.floats(0.2, 5), st.floats(0.2, 5)),
    others=st.tuples(st.floats(0, 0.3), st.floats(0, 0.3)),
    load=st.floats(0.55, 1.0),
    delay=st.integers(0, 2),
    natural=st.none() | st.floats(0, 1),
    start=st.integers(0, 1000),
    seed=st.integers(0, 1 << 20),
)
def test_the_loop_settles_within_a_twentieth_of_the_best_share(
    capacity, others, load, delay, natural, start, seed
):
    p, d = capacity
    plant = Plant(
        capacity=(p * 100 * GB, d * 100 * GB),
        others=(others[0] * p * 100 * GB, others[1] * d * 100 * GB),
        reads=load * (p + d) * 100 * GB,
        delay=delay,
        noise=0.01,
        random=Random(seed),
        natural=natural,
    )
    assume(0.02 <= plant.best() <= 0.98)
    seen = plant.run(start)
    assert all(abs(share - plant.best()) <= 0.05 for share, _ in seen[-50:])
    targets = [target for _, target in seen[-50:]]
    steps = [b - a for a, b in pairwise(targets) if abs(b - a) > 1]  # with a side 20 times faster, 1 is much
    assert sum(a * b < 0 for a, b in pairwise(steps)) <= 1


# ---------------------------------------------------------------- the real read path follows


def split_share(tuning: Tuning, blocks: int, speed: tuple[float, float], batch: int = 8) -> float:
    """The decode side's share when both sides pull from the list as fast as their speed lets them."""
    loads = [EngineLoad(engine=role.value, group=role.value, role=role) for role in Role]
    mode = choose_mode(tuning, loads[0], loads[1], blocks)
    reads = ReadList(blocks, mode.mode, mode.decode_min, mode.decode_max)
    granted = len(
        reads.take(Role.DECODE, first_grant(blocks, mode.mode, mode.decode_min, mode.decode_max, batch))
    )
    busy_until = {Role.PREFILL: 0.0, Role.DECODE: granted / speed[1]}
    while any(reads.offers(role) for role in Role):
        side = min((role for role in Role if reads.offers(role)), key=lambda role: busy_until[role])
        taken = len(reads.take(side, batch if side is Role.DECODE else 1))
        busy_until[side] += taken / speed[side is Role.DECODE]
        granted += taken if side is Role.DECODE else 0
    return granted / blocks


@given(
    share=st.integers(0, 1000),
    blocks=st.integers(8, 2000),
    speed=st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)),
    slack=st.integers(0, 200),
)
def test_a_split_read_stays_within_the_slack_of_the_target(share, blocks, speed, slack):
    tuning = tuning_for(share, 0, RetuneKnobs(slack_permille=slack))
    assert abs(split_share(tuning, blocks, speed) - share / 1000) <= slack / 1000 + 1 / blocks + 1e-9


@settings(max_examples=60)
@given(
    capacity=st.tuples(st.floats(0.5, 4), st.floats(0.5, 4)),
    speed=st.floats(0.2, 5),
    blocks=st.integers(100, 500),
    seed=st.integers(0, 1 << 20),
)
def test_with_the_gateways_own_rules_the_loop_finds_the_best_share(capacity, speed, blocks, seed):
    p, d = capacity
    reads = 0.8 * (p + d) * 100 * GB
    plant = Plant((p * 100 * GB, d * 100 * GB), (0.0, 0.0), reads, 1, 0.005, Random(seed))
    start = next_tuning(plant.measure(0.5), share_permille=None, knobs=RetuneKnobs(initial_permille=500))
    answers = [start, start]
    for _ in range(80):
        real = split_share(answers[-2].tuning, blocks, (1.0, speed))
        answers.append(next_tuning(plant.measure(real), share_permille=answers[-1].share_permille))
    assert abs(split_share(answers[-1].tuning, blocks, (1.0, speed)) - plant.best()) <= 0.05


def test_the_bias_decides_between_equal_queues_of_small_reads_and_stays_small():
    loads = [EngineLoad(engine=role.value, group=role.value, role=role, read_q=500) for role in Role]
    answer = next_tuning(traffic(0.8, 0.2), share_permille=500)
    assert shorter_queue(answer.tuning, *loads).side is Role.DECODE
    for _ in range(50):
        answer = next_tuning(
            traffic(0.9, 0.1),
            share_permille=answer.share_permille,
            bias_tokens=answer.bias_tokens,
        )
    assert answer.bias_tokens == 8 * 64  # the largest read that is not split


def test_the_path_policy_travels_along():
    knobs = RetuneKnobs(path_policy=PathMode.SPLIT)
    assert next_tuning(None, share_permille=500, knobs=knobs).tuning.path_policy is PathMode.SPLIT


def test_the_share_of_the_capacity_needs_both_sides():
    assert capacity_share(traffic(0, 0, capacity=(0, 1))) is None
    assert capacity_share(traffic(0, 0, capacity=(2 * GB, 6 * GB))) == 0.75


def small_reads(load: float, tuned: bool, seconds: int = 500) -> list[float]:
    """The difference of utilisation in each interval: reads of 5 to 7 blocks, a decode side three times as fast."""
    random, speed = Random(3), (20_000.0, 60_000.0)  # tokens/s
    now, free, errors = 0.0, [0.0, 0.0], []
    answer = next_tuning(None, share_permille=750)
    while len(errors) < seconds // 10:
        done, end = [0.0, 0.0], now + 10
        while now < end:
            now += random.expovariate(load * sum(speed) / 384)
            queues = [int(max(0.0, f - now) * s) for f, s in zip(free, speed, strict=True)]
            loads = [
                EngineLoad(engine=role.value, group=role.value, role=role, read_q=q)
                for role, q in zip(Role, queues, strict=True)
            ]
            blocks = random.choice((5, 6, 7))
            mode = choose_mode(answer.tuning if tuned else Tuning(), *loads, blocks).mode
            side = 1 if mode is ReadMode.DECODE else 0
            free[side] = max(free[side], now) + blocks * 64 / speed[side]
            done[side] += blocks * 64 / 10
        used = traffic(*(d / s for d, s in zip(done, speed, strict=True)), capacity=speed)
        answer = next_tuning(used, share_permille=answer.share_permille, bias_tokens=answer.bias_tokens)
        errors.append(abs(used.decode.utilisation - used.prefill.utilisation))
    return errors[-20:]


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_small_reads_are_balanced_by_the_bias(load: float):
    assert min(small_reads(load, tuned=False)) > 0.1
    assert sum(small_reads(load, tuned=True)) / 20 < 0.05
