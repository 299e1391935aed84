"""What all rendered objects share: metadata, owners, the intent hash, and values as an API server keeps them.

A drift check compares every rendered field with the live object. So quantities are canonical, and empty
texts, lists and maps, which the API server drops, are left out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from dualpath_api.cluster import GROUP, VERSION
from dualpath_api.spec.base import MEBIBYTE
from dualpath_api.units import format_bytes
from dualpath_operator import names
from dualpath_operator.model import INTENT, Cluster, Object

USER = 10001
"""User and group of all processes in our images."""


def digest(content: object, length: int) -> str:
    """The first hex digits of a SHA-256 over JSON content; the same for the same content, anywhere."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def stamped(obj: Object) -> Object:
    """The object with the hash of its content: a live object with another hash, or none, was not meant so."""
    metadata = obj["metadata"]
    annotations = {**metadata.get("annotations", {}), INTENT: digest(obj, 16)}
    return {**obj, "metadata": {**metadata, "annotations": annotations}}


def owned_by(kind: str, name: str, uid: str) -> list[Object]:
    """The owner of an object: the garbage collector deletes the object with it."""
    return [
        {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": kind,
            "name": name,
            "uid": uid,
            "controller": True,
            "blockOwnerDeletion": True,
        }
    ]


def metadata(cluster: Cluster, name: str, component: str, *, owned: bool = True) -> Object:
    """Metadata of an object of a cluster. What is not owned outlives the cluster."""
    found: Object = {
        "name": name,
        "namespace": cluster.namespace,
        "labels": names.labels(cluster.name, component),
    }
    if owned:
        found["ownerReferences"] = owned_by("DualPathCluster", cluster.name, cluster.uid)
    return found


def selector(cluster: Cluster, component: str) -> dict[str, str]:
    """Labels that select the Pods of a component."""
    return {names.CLUSTER_LABEL: cluster.name, "app.kubernetes.io/component": component}


def filled(fields: Mapping[str, Any]) -> Object:
    """Without fields that the API server would drop."""
    return {key: value for key, value in fields.items() if value not in (None, "", [], {}, ())}


def cpu_quantity(millis: int) -> str:
    """CPUs as the API server writes them: 2, 500m, 1500m."""
    return f"{millis}m" if millis % 1000 else str(millis // 1000)


def cpu_millis(cpu: str) -> int:
    """Thousandths of a CPU in 4, 0.5 or 500m."""
    if cpu.endswith("m"):
        return int(cpu[:-1])
    whole, _, part = cpu.partition(".")
    return int(whole) * 1000 + int(part.ljust(3, "0"))


def shares(total: int, parts: int, unit: int = 1) -> list[int]:
    """A total in whole units, as equal as possible; the first gets what is left over."""
    each = total // parts // unit * unit
    return [total - each * (parts - 1), *[each] * (parts - 1)]


def memory_shares(total: int, parts: int) -> list[str]:
    """Quantities of memory that add up to a total."""
    return [format_bytes(share) for share in shares(total, parts, MEBIBYTE)]
