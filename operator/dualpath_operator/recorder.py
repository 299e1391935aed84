"""Events on a cluster, when its state turns; never from watch events, so a restart repeats none."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from dualpath_api.cluster import GROUP, VERSION
from dualpath_api.status import ShareStatus
from dualpath_operator.model import MANAGER, Cluster, Object

_TOLD = ("Ready", "Stalled", "PathTuned", "FabricReady")
_GOOD = {("Ready", "True"), ("Stalled", "False"), ("PathTuned", "True"), ("FabricReady", "True")}

RETUNE_STEP_PERMILLE = 20
RETUNE_EVERY_S = 60.0
"""A target that moved less, or so soon after the event before, is no news."""


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


def retuned(
    cluster: Cluster, share: ShareStatus, before: tuple[int, float] | None, now: float
) -> tuple[tuple[int, float] | None, Object | None]:
    """What to remember as told, and the event to tell: a target that moved far, rarely.

    `before` is the target told last and when, on the clock of `now`; a target at first sight is no news.
    """
    if share.target is None:
        return before, None
    if before is None:
        return (share.target, now - RETUNE_EVERY_S), None
    told, at = before
    if abs(share.target - told) <= RETUNE_STEP_PERMILLE or now - at < RETUNE_EVERY_S:
        return before, None
    message = f"target of the decode side: {told} to {share.target} permille ({share.reason})"
    return (share.target, now), event(cluster, "RetunedPath", message)


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
