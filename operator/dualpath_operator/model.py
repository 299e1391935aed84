"""What the operator's pure parts are told: the cluster, what the API server knows, images, and objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dualpath_api.cluster import ClusterSpec
from dualpath_api.spec.roles import RoleSpec

Object = dict[str, Any]
"""A Kubernetes object as JSON."""

MANAGER = "dualpath-operator"
"""Field manager of everything that the operator applies, and the value of the managed-by label."""

MANAGED_BY = "app.kubernetes.io/managed-by"

FINALIZER = "dualpath.io/finalizer"
ADMITTED = "dualpath.io/Admitted"
INTENT = "dualpath.io/intent-hash"

POD_MONITOR = "monitoring.coreos.com/v1/PodMonitor"
HTTP_ROUTE = "gateway.networking.k8s.io/v1/HTTPRoute"
INFERENCE_POOL = "inference.networking.k8s.io/v1/InferencePool"
OPTIONAL_KINDS = (POD_MONITOR, HTTP_ROUTE, INFERENCE_POOL)
"""Kinds that are made only where the API server knows them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """Images of a cluster's Pods where its spec names none."""

    worker: str = "dualpath/worker:0.1.0"
    gateway: str = "dualpath/gateway:0.1.0"
    store: str = "dualpath/store:0.1.0"
    etcd: str = "etcd:3.6.6"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A DualPathCluster as the API server holds it."""

    namespace: str
    name: str
    uid: str
    generation: int
    spec: ClusterSpec
    deleting: bool = False


def role_spec(cluster: Cluster, role: str) -> RoleSpec:
    """spec.prefill or spec.decode."""
    return cluster.spec.prefill if role == "prefill" else cluster.spec.decode


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What rendering depends on beside the spec."""

    images: Images = field(default_factory=Images)
    kinds: frozenset[str] = frozenset()  # optional kinds that the API server knows
    operator_namespace: str = "dualpath-system"


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """Identity of an object within a cluster's namespace."""

    kind: str
    name: str


def key_of(obj: Mapping[str, Any]) -> Key:
    """The key of an object."""
    return Key(kind=obj["kind"], name=obj["metadata"]["name"])
