"""What kopf is told: which objects to watch, what to keep of each, which cluster to look at after an event.

Indexes and events only. kopf fills all indexes before the first event handler runs, so the first pass sees
everything; handlers that react to differences (on.create and the like) would lose what happened meanwhile.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import kopf

from dualpath_operator.kinds import CHILDREN, CLUSTER, POD, Kind
from dualpath_operator.model import MANAGER
from dualpath_operator.names import CLUSTER_LABEL
from dualpath_operator.settings import Settings
from dualpath_operator.views import ClusterKey, cluster_of, object_view, pod_view
from dualpath_operator.world import ClusterView, World

OURS = f"app.kubernetes.io/managed-by={MANAGER},{CLUSTER_LABEL}"


def register(
    registry: kopf.OperatorRegistry,
    world: World,
    optional: Iterable[Kind],
    wake: Callable[[ClusterKey], None],
) -> None:
    """Register all handlers. `wake` plans a pass over a cluster."""

    async def clusters(body: kopf.Body, **_: Any) -> dict[ClusterKey, ClusterView]:
        return {(body["metadata"]["namespace"], body["metadata"]["name"]): cluster_view(body)}

    async def pods(body: kopf.Body, **_: Any) -> dict[ClusterKey, Any] | None:
        view = pod_view(body)
        return None if view is None else {cluster_of(body): view}

    async def objects(body: kopf.Body, **_: Any) -> dict[ClusterKey, Any]:
        return {cluster_of(body): object_view(body)}

    async def cluster_event(**event: Any) -> None:
        world.bind(clusters=event["clusters"], pods=event["pods"], objects=event["objects"])
        wake((event["namespace"], event["name"]))

    async def child_event(**event: Any) -> None:
        world.bind(clusters=event["clusters"], pods=event["pods"], objects=event["objects"])
        wake(cluster_of(event["body"]))

    watched = [kind for kind in (*CHILDREN, *optional) if kind.watched]
    kopf.index(*_selector(CLUSTER), id="clusters", registry=registry)(clusters)
    kopf.on.event(*_selector(CLUSTER), id="cluster", registry=registry)(cluster_event)
    kopf.index(*_selector(POD), id="pods", registry=registry)(pods)
    kopf.on.event(*_selector(POD), id="pod", registry=registry)(child_event)
    for kind in watched:
        kopf.index(*_selector(kind), id="objects", registry=registry)(objects)
        kopf.on.event(*_selector(kind), id="object", registry=registry)(child_event)


def cluster_view(body: kopf.Body) -> ClusterView:
    """What is kept of a cluster."""
    meta = body["metadata"]
    return ClusterView(
        uid=meta["uid"],
        version=meta["resourceVersion"],
        generation=meta["generation"],
        deleting="deletionTimestamp" in meta,
        finalizers=tuple(meta.get("finalizers", ())),
        spec=json.dumps(dict(body).get("spec") or {}).encode(),
        status=json.dumps(dict(body).get("status") or {}).encode(),
    )


class NoDiffs(kopf.DiffBaseStorage):
    """Remembers no former state: nothing here reacts to differences, and copying each object is dear."""

    def build(self, **_: Any) -> Any:
        """No essence."""
        return {}

    def fetch(self, **_: Any) -> None:
        """Nothing was stored."""

    def store(self, **_: Any) -> None:
        """Nothing to store."""


class NoProgress(kopf.ProgressStorage):
    """Remembers no progress of handlers: ours have none."""

    def fetch(self, **_: Any) -> None:
        """Nothing was stored."""

    def store(self, **_: Any) -> None:
        """Nothing to store."""

    def purge(self, **_: Any) -> None:
        """Nothing to remove."""

    def touch(self, **_: Any) -> None:
        """Nothing to touch."""

    def clear(self, *, essence: Any) -> Any:
        """Nothing to take out."""
        return essence


def kopf_settings(settings: Settings, optional: Iterable[Kind]) -> kopf.OperatorSettings:
    """Our kopf: no scanning for kinds and namespaces, no peering, no posting, watches that cannot hang."""
    found = kopf.OperatorSettings()
    found.scanning.disabled = True  # kinds are known, and namespaced operators may not list them
    found.peering.standalone = True  # the Lease decides
    found.posting.enabled = False
    found.persistence.diffbase_storage = NoDiffs()
    found.persistence.progress_storage = NoProgress()
    found.watching.server_timeout = 270
    found.watching.client_timeout = 300
    found.watching.connect_timeout = 15
    found.networking.request_timeout = 30
    found.queueing.idle_timeout = 1.0
    for kind in (POD, *CHILDREN, *optional):
        if kind.watched:
            found.watching.label_selectors[_resource(kind)] = OURS
    return found


def _selector(kind: Kind) -> tuple[str, str, str]:
    return (kind.group, kind.version, kind.plural)


def _resource(kind: Kind) -> Any:
    return f"{kind.plural}.{kind.version}.{kind.group}".rstrip(".")
