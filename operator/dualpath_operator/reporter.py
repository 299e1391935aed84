"""Writes statuses: at once when something turns, else rarely; never what stands there already."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from dualpath_api.cluster import GROUP, VERSION
from dualpath_api.status import ClusterStatus, GroupStatus
from dualpath_operator import metrics, names
from dualpath_operator.findings import Findings
from dualpath_operator.gauges import set_or_drop
from dualpath_operator.kinds import CLUSTER, ENGINE_GROUP
from dualpath_operator.kube import Api, KubeError
from dualpath_operator.memory import Memory
from dualpath_operator.model import Cluster, Object, role_spec
from dualpath_operator.recorder import edges
from dualpath_operator.status import build_status, edge, moved, printed
from dualpath_operator.views import ClusterKey, ClusterView, ObjectView

log = logging.getLogger(__name__)


class Reporter:
    """Statuses of clusters and engine groups, and the events that go with them."""

    def __init__(self, api: Api, interval_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._api = api
        self._interval_s = interval_s
        self._clock = clock

    async def report(
        self, view: ClusterView, findings: Findings, groups: Mapping[str, ObjectView | None], memory: Memory
    ) -> bool:
        """Write what is worth it; False when something waits for the next interval."""
        live = memory.status or json.loads(view.status)
        status = build_status(findings, live, _iso())
        gauges(findings.cluster, status)
        settled = await self._groups(findings, status, groups, memory)
        new = printed(status)
        cluster = findings.cluster
        if edge(live, new):
            await self._write((cluster.namespace, cluster.name), new, memory)
            await self._events(cluster, live, new)
            return settled
        if not moved(live, new):
            return settled
        if self._clock() - memory.status_at < self._interval_s:
            return False
        await self._write((cluster.namespace, cluster.name), new, memory)
        return settled

    async def invalid(self, key: ClusterKey, view: ClusterView, problem: str, memory: Memory) -> None:
        """Say that a spec cannot be used. What runs is left as it is."""
        live = memory.status or json.loads(view.status)
        conditions = {c["type"]: c for c in live.get("conditions", ())}
        judged = {"Ready": "False", "Reconciling": "False", "Stalled": "True"}
        for kind, state in judged.items():
            old = conditions.get(kind, {})
            since = old.get("lastTransitionTime") if old.get("status") == state else _iso()
            conditions[kind] = {
                "type": kind, "status": state, "reason": "InvalidSpec", "message": problem[:2000],
                "lastTransitionTime": since, "observedGeneration": view.generation,
            }  # fmt: skip
        new = {**live, "conditions": list(conditions.values()), "observedGeneration": view.generation}
        if new != live:
            await self._write(key, new, memory)

    async def _write(self, key: ClusterKey, status: dict[str, Any], memory: Memory) -> None:
        await self._api.apply(_status_of(CLUSTER.name, key, status), subresource="status")
        metrics.APPLIES.labels("DualPathCluster/status", "applied").inc()
        memory.status, memory.status_at = status, self._clock()

    async def _events(self, cluster: Cluster, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
        for told in edges(cluster, before, after):
            try:
                await self._api.create(told)
            except KubeError as error:
                log.debug("event not written: %s", error)

    async def _groups(
        self,
        findings: Findings,
        status: ClusterStatus,
        groups: Mapping[str, ObjectView | None],
        memory: Memory,
    ) -> bool:
        """Statuses of the engine groups. While their Pods come and go, only autoscalers want every step."""
        cluster, settled = findings.cluster, True
        for role in names.ROLES:
            group = groups.get(role)
            if group is None:
                memory.group_status.pop(role, None)  # the next one of that name has none yet
                settled = False
                continue
            figures = getattr(status.roles, role)
            exists = sum(view.replica.role.value == role for view in findings.replicas)
            new = GroupStatus(
                replicas=exists, ready_replicas=figures.ready, selector=_selector(cluster.name, role)
            ).model_dump(mode="json", by_alias=True, exclude={"observed_generation"})
            old = memory.group_status.get(role) or json.loads(group.status)
            if {key: old.get(key) for key in new} == new:
                continue
            external = role_spec(cluster, role).scaling.mode == "External"
            moving = not external and (findings.plan is None or not findings.plan.complete)
            if moving and self._clock() - memory.group_status_at < self._interval_s:
                settled = False
                continue
            await self._api.apply(
                _status_of(ENGINE_GROUP.name, (cluster.namespace, group.key.name), new), subresource="status"
            )
            metrics.APPLIES.labels("DualPathEngineGroup/status", "applied").inc()
            memory.group_status[role], memory.group_status_at = new, self._clock()
        return settled


def gauges(cluster: Cluster, status: ClusterStatus) -> None:
    """The status as metrics."""
    labels = (cluster.namespace, cluster.name)
    for condition in status.conditions:
        for state in ("True", "False", "Unknown"):
            metrics.CONDITION.labels(*labels, condition.type, state).set(condition.status == state)
    for role in names.ROLES:
        figures = getattr(status.roles, role)
        for state in ("desired", "ready", "admitted", "draining"):
            metrics.REPLICAS.labels(*labels, role, state).set(getattr(figures, state))
    balance = status.balance
    for kind, permille in (
        ("current", balance.pd_permille),
        ("lower", balance.lower_permille),
        ("upper", balance.upper_permille),
    ):
        set_or_drop(metrics.PD_RATIO, (*labels, kind), None if permille is None else permille / 1000)


def _status_of(kind: str, key: ClusterKey, status: Mapping[str, Any]) -> Object:
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": kind,
        "metadata": {"namespace": key[0], "name": key[1]},
        "status": dict(status),
    }


def _selector(cluster: str, role: str) -> str:
    """One Pod of each group."""
    return f"{names.CLUSTER_LABEL}={cluster},{names.ROLE_LABEL}={role},{names.NODE_LABEL}=0"


def _iso() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
