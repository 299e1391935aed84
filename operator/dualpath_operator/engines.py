"""Carries out the steps of a rollout: makes Pods, asks engines to drain, deletes Pods."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from typing import Any

from dualpath_operator import metrics
from dualpath_operator.desired import engine_pod
from dualpath_operator.kinds import POD
from dualpath_operator.kube import Api, KubeError
from dualpath_operator.memory import Memory
from dualpath_operator.model import ADMITTED, Cluster, Object, Surroundings, role_spec
from dualpath_operator.observe import ReplicaView, missing_pods
from dualpath_operator.rollout_model import Create
from dualpath_operator.views import PodView, pod_view

log = logging.getLogger(__name__)


class Engines:
    """Pods of all clusters."""

    def __init__(self, api: Api, around: Surroundings) -> None:
        self._api = api
        self._around = around

    async def create(
        self, cluster: Cluster, groups: Mapping[str, str], steps: Iterable[Create], memory: Memory, now: float
    ) -> list[str]:
        """Make the Pods of all steps; `groups` has the uid of each role's engine group. Returns refusals."""
        pods = [
            self._pod(cluster, groups, step.role.value, step.revision, step.index, node)
            for step in steps
            if step.role.value in groups
            for node in range(role_spec(cluster, step.role.value).parallelism.nodes)
        ]
        made = await asyncio.gather(*(self._make(pod, memory, now) for pod in pods), return_exceptions=True)
        for result in made:  # only when all have ended: none goes on unseen
            if isinstance(result, BaseException):
                raise result
        return [refusal for refusal in made if isinstance(refusal, str) and refusal]

    async def complete(
        self,
        cluster: Cluster,
        groups: Mapping[str, str],
        views: Iterable[ReplicaView],
        memory: Memory,
        now: float,
    ) -> list[str]:
        """Make the Pods that are missing of replicas whose making was interrupted. Returns refusals."""
        refusals = []
        for view in views:
            replica = view.replica
            if replica.role.value not in groups:
                continue
            nodes = role_spec(cluster, replica.role.value).parallelism.nodes
            for node in missing_pods(view, nodes):
                pod = self._pod(cluster, groups, replica.role.value, replica.revision, replica.index, node)
                if refusal := await self._make(pod, memory, now):
                    refusals.append(refusal)
        return refusals

    def _pod(
        self, cluster: Cluster, groups: Mapping[str, str], role: str, revision: str, index: int, node: int
    ) -> Object:
        return engine_pod(cluster, self._around, role, revision, index, node, groups[role])

    async def _make(self, pod: Object, memory: Memory, now: float) -> str:
        """A Pod whose name is taken was made before, or is still leaving: both are no error."""
        name = pod["metadata"]["name"]
        if name in memory.created:
            return ""
        try:
            made = await self._api.create(pod)
        except KubeError as error:
            if error.taken:
                return ""
            metrics.APPLIES.labels("Pod", "error").inc()
            if error.transient or error.status == 401:
                raise
            return str(error)  # quota, Pod Security, an admission policy: no later pass helps by itself
        metrics.APPLIES.labels("Pod", "created").inc()
        view = pod_view(made)
        if view is not None:
            memory.created[name] = (view, now)
        return ""

    async def delete(self, cluster: Cluster, view: ReplicaView, memory: Memory, now: float) -> None:
        """Delete a replica's Pods, each by its uid. Their preStop still drains what may be left."""
        for pod in view.pods:
            if pod.deletion or pod.uid in memory.deleted:
                continue
            await self._api.delete(POD, cluster.namespace, pod.name, uid=pod.uid)
            metrics.APPLIES.labels("Pod", "deleted").inc()
            memory.deleted[pod.uid] = now
            memory.created.pop(pod.name, None)

    async def admit(self, namespace: str, pod: PodView, admitted: bool, when: str) -> None:
        """Set the readiness gate of a Pod."""
        condition: dict[str, Any] = {
            "type": ADMITTED,
            "status": str(admitted),
            "reason": "Registered" if admitted else "NotRegistered",
            "message": "the scheduler knows its engines"
            if admitted
            else "the scheduler does not know its engines",
            "lastTransitionTime": when,
        }
        body = {"metadata": {"uid": pod.uid}, "status": {"conditions": [condition]}}
        try:
            await self._api.merge(POD, namespace, pod.name, body, subresource="status", strategic=True)
        except KubeError as error:
            if error.status not in {404, 409}:
                raise
        metrics.APPLIES.labels("Pod", "admitted" if admitted else "rejected").inc()
