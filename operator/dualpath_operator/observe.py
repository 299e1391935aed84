"""From Pods to replicas: what the rollout planner is told. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from dualpath_api.wire import Role
from dualpath_operator import names
from dualpath_operator.rollout_model import Replica, State, state_of
from dualpath_operator.views import PodView

LOST_AFTER = timedelta(seconds=60)
"""A Pod that still exists so long after its grace has ended sits on a node that does not answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaView:
    """A replica with its Pods."""

    replica: Replica
    pods: tuple[PodView, ...]

    @property
    def ready(self) -> bool:
        """Serving, as far as Kubernetes and the scheduler know."""
        return self.replica.state is State.READY


@dataclass(frozen=True, slots=True, kw_only=True)
class Drains:
    """What is known of drains, by Pod uid and replica id."""

    asked: Collection[str] = frozenset()  # Pods whose engines take nothing new
    proven: Collection[str] = frozenset()  # Pods whose engines hold no work
    over: Collection[str] = (
        frozenset()
    )  # replicas that may go: their deadline is over, or there is no scheduler


def replicas_of(cluster: str, pods: Iterable[PodView], drains: Drains, now: datetime) -> list[ReplicaView]:
    """All replicas."""
    grouped: dict[tuple[str, str, int], list[PodView]] = defaultdict(list)
    for pod in pods:
        grouped[pod.replica].append(pod)
    return [
        _replica_view(cluster, sorted(members, key=lambda p: p.node_index), drains, now)
        for _, members in sorted(grouped.items())
    ]


def _replica_view(cluster: str, pods: list[PodView], drains: Drains, now: datetime) -> ReplicaView:
    first = pods[0]
    name = names.replica(cluster, first.role, first.revision, first.index)
    whole = len(pods) >= first.nodes
    admitted_before = any(pod.admitted is not None for pod in pods)
    terminating = any(pod.deletion for pod in pods)
    dismissed = any(pod.dismissed for pod in pods)
    state = state_of(
        ready=whole and all(pod.ready for pod in pods),
        admitted_before=admitted_before,
        draining=dismissed or any(pod.uid in drains.asked for pod in pods),
        drained=name in drains.over or all(pod.uid in drains.proven for pod in pods),
        # Pods of one replica start and go together: what is left of an incomplete one goes too.
        terminating=terminating and all(pod.deletion for pod in pods),
        broken=any(pod.phase in {"Failed", "Succeeded"} for pod in pods)
        or (terminating and not all(pod.deletion for pod in pods))
        or (admitted_before and not whole),
        node_gone=terminating and all(_lost(pod, now) for pod in pods),
    )
    return ReplicaView(
        replica=Replica(
            id=name,
            role=Role(first.role),
            revision=first.revision,
            index=first.index,
            state=state,
            gpus=sum(pod.gpus for pod in pods),
            dismissed=dismissed,
        ),
        pods=tuple(pods),
    )


def _lost(pod: PodView, now: datetime) -> bool:
    return bool(pod.deletion) and datetime.fromisoformat(pod.deletion) + LOST_AFTER < now


def missing_pods(view: ReplicaView, nodes: int) -> list[int]:
    """Node indices of a replica whose making was interrupted; it is completed, not made anew."""
    if view.replica.state is not State.PENDING:
        return []
    present = {pod.node_index for pod in view.pods}
    return [node for node in range(nodes) if node not in present]
