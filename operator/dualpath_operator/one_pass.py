"""What one pass over one cluster has seen and done so far, and how it is put in words."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

from dualpath_operator import names
from dualpath_operator.applier import Applied
from dualpath_operator.memory import Memory
from dualpath_operator.model import Cluster, Key
from dualpath_operator.observe import ReplicaView
from dualpath_operator.rollout_model import Create, Plan, State, Step
from dualpath_operator.sizing import Fleet
from dualpath_operator.views import ClusterKey, ClusterView, ObjectView


@dataclass(slots=True, kw_only=True)
class Pass:
    """One cluster during one pass."""

    cluster: Cluster
    view: ClusterView
    memory: Memory
    live: dict[Key, ObjectView]
    groups: dict[str, ObjectView | None]
    wanted: dict[str, int]
    revision: str
    replicas: tuple[ReplicaView, ...]
    plan: Plan
    applied: Applied = field(default_factory=Applied)

    @property
    def key(self) -> ClusterKey:
        """Of the cluster."""
        return (self.cluster.namespace, self.cluster.name)

    @property
    def frozen(self) -> bool:
        """Nothing may be changed."""
        return self.cluster.spec.paused and not self.cluster.deleting

    @property
    def group_uids(self) -> dict[str, str]:
        """Of the engine groups that there are, by role; those just made may not have been seen yet."""
        made = self.memory.group_uids
        found = {role: made.get(names.group(self.cluster.name, role), "") for role in names.ROLES}
        found |= {role: group.uid for role, group in self.groups.items() if group is not None}
        return {role: uid for role, uid in found.items() if uid}

    @property
    def awaits_admission(self) -> bool:
        """Whether a Pod runs whose gate the scheduler's report has to open."""
        pods = [pod for view in self.replicas for pod in view.pods if not pod.deletion]
        return any(pod.containers_ready and not pod.admitted for pod in pods)

    @property
    def fleet(self) -> Fleet:
        """What lives."""
        held = [view.replica for view in self.replicas if view.replica.state is not State.LOST]
        return Fleet(
            ready=Counter(view.replica.role.value for view in self.replicas if view.ready),
            gpus_held=sum(replica.gpus or 0 for replica in held),
        )


def as_rendered(cluster: Cluster, replicas: tuple[ReplicaView, ...]) -> Cluster:
    """A suspended cluster keeps its gateway until its engines are gone: they finish their work through it."""
    if not (cluster.spec.suspend and replicas):
        return cluster
    return replace(cluster, spec=cluster.spec.model_copy(update={"suspend": False}))


def described(step: Step, cluster: str) -> str:
    """A step in words, for the log."""
    if isinstance(step, Create):
        name = names.replica(cluster, step.role.value, step.revision, step.index)
    else:
        name = step.id
    return f"{type(step).__name__.lower()} {name}: {step.why}"
