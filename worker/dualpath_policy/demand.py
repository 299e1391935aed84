"""How many prefill and decode replicas the load needs: one decision for the pair.

A turn passes three stages: prefill, decode, and the storage NICs of both roles' nodes. The load of a stage in
replicas is its utilisation times the replicas that were ready, so replicas that still start count as capacity
on its way, and nothing is asked for twice.

The target is the smallest pair that brings every stage to the middle of the hysteresis, inside limits, GPU
budget and the bottleneck-free range of P/D. It depends on load and limits alone, not on what there is. A role
moves towards it when its own stage is outside the hysteresis, or when the pair is not enough for the storage
NICs, and stays where it is otherwise. So a steady load settles: what it is short of comes at once, what that
makes superfluous goes with the next decision, and neither turns back.
Stateless: what was decided before is the number of replicas wanted now.
Units:  utilisation is demand over capacity and may exceed 1; replicas, GPUs, seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from dualpath_policy.demand_case import (
    Case,
    DemandKnobs,
    Load,
    Pair,
    RoleScale,
    into_range,
    larger_of,
    one_more,
    shared,
    stages_of,
    target_of,
)

__all__ = ["Demand", "DemandKnobs", "DemandReason", "Load", "Pair", "RoleScale", "replicas_for"]


class DemandReason(StrEnum):
    """Why the pair is what it is; reason of the condition ScalingActive and of lastScale."""

    PREFILL = "PrefillDemand"
    DECODE = "DecodeDemand"
    STORAGE = "StorageNicDemand"
    LOW = "LowDemand"
    STEADY = "WithinHysteresis"
    RATIO = "OutsideBottleneckFreeRange"
    LIMITS = "ReplicaLimits"
    STALE = "StaleTelemetry"
    STARTING = "NothingReady"
    IDLE = "ScaledToZero"
    WOKEN = "RequestsWaiting"
    BUDGET = "GpuBudgetBinds"
    NO_BUDGET = "GpuBudgetBelowMinimum"


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What to ask for. `now` differs from `wanted` while GPUs have to come free first: scale in, then out."""

    now: Pair
    wanted: Pair
    reason: DemandReason
    message: str


def replicas_for(
    load: Load | None,
    prefill: RoleScale,
    decode: RoleScale,
    knobs: DemandKnobs | None = None,
    *,
    since_change_s: float = float("inf"),
) -> Demand:
    """The pair for this load (None: nothing is known)."""
    case = Case(load=load, prefill=prefill, decode=decode, knobs=knobs or DemandKnobs())
    least = case.least
    if not case.fits(least):
        why = f"the smallest pair needs {case.cost(least)} GPUs, the budget is {case.knobs.gpu_budget}"
        return Demand(now=case.current, wanted=case.current, reason=DemandReason.NO_BUDGET, message=why)
    wanted, reason, why = _decide(case, since_change_s)
    now = _affordable_now(case, wanted)
    why += f": {wanted.prefill} prefill and {wanted.decode} decode replicas are wanted"
    if now != wanted:
        why += ", some of them when GPUs have come free"
    return Demand(now=now, wanted=wanted, reason=reason, message=why)


# ---------------------------------------------------------------- the decision


def _decide(case: Case, since_change_s: float) -> tuple[Pair, DemandReason, str]:
    load, knobs, off = case.load, case.knobs, Pair(prefill=0, decode=0)
    if load is None or not load.known or load.age_s > knobs.stale_after_s:
        known = load is not None and load.known
        why = f"the report is {load.age_s:.0f} s old" if load and known else "there is no usable report"
        stays_off = case.current == off and case.may_be_off
        return (off, DemandReason.STALE, why) if stays_off else _stay(case, DemandReason.STALE, why)
    if min(case.prefill.wanted, case.decode.wanted) == 0:
        if load.waiting == 0 and case.may_be_off:
            return off, DemandReason.IDLE, "nothing waits"
        if load.waiting == 0:
            return _stay(case, DemandReason.LIMITS, "a role has no replicas")
        return _stay(case, DemandReason.WOKEN, f"{load.waiting} requests wait for a first pair")
    if case.may_be_off and load.waiting == 0 and load.idle_s >= knobs.idle_after_s:
        return off, DemandReason.IDLE, f"no request for {load.idle_s:.0f} s"
    if min(case.prefill.ready, case.decode.ready) == 0:
        return _stay(case, DemandReason.STARTING, "a role has no ready replica to measure")
    why = (
        f"utilisation is {load.prefill:.0%} at prefill, {load.decode:.0%} at decode and "
        f"{load.storage:.0%} at storage NICs"
    )
    pair, reason = _by_stage(case, may_shrink=since_change_s >= knobs.down_after_s)
    return pair, reason, why


def _stay(case: Case, reason: DemandReason, why: str) -> tuple[Pair, DemandReason, str]:
    """What there is, as far as limits and budget allow it."""
    inside = case.clamped(case.current)
    fitting = inside if case.fits(inside) else shared(case, inside)
    if fitting != inside:
        return fitting, DemandReason.BUDGET, why
    changed = inside != case.current and reason is not DemandReason.WOKEN
    return inside, DemandReason.LIMITS if changed else reason, why


def _by_stage(case: Case, *, may_shrink: bool) -> tuple[Pair, DemandReason]:
    """Each role where its stage, or the storage NICs, want it."""
    current, target = case.clamped(case.current), target_of(case)
    pair = _choice(case, current, target)
    if pair == target and _as_good(case, current, target):
        pair = current
    if not may_shrink and case.fits(larger_of(pair, current)):
        pair = larger_of(pair, current)
    return pair, _reason(case, pair)


def _choice(case: Case, current: Pair, target: Pair) -> Pair:
    """The smallest change with which all is well; where none is, the range of P/D gives in first."""
    stages = _where_needed(case, current, target)
    choices = [stages, larger_of(stages, current), larger_of(stages, target)]
    choices += [into_range(case, choice) for choice in choices]
    fitting = [choice for choice in choices if case.fits(choice)]
    serving = [c for c in fitting if case.storage_load <= case.knobs.up * case.nodes(c)]
    return next((c for c in serving if case.in_range(c)), serving[0] if serving else target)


def _as_good(case: Case, current: Pair, target: Pair) -> bool:
    """True when limits bind and `current` uses them about as well: noise must swap no replicas."""
    most = Pair(prefill=case.prefill.max_replicas, decode=case.decode.max_replicas)
    full = case.fits(current) and one_more(case, current, most) is None
    return full and _busiest(case, current) <= 1.15 * _busiest(case, target)


def _busiest(case: Case, pair: Pair) -> float:
    load_p, load_d = case.loads
    return max(load_p / pair.prefill, load_d / pair.decode)


def _reason(case: Case, pair: Pair) -> DemandReason:
    """The word for a change to the pair."""
    current, (load_p, load_d), knobs = case.current, case.loads, case.knobs
    if not case.fits(stages_of(case)) and _busiest(case, pair) > knobs.up:
        return DemandReason.BUDGET
    if pair == current:
        return DemandReason.STEADY
    if pair.prefill <= current.prefill and pair.decode <= current.decode:
        return DemandReason.LOW
    short = {DemandReason.PREFILL: load_p / current.prefill, DemandReason.DECODE: load_d / current.decode}
    hottest = max(short, key=lambda reason: short[reason])
    if short[hottest] > knobs.up:
        return hottest
    storage = case.storage_load > knobs.up * case.nodes(current)
    return DemandReason.STORAGE if storage else DemandReason.RATIO


def _where_needed(case: Case, current: Pair, target: Pair) -> Pair:
    """Roles that are short grow to the target; idle ones shrink to what a somewhat higher load would need.

    The two differ, so that the noise of a steady load never moves a role up and down again.
    """
    (load_p, load_d), knobs = case.loads, case.knobs
    roof = larger_of(target, target_of(case.inflated(knobs.up / knobs.middle)))

    def moved(load: float, replicas: int, low: int, high: int) -> int:
        if load > knobs.up * replicas:
            return max(replicas, low)
        return min(replicas, high) if load < knobs.down * replicas else replicas

    return Pair(
        prefill=moved(load_p, current.prefill, target.prefill, roof.prefill),
        decode=moved(load_d, current.decode, target.decode, roof.decode),
    )


# ---------------------------------------------------------------- GPUs that are free now


def _affordable_now(case: Case, wanted: Pair) -> Pair:
    """What shrinks, shrinks at once; what grows, grows in turn as far as GPUs are free."""
    budget, current = case.knobs.gpu_budget, case.current
    if budget is None:
        return wanted
    held = case.cost(current) if case.knobs.gpus_held is None else case.knobs.gpus_held
    left = budget - held
    growth = case.cost(larger_of(wanted, current)) - case.cost(current)
    if growth <= left:
        return wanted
    p, d = min(current.prefill, wanted.prefill), min(current.decode, wanted.decode)
    grown = True
    while grown:
        grown = False
        if p < wanted.prefill and case.prefill.gpus <= left:
            p, left, grown = p + 1, left - case.prefill.gpus, True
        if d < wanted.decode and case.decode.gpus <= left:
            d, left, grown = d + 1, left - case.decode.gpus, True
    return Pair(prefill=p, decode=d) if min(p, d) > 0 else Pair(prefill=0, decode=0)
