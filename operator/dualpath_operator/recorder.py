"""Events on a cluster, when its state turns; never from watch events, so a restart repeats none."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from dualpath_api.cluster import GROUP, VERSION
from dualpath_operator.model import MANAGER, Cluster, Object

_TOLD = ("Ready", "Stalled", "PathTuned", "FabricReady")
_GOOD = {("Ready", "True"), ("Stalled", "False"), ("PathTuned", "True"), ("FabricReady", "True")}


def event(cluster: Cluster, reason: str, message: str, *, warning: bool = False) -> Object:
    """A core/v1 Event about a cluster; the same one within a second has the same name, so it is made once."""
    now = datetime.now(UTC)
    stamp = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    digest = hashlib.sha256(f"{cluster.uid}{reason}{message}{stamp}".encode()).hexdigest()[:16]
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{cluster.name}.{digest}", "namespace": cluster.namespace},
        "involvedObject": {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": "DualPathCluster",
            "name": cluster.name,
            "namespace": cluster.namespace,
            "uid": cluster.uid,
        },
        "reason": reason,
        "message": message[:1000] or reason,
        "type": "Warning" if warning else "Normal",
        "source": {"component": MANAGER},
        "reportingComponent": MANAGER,
        "firstTimestamp": stamp,
        "lastTimestamp": stamp,
        "count": 1,
    }


def edges(cluster: Cluster, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Object]:
    """Events for the conditions that turned between two statuses. First sight of a good state is no turn."""
    old = {c["type"]: c for c in before.get("conditions", ())}
    events = []
    for condition in after.get("conditions", ()):
        kind, status = condition["type"], condition["status"]
        if kind not in _TOLD or status == "Unknown":
            continue
        previous = old.get(kind, {}).get("status", "Unknown")
        good = (kind, status) in _GOOD
        if previous == status or (previous == "Unknown" and good != (kind == "Ready")):
            continue
        if kind == "Ready" and not good and previous == "Unknown":
            continue
        reason = condition["reason"] if not good or kind == "Ready" else f"{kind}Restored"
        warning = not good and kind != "Ready"
        events.append(event(cluster, reason, condition.get("message", ""), warning=warning))
    return events
