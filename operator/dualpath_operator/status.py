"""From findings to the status of a cluster, and when it is worth a write. Pure; the caller gives the time.

Ready, Reconciling and Stalled follow kstatus: a tool that knows nothing of DualPath can wait for Ready=True;
Stalled=True means that nothing goes on without a person.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dualpath_api.spec.fabric import FabricMode
from dualpath_api.status import (
    ClusterStatus,
    Condition,
    EndpointStatus,
    RevisionStatus,
    RolesStatus,
    RoleStatus,
)
from dualpath_api.status import ConditionType as Type
from dualpath_operator.findings import Findings, Judgement
from dualpath_operator.model import Cluster
from dualpath_operator.names import ROLES
from dualpath_operator.observe import ReplicaView
from dualpath_operator.rollout_model import Outcome, State

GAUGE_STEP_PERMILLE = 20
"""A gauge that moved less is not worth a write."""

EDGES = (Type.READY, Type.RECONCILING, Type.STALLED, Type.PATH_TUNED, Type.FABRIC_READY)
"""Conditions whose change is written at once; others wait until gauges are written."""

NO_TELEMETRY = "NoTelemetry"
"""Reason of conditions about which no gateway has told anything yet."""

_UNKNOWN = Judgement(status=None, reason="Unknown")


def build_status(findings: Findings, previous: Mapping[str, Any], now: str) -> ClusterStatus:
    """The status; `previous` is the live one, so that transitions keep their times. `now` is ISO time."""
    roles = {role: role_status(role, findings) for role in ROLES}
    judged = _judge(findings, roles)
    complete = judged[Type.ROLLOUT_COMPLETE].status is True
    updated = findings.revision
    current = updated if complete else previous.get("revision", {}).get("current", "")
    endpoints = (EndpointStatus(name="openai", url=findings.endpoint),) if findings.endpoint else ()
    return ClusterStatus(
        observed_generation=findings.cluster.generation,
        conditions=tuple(_conditions(judged, findings.cluster.generation, previous, now)),
        revision=RevisionStatus(current=current, updated=updated),
        progress_time=None if complete else _progress_time(previous, roles, updated, now),
        roles=RolesStatus(prefill=roles["prefill"], decode=roles["decode"]),
        paths=findings.paths,
        nics=findings.nics,
        balance=findings.balance,
        endpoints=endpoints,
        planned=findings.planned,
        last_scale=findings.last_scale,
    )


def role_status(role: str, findings: Findings) -> RoleStatus:
    """One role in figures."""
    views = [view for view in findings.replicas if view.replica.role.value == role]
    ready = sum(view.ready for view in views)
    desired = findings.wanted.get(role, 0)
    return RoleStatus(
        summary=f"{ready}/{desired}",
        desired=desired,
        ready=ready,
        admitted=sum(all(pod.admitted for pod in view.pods) for view in views),
        updated=sum(view.ready and view.replica.revision == findings.revision for view in views),
        draining=sum(view.replica.state in {State.DRAINING, State.DRAINED} for view in views),
        gpus=sum(view.replica.gpus or 0 for view in views),
    )


def _judge(findings: Findings, roles: Mapping[str, RoleStatus]) -> dict[Type, Judgement]:
    """All conditions but their times."""
    judged = {
        Type.PREFILL_READY: _role_ready(roles["prefill"], "prefill"),
        Type.DECODE_READY: _role_ready(roles["decode"], "decode"),
        Type.STORAGE_READY: findings.storage,
        Type.SCHEDULER_READY: _scheduler(findings),
        Type.FABRIC_READY: _fabric(findings.cluster, findings.replicas),
        Type.PATH_BALANCED: findings.balanced,
        Type.PATH_TUNED: findings.tuned,
        Type.SCALING_ACTIVE: findings.scaling,
        Type.ROLLOUT_COMPLETE: _rollout(findings),
    }
    stalled = findings.problems[0] if findings.problems else None
    ready = _ready(findings, judged, stalled)
    judged[Type.READY] = ready
    judged[Type.STALLED] = stalled or Judgement(
        status=False, reason="Progressing" if not ready.status else "Idle"
    )
    going = ready.status is not True and stalled is None
    judged[Type.RECONCILING] = Judgement(
        status=going, reason=ready.reason if going else "UpToDate" if stalled is None else "Stalled",
        message=ready.message if going else "",
    )  # fmt: skip
    return judged


def _ready(findings: Findings, judged: Mapping[Type, Judgement], stalled: Judgement | None) -> Judgement:
    """Whether the cluster is as the spec says, and serves."""
    spec = findings.cluster.spec
    if stalled is not None:
        return Judgement(status=False, reason=stalled.reason, message=stalled.message)
    if spec.suspend:
        gone = not findings.replicas
        return Judgement(
            status=gone, reason="Suspended" if gone else "Suspending", message="spec.suspend is true"
        )
    needed = (Type.STORAGE_READY, Type.SCHEDULER_READY, Type.PREFILL_READY, Type.DECODE_READY)
    for kind in (*needed, Type.ROLLOUT_COMPLETE):
        if judged[kind].status is not True and spec.paused:
            told = f"spec.paused is true, nothing is changed; {judged[kind].message}"
            return Judgement(status=False, reason="Paused", message=told)
        if judged[kind].status is not True:
            return Judgement(status=False, reason=judged[kind].reason, message=judged[kind].message)
    if findings.missing:
        told = f"it serves without {', '.join(findings.missing)}, which the API server does not have"
        return Judgement(
            status=True, reason="KindMissing", message=f"{told}; install that and restart the operator"
        )
    if not any(findings.wanted.values()):
        return Judgement(status=True, reason="Idle", message="no engines are wanted")
    return Judgement(status=True, reason="AllRolesServing")


def _role_ready(role: RoleStatus, name: str) -> Judgement:
    if role.ready >= role.desired:
        return Judgement(status=True, reason="Idle" if role.desired == 0 else "AllReady")
    return Judgement(
        status=False, reason=f"{name.capitalize()}NotReady",
        message=f"{role.ready} of {role.desired} {name} groups are ready",
    )  # fmt: skip


def _scheduler(findings: Findings) -> Judgement:
    if findings.gateway_ready:
        return Judgement(status=True, reason="Available")
    if findings.cluster.spec.suspend:
        return Judgement(status=False, reason="Suspended")
    return Judgement(status=False, reason="GatewayNotReady", message="the gateway's Pod is not ready yet")


def _fabric(cluster: Cluster, replicas: Sequence[ReplicaView]) -> Judgement:
    """What the preflight of the Pods says."""
    fabric = cluster.spec.fabric
    if fabric.mode is FabricMode.NONE or not fabric.preflight:
        reason = "PodNetwork" if fabric.mode is FabricMode.NONE else "NotChecked"
        return Judgement(status=True, reason=reason)
    pods = [pod for view in replicas for pod in view.pods]
    failing = [pod for pod in pods if pod.problem.startswith("fabric:")]
    if failing:
        told = (
            f"{failing[0].name}: {failing[0].problem} ({len(failing)} Pods); its container `fabric` logs why"
        )
        return Judgement(status=False, reason="PreflightFailed", message=told)
    if any(pod.ready for pod in pods):
        return Judgement(status=True, reason="PreflightPassed")
    return _UNKNOWN


def _rollout(findings: Findings) -> Judgement:
    plan = findings.plan
    if plan is None:
        return _UNKNOWN
    if plan.outcome is Outcome.COMPLETE:
        return Judgement(status=True, reason=str(plan.outcome))
    waiting = next((pod.problem for view in findings.replicas for pod in view.pods if pod.problem), "")
    blocked = plan.blocked if plan.blocked and plan.blocked not in plan.message else ""
    message = "; ".join(part for part in (plan.message, blocked, waiting) if part)
    return Judgement(status=False, reason=str(plan.outcome), message=message)


def _conditions(
    judged: Mapping[Type, Judgement], generation: int, previous: Mapping[str, Any], now: str
) -> list[Condition]:
    """In the order of the enum; an unchanged status keeps its time."""
    before = {c["type"]: c for c in previous.get("conditions", ())}
    conditions = []
    for kind in Type:
        found = judged.get(kind, _UNKNOWN)
        status = "Unknown" if found.status is None else str(found.status)
        old = before.get(kind.value, {})
        if old and found.reason == NO_TELEMETRY:
            conditions.append(Condition.model_validate(old))  # nothing was heard that would say otherwise
            continue
        since = old.get("lastTransitionTime", now) if old.get("status") == status else now
        conditions.append(
            Condition(
                type=kind.value,
                status=status,
                reason=found.reason,
                message=found.message[:2000],
                last_transition_time=since,
                observed_generation=generation,
            )
        )
    return conditions


def _progress_time(
    previous: Mapping[str, Any], roles: Mapping[str, RoleStatus], updated: str, now: str
) -> str:
    """When the rollout last got further: more updated groups, fewer old ones, or a new aim."""
    before = previous.get("roles", {})
    for role in ROLES:
        old, new = before.get(role, {}), roles[role]
        if (old.get("updated", 0), old.get("ready", 0), old.get("desired", 0)) != (
            new.updated,
            new.ready,
            new.desired,
        ):
            return now
    if previous.get("revision", {}).get("updated", "") != updated:
        return now
    return str(previous.get("progressTime") or now)


# ---------------------------------------------------------------- when to write


def printed(status: ClusterStatus) -> dict[str, Any]:
    """As JSON, without what is unset."""
    return status.model_dump(mode="json", by_alias=True, exclude_none=True)


def edge(previous: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether something changed that people and tools wait for."""
    if previous.get("observedGeneration") != new["observedGeneration"]:
        return True
    before = {c["type"]: (c["status"], c["reason"]) for c in previous.get("conditions", ())}
    after = {c["type"]: (c["status"], c["reason"]) for c in new["conditions"]}
    return any(
        _turned(kind, before.get(kind.value, ("Unknown", ""))[0], after[kind.value][0])
        or (kind is Type.STALLED and before.get(kind.value) != after[kind.value])
        for kind in EDGES
    )


def _turned(kind: Type, before: str, after: str) -> bool:
    """A first answer is no turn, except for what tools wait for."""
    first = "Unknown" in {before, after} and kind not in {Type.READY, Type.RECONCILING, Type.STALLED}
    return before != after and not first


def moved(previous: Any, new: Any, name: str = "") -> bool:
    """Whether anything changed by more than the noise of a gauge."""
    if isinstance(new, Mapping) and isinstance(previous, Mapping):
        keys = {*new, *previous}
        return any(moved(previous.get(key), new.get(key), str(key)) for key in keys)
    if isinstance(new, list) and isinstance(previous, list):
        return len(new) != len(previous) or any(moved(a, b, name) for a, b in zip(previous, new, strict=True))
    if name in {"message", "storageP95", "prefillSide", "decodeSide", "lastTuneTime"}:
        return False  # told along with something else
    gauge = name.endswith("Permille") or name in {"observed", "target"}
    if gauge and isinstance(new, int) and isinstance(previous, int):
        return abs(new - previous) > GAUGE_STEP_PERMILLE
    return bool(previous != new)
