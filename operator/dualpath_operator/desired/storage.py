"""Objects of spec.storage: a claim for a directory, or the Pods of a managed store."""

from __future__ import annotations

from dualpath_api.units import format_bytes
from dualpath_operator.desired.common import metadata
from dualpath_operator.desired.managed import store_objects
from dualpath_operator.model import Cluster, Object, Surroundings


def storage_objects(cluster: Cluster, around: Surroundings) -> list[Object]:
    """All objects of the spec's kind of storage; none for an external store, or a claim that exists."""
    storage = cluster.spec.storage
    if storage.managed is not None:
        return store_objects(cluster, around, storage.managed)
    if storage.files is not None and storage.files.claim_name is None:
        return [_claim(cluster)]
    return []


def claim_name(cluster: Cluster) -> str:
    """The claim for a directory."""
    return f"{cluster.name}-store"


def _claim(cluster: Cluster) -> Object:
    """With retention Retain nothing owns it: the next cluster of that name finds its blocks."""
    storage = cluster.spec.storage
    assert storage.files is not None
    spec: Object = {
        "accessModes": ["ReadWriteMany"],
        "resources": {"requests": {"storage": format_bytes(storage.files.size)}},
        "volumeMode": "Filesystem",
    }
    if storage.files.storage_class_name is not None:
        spec["storageClassName"] = storage.files.storage_class_name
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata(cluster, claim_name(cluster), "store", owned=storage.retention == "Delete"),
        "spec": spec,
    }
