"""What is kept of each live object: small, because thousands of them are kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from dualpath_operator import names
from dualpath_operator.model import ADMITTED, INTENT, MANAGER, Key
from dualpath_operator.ownership import replica_managers, was_created

ClusterKey = tuple[str, str]
"""(namespace, name) of a DualPathCluster."""

_UNWATCHED = ("status", "metadata", "apiVersion", "kind")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterView:
    """A DualPathCluster as watched."""

    uid: str
    version: str
    generation: int
    deleting: bool
    finalizers: tuple[str, ...]
    spec: bytes  # JSON
    status: bytes  # JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class PodView:
    """An engine Pod."""

    name: str
    uid: str
    version: str = "0"  # resourceVersion
    role: str
    revision: str
    index: int
    node_index: int
    phase: str
    ready: bool = False
    containers_ready: bool = False
    admitted: bool | None = None  # None: the gate was never set
    deletion: str = ""  # when its grace ends or ended, in ISO form; empty: it is not being deleted
    gpus: int = 0
    owner: str = ""
    nodes: int = 1  # Pods of its replica
    dismissed: bool = False  # a person wants it drained and replaced
    problem: str = ""  # why it does not start, in the kubelet's words

    @property
    def replica(self) -> tuple[str, str, int]:
        """Pods of the same replica agree in this."""
        return (self.role, self.revision, self.index)


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectView:
    """Any other child. `content` is its JSON without status and bookkeeping, to find drift."""

    key: Key
    uid: str
    version: str  # resourceVersion
    intent: str
    owner: str  # uid of its controller
    content: bytes
    ready: bool  # of Deployments and StatefulSets: all that is wanted is ready; of claims: bound
    replicas: int | None = None  # spec.replicas
    managers: frozenset[str] = frozenset()  # who owns spec.replicas of an engine group
    created: bool = False  # our fields are noted as created, not as applied
    status: bytes = b""  # of engine groups

    def live(self) -> dict[str, Any]:
        """The object as JSON, as far as it is kept."""
        return dict(msgspec.json.decode(self.content))


View = ClusterView | PodView | ObjectView


def cluster_view(body: Mapping[str, Any]) -> ClusterView:
    """The view of a cluster."""
    meta = body["metadata"]
    return ClusterView(
        uid=meta["uid"],
        version=meta["resourceVersion"],
        generation=meta["generation"],
        deleting="deletionTimestamp" in meta,
        finalizers=tuple(meta.get("finalizers", ())),
        spec=msgspec.json.encode(body.get("spec") or {}),
        status=msgspec.json.encode(body.get("status") or {}),
    )


def cluster_of(body: Mapping[str, Any]) -> ClusterKey:
    """The cluster that a child belongs to, by its label."""
    meta = body["metadata"]
    return (meta["namespace"], meta.get("labels", {}).get(names.CLUSTER_LABEL, ""))


def pod_view(body: Mapping[str, Any]) -> PodView | None:
    """The view of an engine Pod; None for other Pods."""
    meta, status, spec = body["metadata"], body.get("status", {}), body.get("spec", {})
    labels = meta.get("labels", {})
    if labels.get(names.ROLE_LABEL) not in names.ROLES:
        return None
    conditions = {c["type"]: c["status"] == "True" for c in status.get("conditions", ())}
    return PodView(
        name=meta["name"],
        uid=meta["uid"],
        version=meta["resourceVersion"],
        role=labels[names.ROLE_LABEL],
        revision=labels.get(names.REVISION_LABEL, ""),
        index=_number(labels.get(names.REPLICA_LABEL)),
        node_index=_number(labels.get(names.NODE_LABEL)),
        phase=status.get("phase", "Pending"),
        ready=conditions.get("Ready", False),
        containers_ready=conditions.get("ContainersReady", False),
        admitted=conditions.get(ADMITTED),
        deletion=meta.get("deletionTimestamp", ""),
        gpus=_number(meta.get("annotations", {}).get(names.GPUS)),
        dismissed=bool(meta.get("annotations", {}).get(names.DRAIN)),
        owner=controller_of(meta),
        nodes=_nodes(spec),
        problem=_problem(status),
    )


def object_view(body: Mapping[str, Any]) -> ObjectView:
    """The view of any other child."""
    meta, spec, status = body["metadata"], body.get("spec") or {}, body.get("status") or {}
    kept = {key: value for key, value in body.items() if key not in _UNWATCHED}
    kept["metadata"] = {
        key: meta[key]
        for key in ("name", "namespace", "labels", "annotations", "ownerReferences")
        if key in meta
    }
    replicas = spec.get("replicas") if isinstance(spec, Mapping) else None
    group = body["kind"] == "DualPathEngineGroup"
    return ObjectView(
        key=Key(kind=body["kind"], name=meta["name"]),
        uid=meta["uid"],
        version=meta["resourceVersion"],
        intent=meta.get("annotations", {}).get(INTENT, ""),
        owner=controller_of(meta),
        content=msgspec.json.encode(kept),
        ready=_ready(meta, spec, status),
        replicas=replicas,
        managers=replica_managers(meta.get("managedFields", ())) if group else frozenset(),
        created=was_created(meta.get("managedFields", ())),
        status=msgspec.json.encode(status) if group else b"",
    )


def _ready(meta: Mapping[str, Any], spec: Mapping[str, Any], status: Mapping[str, Any]) -> bool:
    if "phase" in status:  # of a claim
        return bool(status["phase"] == "Bound")
    wanted = spec.get("replicas", 1)
    seen = status.get("observedGeneration", 0) >= meta.get("generation", 0)
    updated = status.get("updatedReplicas", 0) >= wanted
    return bool(seen and updated and status.get("readyReplicas", 0) >= wanted)


def controller_of(meta: Mapping[str, Any]) -> str:
    """Uid of an object's controller; empty without one."""
    return next((ref["uid"] for ref in meta.get("ownerReferences", ()) if ref.get("controller")), "")


def applied_by_us(view: ObjectView) -> bool:
    """Whether our own apply owns spec.replicas of an engine group."""
    return MANAGER in view.managers


def _number(text: object) -> int:
    """A small number that somebody may have written; whatever else stands there is 0."""
    short = isinstance(text, str) and text.isascii() and text.isdigit() and len(text) < 10
    return int(text) if short and isinstance(text, str) else 0


def _nodes(spec: Mapping[str, Any]) -> int:
    """Pods of the replica, as its engine was told: the cluster's spec may have changed since."""
    variables = (entry for container in spec.get("containers", ()) for entry in container.get("env", ()))
    told = next((entry.get("value") for entry in variables if entry["name"] == "DUALPATH_NODES"), None)
    return max(1, _number(told))


def _problem(status: Mapping[str, Any]) -> str:
    """The first container that waits for something other than its turn."""
    for container in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
        waiting = container.get("state", {}).get("waiting") or {}
        if waiting.get("reason") not in {None, "PodInitializing", "ContainerCreating"}:
            return f"{container['name']}: {waiting['reason']}"
    for condition in status.get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"{condition.get('reason', 'Unschedulable')}: {condition.get('message', '')}"[:300]
    return ""
