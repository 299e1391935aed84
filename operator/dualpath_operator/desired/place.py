"""One Pod's place among the engines: which cluster, role and revision, which replica, which node of it."""

from __future__ import annotations

from dataclasses import dataclass

from dualpath_api.cluster import RoleSpec
from dualpath_operator import names
from dualpath_operator.desired import fabric
from dualpath_operator.model import Cluster, Surroundings, role_spec


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A Pod's place. `node` counts within the replica; node 0 leads."""

    cluster: Cluster
    around: Surroundings
    role: str
    revision: str
    index: int
    node: int = 0

    @property
    def own(self) -> RoleSpec:
        """The role's part of the spec."""
        return role_spec(self.cluster, self.role)

    @property
    def nodes(self) -> int:
        """Pods of the replica."""
        return self.own.parallelism.nodes

    @property
    def ranks(self) -> int:
        """Ranks on this node."""
        return self.own.parallelism.data

    @property
    def image(self) -> str:
        """The engines' image."""
        return self.cluster.spec.image or self.around.images.worker

    @property
    def group(self) -> str:
        """Name of the role's engine group, and of the headless Service."""
        return names.group(self.cluster.name, self.role)

    def pod_name(self, node: int) -> str:
        """Name of the replica's Pod on one of its nodes."""
        return names.pod(self.cluster.name, self.role, self.revision, self.index, node, self.nodes)

    def labels(self) -> dict[str, str]:
        """Labels of the Pod."""
        return names.labels(self.cluster.name, self.role) | {
            names.ROLE_LABEL: self.role,
            names.REVISION_LABEL: self.revision,
            names.REPLICA_LABEL: str(self.index),
            names.NODE_LABEL: str(self.node),
        }


def nics(cluster: Cluster, role: str) -> fabric.PodFields:
    """What the fabric's mode adds to a role's Pods."""
    own = role_spec(cluster, role)
    needs = fabric.Needs(
        namespace=cluster.namespace,
        ranks=own.parallelism.data,
        gpus=own.resources.gpus,
        gpu_resource=own.resources.gpu_resource,
    )
    return fabric.pod_fields(cluster.spec.fabric, needs)
