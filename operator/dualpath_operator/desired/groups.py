"""Objects around the engines: their groups, what evictions may take, host names of Pods in a replica."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from dualpath_api.cluster import GROUP, VERSION
from dualpath_operator import names
from dualpath_operator.desired import engine
from dualpath_operator.desired.common import metadata
from dualpath_operator.model import Cluster, Object, role_spec


def engine_group(cluster: Cluster, role: str, replicas: int | None) -> Object:
    """The DualPathEngineGroup of a role. Without `replicas` an autoscaler owns that field."""
    spec: Object = {"cluster": cluster.name, "role": role}
    if replicas is not None:
        spec["replicas"] = replicas
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "DualPathEngineGroup",
        "metadata": metadata(cluster, names.group(cluster.name, role), role),
        "spec": spec,
    }


def engine_groups(cluster: Cluster, replicas: Mapping[str, int | None]) -> list[Object]:
    """Both roles' groups."""
    return [engine_group(cluster, role, replicas.get(role)) for role in names.ROLES]


def claim_templates(cluster: Cluster) -> list[Object]:
    """ResourceClaimTemplates of both roles; only with DRA."""
    return [
        {
            "apiVersion": "resource.k8s.io/v1",
            "kind": "ResourceClaimTemplate",
            "metadata": metadata(cluster, name, role),
            "spec": {"spec": spec},
        }
        for role in names.ROLES
        for name, spec in engine.claim_templates(cluster, role).items()
    ]


def headless_services(cluster: Cluster) -> list[Object]:
    """Host names for the Pods of replicas that span nodes."""
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata(cluster, names.group(cluster.name, role), role),
            "spec": {
                "clusterIP": "None",
                "publishNotReadyAddresses": True,  # nodes of a replica meet before it is ready
                "selector": {names.CLUSTER_LABEL: cluster.name, names.ROLE_LABEL: role},
            },
        }
        for role in names.ROLES
        if role_spec(cluster, role).parallelism.nodes > 1
    ]


def budget_name(cluster: Cluster, node: int) -> str:
    """The budget of the Pods of one node of each replica."""
    return f"{cluster.name}-engines" + (f"-{node}" if node else "")


def disruption_budgets(cluster: Cluster) -> Iterator[Object]:
    """What `kubectl drain` may take.

    The API server counts what is wanted by the groups' /scale, in replicas. So a budget covers one Pod of
    each replica: the first node's, and where replicas span nodes, one budget more for each further node.
    """
    roles = [role_spec(cluster, role) for role in names.ROLES]
    for node in range(max(role.parallelism.nodes for role in roles)):
        yield {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": metadata(cluster, budget_name(cluster, node), "engines"),
            "spec": {
                "maxUnavailable": cluster.spec.disruption.max_unavailable,
                "selector": {
                    "matchLabels": {names.CLUSTER_LABEL: cluster.name, names.NODE_LABEL: str(node)},
                    "matchExpressions": [
                        {"key": names.ROLE_LABEL, "operator": "In", "values": list(names.ROLES)}
                    ],
                },
                # what does not serve must not hold up the drain of a node
                "unhealthyPodEvictionPolicy": "AlwaysAllow",
            },
        }
