"""Names and labels of all objects, in one place: what is found by name is spelt the same everywhere."""

from __future__ import annotations

from dualpath_operator.model import MANAGED_BY, MANAGER

CLUSTER_LABEL = "dualpath.io/cluster"
ROLE_LABEL = "dualpath.io/role"
REVISION_LABEL = "dualpath.io/revision"
REPLICA_LABEL = "dualpath.io/replica"
NODE_LABEL = "dualpath.io/node"
GPUS = "dualpath.io/gpus"
"""Annotation of an engine Pod: the GPUs that it holds, however they were asked for."""

DRAIN = "dualpath.io/drain"
"""Annotation of an engine Pod that a person wants drained, deleted and replaced; any value but empty."""

ROLES = ("prefill", "decode")


def labels(cluster: str, component: str) -> dict[str, str]:
    """Labels of every object of a cluster."""
    return {
        "app.kubernetes.io/name": "dualpath",
        "app.kubernetes.io/instance": cluster,
        "app.kubernetes.io/component": component,
        MANAGED_BY: MANAGER,
        CLUSTER_LABEL: cluster,
    }


def group(cluster: str, role: str) -> str:
    """The DualPathEngineGroup of a role."""
    return f"{cluster}-{role}"


def replica(cluster: str, role: str, revision: str, index: int) -> str:
    """A replica: the name of its only Pod, or the stem of its Pods' names."""
    return f"{cluster}-{role}-{revision}-{index}"


def pod(cluster: str, role: str, revision: str, index: int, node: int, nodes: int) -> str:
    """A Pod of a replica; `node` is told apart only where a replica has several."""
    stem = replica(cluster, role, revision, index)
    return stem if nodes == 1 else f"{stem}-{node}"


def config(cluster: str, revision: str) -> str:
    """The ConfigMap that engines of a revision start from."""
    return f"{cluster}-{revision}"


def control_secret(cluster: str) -> str:
    """The Secret with the control token."""
    return f"{cluster}-control"
