"""Single conditions, from what is observed. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any

from dualpath_api.cluster import ClusterSpec
from dualpath_api.spec.roles import ScalingMode
from dualpath_api.status import BalanceStatus
from dualpath_operator.applier import Applied
from dualpath_operator.findings import Judgement
from dualpath_operator.kinds import POD
from dualpath_operator.model import Cluster, Key
from dualpath_operator.rollout_model import Plan
from dualpath_operator.views import ObjectView
from dualpath_policy.bounds import NodeShape, PdBounds, pd_bounds

REMEDIES = {
    "exceeded quota": "ask for less, or raise the namespace's ResourceQuota",
    "violates PodSecurity": "take that out of the spec, or allow it by the namespace's Pod Security labels",
    "admission webhook": "ask who runs that admission webhook",
    "unknown field": "correct that field of the podTemplate",
}
"""By a sign in what the API server says."""

ANY_REMEDY = "change the spec, or what refuses it"


def gateway_ready(cluster: Cluster, live: Mapping[Key, ObjectView]) -> bool:
    """Whether the gateway's Deployment has what it wants."""
    gateway = live.get(Key(kind="Deployment", name=f"{cluster.name}-gateway"))
    return gateway is not None and gateway.ready and bool(gateway.replicas)


def judge_storage(cluster: Cluster, live: Mapping[Key, ObjectView]) -> Judgement:
    """Whether the store can be used, as far as Kubernetes tells."""
    storage = cluster.spec.storage
    if storage.external is not None:
        return Judgement(status=True, reason="External", message="somebody else runs the store")
    if storage.files is not None:
        return _judge_claim(cluster, storage.files.claim_name, live)
    sets = [view for view in live.values() if view.key.kind == "StatefulSet"]
    waiting = [view.key.name for view in sets if not view.ready]
    if not sets or waiting:
        return Judgement(
            status=False,
            reason="StoreNotReady",
            message=f"waiting for {', '.join(sorted(waiting)) or 'the store'}",
        )
    return Judgement(status=True, reason="StoreReady")


def _judge_claim(cluster: Cluster, given: str | None, live: Mapping[Key, ObjectView]) -> Judgement:
    """A claim of ours is watched; one that is given is somebody else's."""
    if given is not None:
        return Judgement(status=True, reason="GivenClaim", message=f"claim {given}")
    claim = live.get(Key(kind="PersistentVolumeClaim", name=f"{cluster.name}-store"))
    if claim is not None and claim.ready:
        return Judgement(status=True, reason="ClaimBound", message=f"claim {claim.key.name}")
    told = f"claim {cluster.name}-store is not bound; does its storage class offer ReadWriteMany volumes?"
    return Judgement(status=False, reason="ClaimNotBound", message=told)


def judge_scaling(cluster: Cluster, planner: Judgement | None) -> Judgement:
    """Who decides the number of groups, and whether that works. `planner` is what mode Planner says."""
    modes = {cluster.spec.prefill.scaling.mode, cluster.spec.decode.scaling.mode}
    if cluster.spec.suspend:
        return Judgement(status=False, reason="Suspended")
    if ScalingMode.PLANNER in modes:
        return planner or Judgement(status=None, reason="NoTelemetry", message="no report of the gateway yet")
    if ScalingMode.EXTERNAL in modes:
        return Judgement(status=True, reason="External", message="/scale of the engine groups decides")
    return Judgement(status=False, reason="Static", message="the spec's replicas decide")


def balance_of(spec: ClusterSpec, wanted: Mapping[str, int]) -> tuple[BalanceStatus, Judgement]:
    """P/D against the bottleneck-free range of the spec's hardware (arXiv 2602.21548, section 4)."""
    ratio = Fraction(wanted["prefill"], wanted["decode"]) if wanted.get("decode") else None
    now = None if ratio is None else _permille(ratio)
    if spec.hardware is None:
        return BalanceStatus(pd_permille=now), Judgement(
            status=None, reason="HardwareUnknown", message="spec.hardware is not given"
        )
    bounds = free_range(spec)
    if bounds is None:
        return BalanceStatus(pd_permille=now), Judgement(
            status=False,
            reason="NoBottleneckFreeRange",
            message="with spec.hardware another link than the storage NICs is always the bottleneck",
        )
    low, high = bounds.lower, bounds.upper
    status = BalanceStatus(pd_permille=now, lower_permille=_permille(low), upper_permille=_permille(high))
    if ratio is None:
        return status, Judgement(status=None, reason="Idle")
    if low <= ratio <= high:
        return status, Judgement(status=True, reason="WithinBottleneckFreeRange")
    return status, Judgement(
        status=False,
        reason="OutsideBottleneckFreeRange",
        message=f"P/D is {float(ratio):.2f}, outside {float(low):.2f} to {float(high):.2f}: another link than"
        " the storage NICs saturates first; change the replicas of prefill or decode",
    )


def free_range(spec: ClusterSpec) -> PdBounds | None:
    """The bottleneck-free range of P/D; None where the hardware is not told, or has none."""
    hardware = spec.hardware
    if hardware is None:
        return None
    return pd_bounds(
        NodeShape(
            compute_nics=hardware.compute_nics,
            compute_nic_bytes_per_s=hardware.compute_nic_bytes,
            storage_bytes_per_s=hardware.storage_bytes,
            dram_bytes_per_s=hardware.dram_bytes,
        )
    )


def _permille(ratio: Fraction) -> int:
    return max(0, round(ratio * 1000))


def problems_of(
    applied: Applied,
    cluster: Cluster,
    plan: Plan,
    status: Mapping[str, Any],
    now: datetime,
) -> tuple[Judgement, ...]:
    """What only a person can put right, worst first."""
    problems = []
    for key in applied.clashes:
        problems.append(
            Judgement(
                status=True,
                reason="NameClash",
                message=f"{key.kind} {key.name} belongs to somebody else; remove it, or rename the cluster",
            )
        )
    for key, said in sorted(applied.refused, key=lambda one: one[0].kind == POD.name):
        reason = "PodRefused" if key.kind == POD.name else "ApplyRefused"
        problems.append(Judgement(status=True, reason=reason, message=refusal(key, said)))
    if progress_overdue(cluster, plan, status, now):
        problems.append(Judgement(status=True, reason="ProgressDeadlineExceeded", message=plan.message))
    return tuple(problems)


def refusal(key: Key, said: str) -> str:
    """What was refused, why in the API server's words, and what can be done."""
    why = said.partition(" is forbidden: ")[2] or said
    remedy = next((remedy for sign, remedy in REMEDIES.items() if sign in why), ANY_REMEDY)
    return f"{key.kind} {key.name} is refused: {why}; {remedy}"


def progress_overdue(cluster: Cluster, plan: Plan, status: Mapping[str, Any], now: datetime) -> bool:
    """Whether a rollout has made no progress for longer than the spec allows."""
    since = status.get("progressTime")
    if plan.complete or not since or cluster.spec.paused or cluster.spec.suspend:
        return False
    deadline = timedelta(seconds=cluster.spec.rollout.progress_deadline)
    return datetime.fromisoformat(str(since)) + deadline < now
