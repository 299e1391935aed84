"""One step of the slow loop: how much of what is read from storage the decode side should read.

The fast rules (late binding, shorter queue) balance each request. What they cannot see, such as traffic of
others on the storage NICs or unequal paths to storage, shows as a lasting difference of both utilisations.
This loop moves the target share until the difference is gone: an integrator, one step an interval.

Plant:  e = u_decode - u_prefill = g * share + rest,  g = read rate * (1 / C_prefill + 1 / C_decode).
Law:    share -= 0.25 * e / g, with a dead band on e and a limit on the step. The loop gain of 0.25 leaves a
        margin of 2 and more where measuring and acting together are at most two intervals late.
Stateless: the last target and bias are arguments; they live in the status of the cluster.
Units:  bytes/s, seconds, tokens; shares in permille of the bytes read.
docs/decisions/0009-retune-actuation.md says why target and bias act on the read path as they do.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import isfinite

from dualpath_api.cluster import PathMode
from dualpath_policy.model import Tuning
from dualpath_policy.paths import SPLIT_FROM_BLOCKS

LOOP_GAIN = 0.25
DWELL_INTERVALS = 3
"""Intervals at the computed share after engines came or went: until then the figures are of before."""
LOW_TRAFFIC = 0.1
"""Below this part of the capacity the difference of utilisation says nothing about the share."""

OUTERMOST = 20
"""Permille that the loop leaves to either side: from a path that is off it could learn nothing more."""


class TuneReason(StrEnum):
    """Why the target is what it is; reason of the condition PathTuned."""

    PREFILL_HOT = "PrefillStorageNicHot"
    DECODE_HOT = "DecodeStorageNicHot"
    WITHIN_DEADBAND = "WithinDeadband"
    STALE = "StaleTelemetry"
    LOW_TRAFFIC = "LowTraffic"
    TOPOLOGY_CHANGED = "TopologyChanged"
    STARTED = "Started"
    CLAMPED = "ClampedByBounds"
    ONE_SIDED = "OneSideWithoutCapacity"


@dataclass(frozen=True, slots=True, kw_only=True)
class SideTraffic:
    """The storage NICs of one side's nodes, together."""

    bytes_per_s: float  # all that they carry in the read direction, also what others cause
    capacity_bytes_per_s: float  # what they were seen to carry while reads waited; else the link rate

    @property
    def utilisation(self) -> float:
        """0 to 1; 0 without capacity."""
        return self.bytes_per_s / self.capacity_bytes_per_s if self.capacity_bytes_per_s > 0 else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What was measured since the last step."""

    prefill: SideTraffic
    decode: SideTraffic
    read_bytes_per_s: float  # KV reads of this cluster, over both sides
    age_s: float = 0.0  # of the figures
    since_change_s: float = float("inf")  # since engines came or went

    @property
    def known(self) -> bool:
        """False when a figure is no number: a division by nothing somewhere before."""
        sides = (self.prefill, self.decode)
        figures = [x for side in sides for x in (side.bytes_per_s, side.capacity_bytes_per_s)]
        return all(map(isfinite, (*figures, self.read_bytes_per_s)))


@dataclass(frozen=True, slots=True, kw_only=True)
class RetuneKnobs:
    """spec.pathPolicy."""

    path_policy: PathMode = PathMode.AUTO
    interval_s: float = 10.0
    max_step_permille: int = 50
    deadband_permille: int = 40
    stale_after_s: float = 60.0
    min_permille: int = 0
    max_permille: int = 1000
    initial_permille: int | None = (
        None  # where tuning starts; None: at the decode side's share of the capacity
    )
    block_tokens: int = 64
    slack_permille: int = 100  # by so much one read's share may differ from the target


@dataclass(frozen=True, slots=True, kw_only=True)
class Retuned:
    """The new target, and the tuning that brings the read path there."""

    share_permille: int  # of the decode side
    bias_tokens: int
    tuning: Tuning
    reason: TuneReason
    message: str


def capacity_share(traffic: Traffic) -> float | None:
    """The decode side's share at which both sides' storage NICs are equally busy; None: one has no capacity.

    Traffic of others is not in it: the loop finds that. Equal nodes: D / (P + D).
    """
    prefill, decode = traffic.prefill.capacity_bytes_per_s, traffic.decode.capacity_bytes_per_s
    return decode / (prefill + decode) if min(prefill, decode) > 0 else None


def next_tuning(
    traffic: Traffic | None,
    *,
    share_permille: int | None,
    bias_tokens: int = 0,
    knobs: RetuneKnobs | None = None,
) -> Retuned:
    """The next target from the last one (None: there is none yet) and what was measured (None: nothing)."""
    knobs = knobs or RetuneKnobs()
    start = _start(traffic, knobs)
    last = start if share_permille is None else share_permille
    if traffic is None or not traffic.known or traffic.age_s > knobs.stale_after_s:
        known = traffic is not None and traffic.known
        why = f"the report is {traffic.age_s:.0f} s old" if traffic and known else "there is no usable report"
        return _answer(last, bias_tokens, knobs, TuneReason.STALE, why)
    if capacity_share(traffic) is None:
        why = "the storage NICs of one side have no known capacity"
        return _answer(last, bias_tokens, knobs, TuneReason.ONE_SIDED, why)
    if traffic.since_change_s < DWELL_INTERVALS * knobs.interval_s:
        why = f"engines came or went {traffic.since_change_s:.0f} s ago"
        return _answer(start, 0, knobs, TuneReason.TOPOLOGY_CHANGED, why)
    if share_permille is None:
        return _answer(start, 0, knobs, TuneReason.STARTED, "there was no target before")
    return _step(traffic, share_permille, bias_tokens, knobs)


def _start(traffic: Traffic | None, knobs: RetuneKnobs) -> int:
    """Where tuning starts: as the spec says, else by the capacities, else in the middle."""
    if knobs.initial_permille is not None:
        return knobs.initial_permille
    share = capacity_share(traffic) if traffic and traffic.known else None
    return 500 if share is None else round(1000 * share)


def _step(traffic: Traffic, share: int, bias: int, knobs: RetuneKnobs) -> Retuned:
    prefill, decode = traffic.prefill, traffic.decode
    load = traffic.read_bytes_per_s / (prefill.capacity_bytes_per_s + decode.capacity_bytes_per_s)
    if load < LOW_TRAFFIC:
        why = f"reads take {load:.0%} of what the storage NICs carry, too little to learn from"
        return _answer(share, bias, knobs, TuneReason.LOW_TRAFFIC, why)
    error = decode.utilisation - prefill.utilisation
    why = f"storage NICs are {prefill.utilisation:.0%} busy at prefill, {decode.utilisation:.0%} at decode"
    if abs(error) * 1000 <= knobs.deadband_permille:
        return _answer(share, bias, knobs, TuneReason.WITHIN_DEADBAND, why)
    gain = traffic.read_bytes_per_s * (1 / prefill.capacity_bytes_per_s + 1 / decode.capacity_bytes_per_s)
    size = min(knobs.max_step_permille, max(1, round(1000 * LOOP_GAIN * abs(error) / gain)))
    bias = _next_bias(bias, error, knobs)
    if error > 0:
        return _answer(share - size, bias, knobs, TuneReason.DECODE_HOT, why)
    return _answer(share + size, bias, knobs, TuneReason.PREFILL_HOT, why)


def _next_bias(bias: int, error: float, knobs: RetuneKnobs) -> int:
    """The bias of small reads, which are not split; as large as the largest of them at most.

    A bias that large decides between idle sides; a larger one would have to be unlearnt again.
    """
    most = SPLIT_FROM_BLOCKS * knobs.block_tokens
    return max(-most, min(most, bias - round(LOOP_GAIN * error * most)))


def _answer(wanted: int, bias: int, knobs: RetuneKnobs, reason: TuneReason, why: str) -> Retuned:
    low = min(knobs.max_permille, max(knobs.min_permille, OUTERMOST))
    high = max(knobs.min_permille, min(knobs.max_permille, 1000 - OUTERMOST))
    share = max(low, min(high, wanted))
    if share != wanted:
        reason, why = TuneReason.CLAMPED, f"{why}; the bounds are {low} to {high} permille"
    return Retuned(
        share_permille=share,
        bias_tokens=bias,
        tuning=tuning_for(share, bias, knobs),
        reason=reason,
        message=f"{why}; target of the decode side: {share} permille",
    )


def tuning_for(share_permille: int, bias_tokens: int, knobs: RetuneKnobs) -> Tuning:
    """The tuning that keeps each split read within the slack of the target, and small reads by the bias.

    The slack narrows towards 0 and 1000, so that the target stays its middle and can be reached everywhere.
    """
    slack = min(knobs.slack_permille, share_permille, 1000 - share_permille)
    return Tuning(
        path_policy=knobs.path_policy,
        bias_tokens=bias_tokens,
        decode_min_permille=max(knobs.min_permille, share_permille - slack),
        decode_max_permille=min(knobs.max_permille, share_permille + slack),
    )
