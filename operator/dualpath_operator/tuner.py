"""The slow loop of a cluster: a report in, the next tuning and the status of paths and NICs out.

`step` is pure: what it has to know of the past is in the status that it made before.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from dualpath_api.report import ControlReport, NicClasses, SideReport, TuningReport
from dualpath_api.spec.paths import PathMode
from dualpath_api.status import (
    LastScale,
    NicQuantiles,
    NicsStatus,
    Pair,
    PathsStatus,
    ReadRates,
    RoleNics,
    ShareStatus,
)
from dualpath_api.units import format_bytes
from dualpath_operator.findings import Judgement
from dualpath_operator.model import Cluster
from dualpath_policy import Retuned, RetuneKnobs, SideTraffic, Traffic, TuneReason, Tuning, next_tuning

_NEVER = Judgement(status=None, reason="NoTelemetry", message="no report of the gateway yet")
_HELD = {TuneReason.STALE, TuneReason.ONE_SIDED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What the loop says: figures for the status, and what to set."""

    tuned: Judgement = _NEVER
    scaling: Judgement | None = None
    paths: PathsStatus = field(default_factory=PathsStatus)
    nics: NicsStatus = field(default_factory=NicsStatus)
    planned: Pair | None = None
    last_scale: LastScale | None = None
    tuning: TuningReport | None = None
    engines: tuple[str, ...] = ()  # incarnations that were there
    changed_at: float | None = None  # clock at which they came or went

    def differs(self, before: Told) -> bool:
        """Whether a status would say something else."""
        return (self.tuned, self.scaling, self.paths, self.nics, self.planned) != (
            before.tuned,
            before.scaling,
            before.paths,
            before.nics,
            before.planned,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """When a step is made: the age of the report, a clock, and the time of day."""

    age_s: float | None
    clock: float
    iso: str


def step(cluster: Cluster, report: ControlReport | None, before: Told, moment: Moment) -> Told:
    """The next state of the loop."""
    policy = cluster.spec.path_policy
    present = report.engines if report is not None else ()
    engines = tuple(sorted(e.id + e.incarnation for e in present)) if report is not None else before.engines
    changed_at = moment.clock if engines != before.engines else before.changed_at
    share = before.paths.decode_share_permille
    observed = None
    if report is not None and report.read.recent_decode_share is not None:
        observed = round(1000 * report.read.recent_decode_share)
    retuned = None
    if policy.retune.enabled and policy.mode in {PathMode.AUTO, PathMode.SPLIT}:
        retuned = _retune(cluster, report, before, moment, changed_at)
    if retuned is None:
        tuned = Judgement(status=True, reason="Fixed", message=f"mode {policy.mode} is not tuned")
        share = ShareStatus(target=_fixed_target(policy.mode), observed=observed, reason="Fixed")
        tuning = _fixed(cluster)
    else:
        tuned = Judgement(
            status=retuned.reason not in _HELD, reason=str(retuned.reason), message=retuned.message
        )
        moved = retuned.share_permille != share.target
        share = ShareStatus(
            target=retuned.share_permille,
            observed=observed,
            last_tune_time=moment.iso if moved else share.last_tune_time,
            reason=str(retuned.reason),
        )
        tuning = _as_report(retuned.tuning)
    return Told(
        tuned=tuned,
        scaling=before.scaling,
        paths=_paths(share, report, tuning, before),
        nics=before.nics if report is None else _nics(report),
        planned=before.planned,
        last_scale=before.last_scale,
        tuning=tuning,
        engines=engines,
        changed_at=changed_at,
    )


def _retune(
    cluster: Cluster, report: ControlReport | None, before: Told, moment: Moment, changed_at: float | None
) -> Retuned:
    policy = cluster.spec.path_policy
    knobs = RetuneKnobs(
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
    traffic = None
    if report is not None and moment.age_s is not None:
        sides = report.sides
        ages = [a for a in (sides.prefill.sample_age_s, sides.decode.sample_age_s) if a is not None]
        rates = [r for r in (sides.prefill.read_bytes_per_s, sides.decode.read_bytes_per_s) if r is not None]
        traffic = Traffic(
            prefill=_traffic(sides.prefill),
            decode=_traffic(sides.decode),
            read_bytes_per_s=sum(rates),
            age_s=moment.age_s + max(ages, default=0.0),
            since_change_s=float("inf") if changed_at is None else moment.clock - changed_at,
        )
    bias = report.tuning.bias_tokens if report is not None else 0
    target = before.paths.decode_share_permille.target
    return next_tuning(traffic, share_permille=target, bias_tokens=bias, knobs=knobs)


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


def _paths(
    share: ShareStatus, report: ControlReport | None, tuning: TuningReport, before: Told
) -> PathsStatus:
    if report is None:
        return before.paths.model_copy(update={"mode": tuning.path_policy, "decode_share_permille": share})
    sides = report.sides
    return PathsStatus(
        mode=tuning.path_policy,
        decode_share_permille=share,
        read_bytes_per_second=ReadRates(
            prefill_side=_rounded(sides.prefill.read_bytes_per_s),
            decode_side=_rounded(sides.decode.read_bytes_per_s),
        ),
        kv_hit_permille=report.recent_hit_permille,
    )


def _rounded(rate: float | None) -> str:
    """Bytes/s to whole mebibytes: a status is no place for noise."""
    return format_bytes(round((rate or 0.0) / (1 << 20)) << 20)


def _nics(report: ControlReport) -> NicsStatus:
    sides = report.sides
    hottest = max((side.nics.storage.p95_permille or 0 for side in (sides.prefill, sides.decode)), default=0)
    return NicsStatus(
        prefill=_role_nics(sides.prefill.nics),
        decode=_role_nics(sides.decode.nics),
        storage_p95=f"{hottest / 10:.0f}%" if hottest else "",
        reporting_replicas=sides.prefill.reporting_engines + sides.decode.reporting_engines,
    )


def _role_nics(classes: NicClasses) -> RoleNics:
    def quantiles(p50: int | None, p95: int | None) -> NicQuantiles | None:
        return None if p95 is None else NicQuantiles(p50_permille=p50 or 0, p95_permille=p95)

    return RoleNics(
        storage=quantiles(classes.storage.p50_permille, classes.storage.p95_permille),
        compute=quantiles(classes.compute.p50_permille, classes.compute.p95_permille),
    )
