"""Carries out the steps of a rollout: makes Pods, asks engines to drain, deletes Pods."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from typing import Any

from dualpath_operator import metrics
from dualpath_operator.applier import Applied
from dualpath_operator.desired import engine_pod
from dualpath_operator.kinds import POD
from dualpath_operator.kube import Api, KubeError
from dualpath_operator.memory import Memory
from dualpath_operator.model import ADMITTED, Cluster, Object, Surroundings, key_of, role_spec
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
        self,
        cluster: Cluster,
        groups: Mapping[str, str],
        steps: Iterable[Create],
        memory: Memory,
        now: float,
        done: Applied,
    ) -> None:
        """Make the Pods of all steps; `groups` has the uid of each role's engine group."""
        pods = [
            self._pod(cluster, groups, step.role.value, step.revision, step.index, node)
            for step in steps
            if step.role.value in groups
            for node in range(role_spec(cluster, step.role.value).parallelism.nodes)
        ]
        made = await asyncio.gather(
            *(self._make(pod, memory, now, done) for pod in pods), return_exceptions=True
        )
        for result in made:  # only when all have ended: none goes on unseen
            if isinstance(result, BaseException):
                raise result

    async def complete(
        self,
        cluster: Cluster,
        groups: Mapping[str, str],
        views: Iterable[ReplicaView],
        memory: Memory,
        now: float,
        done: Applied,
    ) -> None:
        """Make the Pods that are missing of replicas whose making was interrupted."""
        for view in views:
            replica = view.replica
            if replica.role.value not in groups:
                continue
            nodes = role_spec(cluster, replica.role.value).parallelism.nodes
            for node in missing_pods(view, nodes):
                pod = self._pod(cluster, groups, replica.role.value, replica.revision, replica.index, node)
                await self._make(pod, memory, now, done)

    def _pod(
        self, cluster: Cluster, groups: Mapping[str, str], role: str, revision: str, index: int, node: int
    ) -> Object:
        return engine_pod(cluster, self._around, role, revision, index, node, groups[role])

    async def _make(self, pod: Object, memory: Memory, now: float, done: Applied) -> None:
        """Make a Pod; `done` tells where that was not to be."""
        name = pod["metadata"]["name"]
        if name in memory.created:
            return
        try:
            made = await self._api.create(pod)
        except KubeError as error:
            if error.taken:
                if await self._is_foreign(pod):
                    done.clashes.append(key_of(pod))
                return
            metrics.APPLIES.labels("Pod", "error").inc()
            if error.transient or error.status == 401:
                raise
            # quota, Pod Security, an admission policy: no later pass helps by itself
            done.refused.append((key_of(pod), error.said))
            return
        metrics.APPLIES.labels("Pod", "created").inc()
        view = pod_view(made)
        if view is not None:
            memory.created[name] = (view, now)

    async def _is_foreign(self, pod: Object) -> bool:
        """Whether a Pod that has this one's name is somebody else's.

        One that is leaving, or whose engine group is gone, makes room by itself; one of ours was made
        before, and no watch has told about it yet.
        """
        meta = pod["metadata"]
        (owner,) = meta["ownerReferences"]
        named = f"metadata.name={meta['name']}"
        found = await self._api.list(POD, meta["namespace"], fields=named, metadata_only=True)
        return any(
            "deletionTimestamp" not in one["metadata"]
            and (owner["kind"], owner["name"])
            not in {(ref["kind"], ref["name"]) for ref in one["metadata"].get("ownerReferences", ())}
            for one in found
        )

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
