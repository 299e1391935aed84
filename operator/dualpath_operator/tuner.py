"""The slow loop of a cluster: a report in, the next tuning and the status of paths and NICs out.

`step` is pure: what it has to know of the past is in the status that it made before.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from dualpath_api.report import ControlReport, NicClasses, SideReport, TuningReport
from dualpath_api.spec.paths import PathMode
from dualpath_api.status import (
    NicQuantiles,
    NicsStatus,
    PathsStatus,
    ReadRates,
    RoleNics,
    ShareStatus,
)
from dualpath_api.units import format_bytes
from dualpath_operator.findings import Judgement
from dualpath_operator.model import Cluster
from dualpath_operator.sizing import Fleet, Signs, Sized, size
from dualpath_policy import RetuneKnobs, SideTraffic, Traffic, TuneReason, Tuning, next_tuning

_NEVER = Judgement(status=None, reason="NoTelemetry", message="no report of the gateway yet")
_UNNAMED = {
    PathMode.AUTO: "between two nodes reads stay on the prefill side, else queues alone balance them",
    PathMode.SPLIT: "reads are balanced by their queues alone",
}
"""What becomes of reads where spec.nics names no storage NICs."""

_HELD = {TuneReason.STALE, TuneReason.ONE_SIDED}
_FIXED = "Fixed"

RETURN_S = 15.0
"""Engines that are gone for less are taken for reconnecting: a gateway that was restarted is joined anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What the loop says: figures for the status, and what to set. Times are of the caller's clock."""

    tuned: Judgement = _NEVER
    sized: Sized = field(default_factory=Sized)
    paths: PathsStatus = field(default_factory=PathsStatus)
    nics: NicsStatus = field(default_factory=NicsStatus)
    tuning: TuningReport | None = None
    stepped_at: float | None = None  # of the newest step; None: none yet in this mode
    engines: tuple[str, ...] | None = None  # incarnations that were there; None: never heard of any
    whole_at: float = 0.0  # all of them were there
    changed_at: float | None = None  # they came or went
    active_at: float | None = None  # a request was seen
    prompt_tokens: int = -1  # then
    turned_away: int | None = None  # requests, since the gateway started; None: never heard of
    wanting: int = 0  # of them, since the report before

    def differs(self, before: Told) -> bool:
        """Whether a status would say something else; messages are told along with something else."""
        return _news(self) != _news(before)


def _news(told: Told) -> tuple[object, ...]:
    scaling = told.sized.scaling
    judged = [(one.status, one.reason) for one in (told.tuned, scaling) if one is not None]
    return (judged, told.paths, told.nics, told.sized.planned)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """When a step is made. `age_s` is of the report, or how long one has been asked for in vain."""

    age_s: float
    clock: float
    iso: str
    fresh: bool = True  # the report has come just now
    fleet: Fleet | None = None
    problem: str = ""  # why there is no newer report


def step(cluster: Cluster, report: ControlReport | None, before: Told, moment: Moment) -> Told:
    """The next state of the loop."""
    policy = cluster.spec.path_policy
    whole, told = _seen(report, before, moment)
    tuned_mode = policy.retune.enabled and policy.mode in {PathMode.AUTO, PathMode.SPLIT}
    told = _tune(cluster, report, told, moment, whole) if tuned_mode else _fix(cluster, told)
    share = told.paths.decode_share_permille
    if report is not None and report.read.recent_decode_share is not None:
        share = share.model_copy(update={"observed": _within(1000 * report.read.recent_decode_share)})
    return replace(
        told,
        paths=_paths(share, report, policy.mode, before),
        nics=before.nics if report is None else _nics(report),
        sized=size(cluster, report, moment.fleet, before.sized, _signs(told, moment)),
    )


def _seen(report: ControlReport | None, before: Told, moment: Moment) -> tuple[bool, Told]:
    """Who is there and whether requests are; False while engines that were there may still come back."""
    if report is None or not moment.fresh:
        return False, before
    clock, told = moment.clock, before
    queue, known = report.queue, before.turned_away
    wanting = 0 if known is None else queue.turned_away - (known if known <= queue.turned_away else 0)
    told = replace(told, turned_away=queue.turned_away, wanting=wanting)
    busy = queue.waiting + queue.running + wanting > 0 or report.prompt_tokens != before.prompt_tokens
    if busy or before.active_at is None:
        told = replace(told, active_at=clock, prompt_tokens=report.prompt_tokens)
    now = tuple(sorted(f"{engine.id} {engine.incarnation}" for engine in report.engines))
    if before.engines is None or now == before.engines:
        return True, replace(told, engines=now, whole_at=clock)
    if set(now) < set(before.engines) and clock - before.whole_at < RETURN_S:
        return False, told
    return True, replace(told, engines=now, whole_at=clock, changed_at=clock)


def _signs(told: Told, moment: Moment) -> Signs:
    return Signs(
        age_s=moment.age_s,
        idle_s=0.0 if told.active_at is None else moment.clock - told.active_at,
        settled_s=float("inf") if told.changed_at is None else moment.clock - told.changed_at,
        wanting=told.wanting,
        iso=moment.iso,
    )


def _fix(cluster: Cluster, told: Told) -> Told:
    """A mode that is not tuned."""
    mode = cluster.spec.path_policy.mode
    share = ShareStatus(
        target=_fixed_target(mode), observed=told.paths.decode_share_permille.observed, reason=_FIXED
    )
    return replace(
        told,
        tuned=Judgement(status=True, reason=_FIXED, message=f"mode {mode} is not tuned"),
        tuning=_fixed(cluster),
        stepped_at=None,
        paths=told.paths.model_copy(update={"decode_share_permille": share}),
    )


def _tune(cluster: Cluster, report: ControlReport | None, told: Told, moment: Moment, whole: bool) -> Told:
    """One step an interval, and only by what is new; what is set follows the spec's bounds at once."""
    retune, share = cluster.spec.path_policy.retune, told.paths.decode_share_permille
    if share.reason == _FIXED:  # another mode until now: its share says nothing
        share, told = ShareStatus(observed=share.observed), replace(told, tuned=_NEVER)
    stale = moment.age_s > retune.stale_after
    due = told.stepped_at is None or moment.clock - told.stepped_at >= retune.interval
    if report is None and (told.tuned.status is None or not stale):
        return told
    stepping = stale or (moment.fresh and whole and due)
    target = share.target
    if not stepping and target is None:
        return told
    traffic = _traffic_of(report, told, moment) if stepping and report is not None else None
    bias = report.tuning.bias_tokens if report is not None else 0
    bias = bias if told.tuning is None else told.tuning.bias_tokens
    found = next_tuning(traffic, share_permille=target, bias_tokens=bias, knobs=_knobs(cluster))
    if stepping:
        message = f"{found.message} ({moment.problem})" if moment.problem else found.message
        judged = Judgement(status=found.reason not in _HELD, reason=str(found.reason), message=message)
        if found.reason is TuneReason.ONE_SIDED and not cluster.spec.nics:
            judged = _no_nics(cluster.spec.path_policy.mode)
        told = replace(told, tuned=judged, stepped_at=None if stale else moment.clock)
    share = ShareStatus(
        target=found.share_permille,
        observed=share.observed,
        last_tune_time=moment.iso if found.share_permille != target else share.last_tune_time,
        reason=told.tuned.reason,
    )
    paths = told.paths.model_copy(update={"decode_share_permille": share})
    return replace(told, tuning=_as_report(found.tuning), paths=paths)


def _no_nics(mode: PathMode) -> Judgement:
    message = f"spec.nics names no storage NICs: {_UNNAMED[mode]}"
    return Judgement(status=None, reason="NicsNotNamed", message=message)


def _knobs(cluster: Cluster) -> RetuneKnobs:
    policy = cluster.spec.path_policy
    return RetuneKnobs(
        path_policy=policy.mode,
        interval_s=policy.retune.interval,
        max_step_permille=policy.retune.max_step_permille,
        deadband_permille=policy.retune.deadband_permille,
        stale_after_s=policy.retune.stale_after,
        min_permille=policy.decode_share.min_permille,
        max_permille=policy.decode_share.max_permille,
        initial_permille=policy.decode_share.initial_permille,
        block_tokens=cluster.spec.kv.block_tokens,
    )


def _traffic_of(report: ControlReport, told: Told, moment: Moment) -> Traffic:
    sides = report.sides
    ages = [a for a in (sides.prefill.sample_age_s, sides.decode.sample_age_s) if a is not None]
    rates = [r for r in (sides.prefill.read_bytes_per_s, sides.decode.read_bytes_per_s) if r is not None]
    return Traffic(
        prefill=_traffic(sides.prefill),
        decode=_traffic(sides.decode),
        read_bytes_per_s=sum(rates),
        age_s=moment.age_s + max(ages, default=0.0),
        since_change_s=float("inf") if told.changed_at is None else moment.clock - told.changed_at,
    )


def _traffic(side: SideReport) -> SideTraffic:
    return SideTraffic(
        bytes_per_s=side.storage_busy_bytes_per_s, capacity_bytes_per_s=side.storage_link_bytes_per_s
    )


def _fixed(cluster: Cluster) -> TuningReport:
    """The tuning of a mode that is not tuned: its bounds alone."""
    share = cluster.spec.path_policy.decode_share
    return TuningReport(
        path_policy=cluster.spec.path_policy.mode.value,
        decode_min_permille=share.min_permille,
        decode_max_permille=share.max_permille,
    )


def _fixed_target(mode: PathMode) -> int | None:
    return {PathMode.PREFILL_ONLY: 0, PathMode.DECODE_ONLY: 1000}.get(mode)


def _as_report(tuning: Tuning) -> TuningReport:
    return TuningReport(
        path_policy=tuning.path_policy.value,
        bias_tokens=tuning.bias_tokens,
        decode_min_permille=tuning.decode_min_permille,
        decode_max_permille=tuning.decode_max_permille,
    )


def _paths(share: ShareStatus, report: ControlReport | None, mode: PathMode, before: Told) -> PathsStatus:
    if report is None:
        return before.paths.model_copy(update={"mode": mode.value, "decode_share_permille": share})
    sides = report.sides
    hit = report.recent_hit_permille
    return PathsStatus(
        mode=mode.value,
        decode_share_permille=share,
        read_bytes_per_second=ReadRates(
            prefill_side=_rounded(sides.prefill.read_bytes_per_s),
            decode_side=_rounded(sides.decode.read_bytes_per_s),
        ),
        kv_hit_permille=None if hit is None else _within(hit),
    )


def _within(permille: float) -> int:
    """A share from elsewhere: one that cannot be must not break a status."""
    return min(1000, max(0, round(permille)))


def _rounded(rate: float | None) -> str:
    """Bytes/s to whole mebibytes: a status is no place for noise."""
    return format_bytes(max(0, round((rate or 0.0) / (1 << 20)) << 20))


def _nics(report: ControlReport) -> NicsStatus:
    sides = report.sides
    hottest = max((side.nics.storage.p95_permille or 0 for side in (sides.prefill, sides.decode)), default=0)
    return NicsStatus(
        prefill=_role_nics(sides.prefill.nics),
        decode=_role_nics(sides.decode.nics),
        storage_p95=f"{hottest / 10:.0f}%" if hottest else "",
        reporting_replicas=max(0, sides.prefill.reporting_engines + sides.decode.reporting_engines),
    )


def _role_nics(classes: NicClasses) -> RoleNics:
    def quantiles(p50: int | None, p95: int | None) -> NicQuantiles | None:
        return None if p95 is None else NicQuantiles(p50_permille=max(0, p50 or 0), p95_permille=max(0, p95))

    return RoleNics(
        storage=quantiles(classes.storage.p50_permille, classes.storage.p95_permille),
        compute=quantiles(classes.compute.p50_permille, classes.compute.p95_permille),
    )
