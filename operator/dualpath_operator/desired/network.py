"""Who reaches the Pods, and from where: NetworkPolicy, PodMonitor, HTTPRoute, InferencePool."""

from __future__ import annotations

from collections.abc import Iterator

from dualpath_operator import names
from dualpath_operator.desired import commands, fabric, gateway
from dualpath_operator.desired.common import filled, metadata, selector
from dualpath_operator.desired.ranks import port_name
from dualpath_operator.model import (
    HTTP_ROUTE,
    INFERENCE_POOL,
    POD_MONITOR,
    Cluster,
    Object,
    Surroundings,
    role_spec,
)

_EVERYTHING = "cluster"
"""Component of objects that are about all Pods of a cluster."""
_PICKER_PORT = 9002
_STORE_PORTS = ("client", "peer", "rpc", "data")


def wanted_kinds(cluster: Cluster) -> frozenset[str]:
    """Optional kinds that the spec asks for outright: if the API server lacks one, that is worth telling."""
    ingress, found = cluster.spec.ingress, set()
    if cluster.spec.observability.pod_monitor == "Always":
        found.add(POD_MONITOR)
    if ingress.http_route is not None:
        found.add(HTTP_ROUTE)
    if ingress.inference_pool.enabled:
        found.add(INFERENCE_POOL)
    return frozenset(found)


def network_objects(cluster: Cluster, around: Surroundings) -> Iterator[Object]:
    """What the spec asks for and the API server knows."""
    if cluster.spec.security.network_policy == "Managed":
        yield _policy(cluster)
    if POD_MONITOR in around.kinds and cluster.spec.observability.pod_monitor != "Never":
        yield _monitor(cluster)
    pool = INFERENCE_POOL in around.kinds and cluster.spec.ingress.inference_pool.enabled
    if pool:
        yield _pool(cluster)
    if HTTP_ROUTE in around.kinds and cluster.spec.ingress.http_route is not None:
        yield _route(cluster, to_pool=pool)


def _metrics_ports(cluster: Cluster) -> list[str]:
    ranks = max(role_spec(cluster, role).parallelism.data for role in names.ROLES)
    return [port_name(rank) for rank in range(ranks)]


def _policy(cluster: Cluster) -> Object:
    """The cluster's own Pods reach each other; others the gateway's API and metrics, which only tell.

    Ports are named, so a rule holds only for Pods with such a port. Pods on the node's network come from
    addresses that no selector covers: their store is open to all.
    """
    open_ports = ["http", *_metrics_ports(cluster)]
    if fabric.on_host(cluster.spec.fabric) and cluster.spec.storage.managed is not None:
        open_ports += _STORE_PORTS
    ours = {names.CLUSTER_LABEL: cluster.name}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(cluster, cluster.name, _EVERYTHING),
        "spec": {
            "podSelector": {"matchLabels": ours},
            "policyTypes": ["Ingress"],
            "ingress": [
                {"from": [{"podSelector": {"matchLabels": ours}}]},
                {"ports": [{"port": port, "protocol": "TCP"} for port in open_ports]},
            ],
        },
    }


def _monitor(cluster: Cluster) -> Object:
    """Every process's /metrics. A Pod without a port of that name is passed over."""
    ports = ["http", *_metrics_ports(cluster)]
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": metadata(cluster, cluster.name, _EVERYTHING),
        "spec": {
            "selector": {"matchLabels": {names.CLUSTER_LABEL: cluster.name}},
            "podTargetLabels": [names.CLUSTER_LABEL, names.ROLE_LABEL, names.REVISION_LABEL],
            "podMetricsEndpoints": [{"port": port, "path": "/metrics"} for port in ports],
        },
    }


def _pool(cluster: Cluster) -> Object:
    pool = cluster.spec.ingress.inference_pool
    return {
        "apiVersion": "inference.networking.k8s.io/v1",
        "kind": "InferencePool",
        "metadata": metadata(cluster, cluster.name, gateway.COMPONENT),
        "spec": {
            "selector": {"matchLabels": selector(cluster, gateway.COMPONENT)},
            "targetPorts": [{"number": commands.API_PORT}],
            "endpointPickerRef": {
                "group": "",
                "kind": "Service",
                "name": pool.endpoint_picker,
                "port": {"number": _PICKER_PORT},
                "failureMode": pool.failure_mode,
            },
        },
    }


def _route(cluster: Cluster, *, to_pool: bool) -> Object:
    route = cluster.spec.ingress.http_route
    assert route is not None
    parents = [filled({"name": ref.name, "namespace": ref.namespace}) for ref in route.parent_refs]
    backend: Object = {"name": cluster.name, "port": commands.API_PORT}
    if to_pool:
        backend = {"group": "inference.networking.k8s.io", "kind": "InferencePool", "name": cluster.name}
    # not what only the cluster itself should reach: metrics, control, engines
    api = {"path": {"type": "PathPrefix", "value": "/v1"}}
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": metadata(cluster, cluster.name, gateway.COMPONENT),
        "spec": filled(
            {
                "parentRefs": parents,
                "hostnames": list(route.hostnames),
                "rules": [{"matches": [api], "backendRefs": [backend]}],
            }
        ),
    }
