"""Mode Planner: what a report says about the load becomes the number of groups of both roles. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from dualpath_api.report import ControlReport
from dualpath_api.spec.roles import ScalingMode
from dualpath_api.status import LastScale, Pair
from dualpath_operator.findings import Judgement
from dualpath_operator.judgements import free_range
from dualpath_operator.model import Cluster, role_spec
from dualpath_operator.wanted import wanted_replicas
from dualpath_policy.demand import Demand, DemandKnobs, DemandReason, Load, RoleScale, replicas_for

WINDOW_S = 30.0
"""Rates in a report are over this time: so long after a change of engines they still speak of before."""

_HELPLESS = {DemandReason.STALE, DemandReason.STARTING, DemandReason.NO_BUDGET}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """What lives: ready groups of each role, and the GPUs that all Pods hold."""

    ready: Mapping[str, int]
    gpus_held: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sized:
    """The newest decision. `scaling` is None where mode Planner has said nothing yet, or is off."""

    planned: Pair | None = None
    scaling: Judgement | None = None
    last_scale: LastScale | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Signs:
    """What a decision looks at beside the report: ages in seconds, and the time of day."""

    age_s: float  # of the report
    idle_s: float  # since a request was last seen
    settled_s: float  # since engines came or went
    wanting: int = 0  # requests that were turned away since the report before
    iso: str


def size(
    cluster: Cluster, report: ControlReport | None, fleet: Fleet | None, before: Sized, signs: Signs
) -> Sized:
    """The next decision; without any report, or without knowledge of the Pods, the one before."""
    spec = cluster.spec
    if {spec.prefill.scaling.mode, spec.decode.scaling.mode} != {ScalingMode.PLANNER}:
        return Sized(last_scale=before.last_scale)
    if report is None or fleet is None or spec.suspend:
        return before
    current = wanted_replicas(cluster, {}, before.planned)
    awake = min(current.values()) > 0
    if awake and signs.settled_s < WINDOW_S and signs.age_s <= spec.path_policy.retune.stale_after:
        message = "engines came or went; their load is being measured"
        return Sized(
            planned=_pair(current),
            scaling=before.scaling or Judgement(status=True, reason="Measuring", message=message),
            last_scale=before.last_scale,
        )
    found = _demand(cluster, report, fleet, current, before, signs)
    return _told(found, current, before, signs.iso)


def _demand(
    cluster: Cluster,
    report: ControlReport,
    fleet: Fleet,
    current: Mapping[str, int],
    before: Sized,
    signs: Signs,
) -> Demand:
    spec = cluster.spec
    prefill, decode = (_scale(cluster, role, current[role], fleet) for role in ("prefill", "decode"))
    asked = prefill.wanted * prefill.gpus + decode.wanted * decode.gpus
    knobs = DemandKnobs(
        gpu_budget=spec.gpu_budget,
        gpus_held=max(fleet.gpus_held, asked),  # groups that were asked for will hold theirs
        bounds=free_range(spec),
        stale_after_s=spec.path_policy.retune.stale_after,
    )
    since = _seconds_since(before.last_scale, signs.iso)
    return replicas_for(load_of(report, signs), prefill, decode, knobs, since_change_s=since)


def load_of(report: ControlReport, signs: Signs) -> Load:
    """The load of the stages.

    A prefill engine is used as much as it computes. A decode engine computes all the time, for one sequence
    as for many: what runs out there is room for KV pages.
    """
    prefill, decode = report.sides.prefill, report.sides.decode
    link = prefill.storage_link_bytes_per_s + decode.storage_link_bytes_per_s
    busy = prefill.storage_busy_bytes_per_s + decode.storage_busy_bytes_per_s
    ages = [side.sample_age_s or 0.0 for side in (prefill, decode)]
    return Load(
        prefill=(prefill.busy_permille or 0) / 1000,
        decode=(decode.kv_cache_permille or 0) / 1000,
        storage=busy / link if link > 0 else 0.0,
        waiting=report.queue.waiting + signs.wanting,
        idle_s=signs.idle_s,
        age_s=signs.age_s + max(ages),
    )


def _scale(cluster: Cluster, role: str, wanted: int, fleet: Fleet) -> RoleScale:
    spec = role_spec(cluster, role)
    low = 1 if spec.scaling.min_replicas is None else spec.scaling.min_replicas
    return RoleScale(
        wanted=wanted,
        ready=min(wanted, fleet.ready.get(role, 0)),
        min_replicas=low,
        max_replicas=spec.scaling.max_replicas or max(low, 1),
        gpus=spec.resources.gpus * spec.parallelism.nodes,
        nodes=spec.parallelism.nodes,
    )


def _told(found: Demand, current: Mapping[str, int], before: Sized, iso: str) -> Sized:
    after, reason = Pair(prefill=found.now.prefill, decode=found.now.decode), str(found.reason)
    last = before.last_scale
    if after != _pair(current):
        last = LastScale(time=iso, before=_pair(current), after=after, reason=reason)
    judged = Judgement(status=found.reason not in _HELPLESS, reason=reason, message=found.message)
    return Sized(planned=after, scaling=judged, last_scale=last)


def _pair(counts: Mapping[str, int]) -> Pair:
    return Pair(prefill=counts["prefill"], decode=counts["decode"])


def _seconds_since(last: LastScale | None, iso: str) -> float:
    if last is None:
        return float("inf")
    try:
        return (datetime.fromisoformat(iso) - datetime.fromisoformat(last.time)).total_seconds()
    except (ValueError, TypeError):  # a time that somebody else wrote
        return float("inf")
