"""The live objects, as lists and watches tell them: views by cluster. Passes read it, never wait for it."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dualpath_operator.kinds import CLUSTER, POD
from dualpath_operator.memory import Memory
from dualpath_operator.model import INTENT, Key
from dualpath_operator.views import (
    ClusterKey,
    ClusterView,
    ObjectView,
    PodView,
    View,
    cluster_of,
    cluster_view,
    object_view,
    pod_view,
)

log = logging.getLogger(__name__)

Place = tuple[str, str, str]
"""(kind, namespace, name)."""


class World:
    """All views. Newer ones replace older ones, whoever tells them."""

    def __init__(self) -> None:
        self._clusters: dict[ClusterKey, ClusterView] = {}
        self._pods: dict[ClusterKey, dict[str, PodView]] = defaultdict(dict)
        self._objects: dict[ClusterKey, dict[Key, ObjectView]] = defaultdict(dict)
        self._places: dict[Place, tuple[ClusterKey, View]] = {}

    # ------------------------------------------------------------ writing

    def take(self, body: Mapping[str, Any]) -> tuple[ClusterKey, ...]:
        """As `put`, for what comes from outside: the clusters concerned, before and now. Never raises."""
        meta = body.get("metadata", {})
        place: Place = (str(body.get("kind")), str(meta.get("namespace")), str(meta.get("name")))
        before = self._places.get(place)
        try:
            key = self.put(body)
        except (KeyError, TypeError, ValueError, AttributeError):
            log.exception("%s cannot be read and is left out", "/".join(place))
            return ()
        if key is None:
            return ()
        return (key,) if before is None or before[0] == key else (before[0], key)

    def hear(self, kind_of_event: str, body: Mapping[str, Any]) -> tuple[ClusterKey, ...]:
        """Take up an event of a watch: ADDED, MODIFIED or DELETED; the clusters concerned. Never raises."""
        if kind_of_event != "DELETED":
            return self.take(body)
        meta = body["metadata"]
        gone = self.remove(
            str(body.get("kind")), meta.get("namespace", ""), meta.get("name", ""), meta.get("uid", "")
        )
        return () if gone is None else (gone,)

    def put(self, body: Mapping[str, Any]) -> ClusterKey | None:
        """Take up an object as it is now; the cluster it belongs to, or None when that was known already."""
        view = _view(body)
        if view is None:
            return None
        meta = body["metadata"]
        place: Place = (body["kind"], meta["namespace"], meta["name"])
        known = self._places.get(place)
        if known is not None and int(known[1].version) >= int(view.version):
            return None
        if known is not None:
            self._drop(place, known)
        key = (meta["namespace"], meta["name"]) if isinstance(view, ClusterView) else cluster_of(body)
        self._places[place] = (key, view)
        if isinstance(view, ClusterView):
            self._clusters[key] = view
        elif isinstance(view, PodView):
            self._pods[key][view.name] = view
        else:
            self._objects[key][view.key] = view
        return key

    def remove(self, kind: str, namespace: str, name: str, uid: str) -> ClusterKey | None:
        """Forget an object; its cluster, or None when another object has that name by now."""
        place = (kind, namespace, name)
        known = self._places.get(place)
        if known is None or known[1].uid != uid:
            return None
        self._drop(place, known)
        return known[0]

    def _drop(self, place: Place, known: tuple[ClusterKey, View]) -> None:
        key, view = known
        del self._places[place]
        if isinstance(view, ClusterView):
            del self._clusters[key]
        elif isinstance(view, PodView):
            del self._pods[key][view.name]
            if not self._pods[key]:
                del self._pods[key]
        else:
            del self._objects[key][view.key]
            if not self._objects[key]:
                del self._objects[key]

    # ------------------------------------------------------------ reading

    def clusters(self) -> list[ClusterKey]:
        """All clusters."""
        return list(self._clusters)

    def cluster(self, key: ClusterKey) -> ClusterView | None:
        """One cluster, or None when it is gone."""
        return self._clusters.get(key)

    def versions(self, kind: str, namespace: str | None) -> dict[Place, tuple[str, str]]:
        """What is known of a kind, as (uid, resourceVersion)."""
        return {
            place: (view.uid, view.version)
            for place, (_, view) in self._places.items()
            if place[0] == kind and namespace in (None, place[1])
        }

    def pods(self, key: ClusterKey, memory: Memory) -> list[PodView]:
        """The engine Pods of a cluster, also those just made; those just deleted are marked."""
        seen = self._pods.get(key, {})
        memory.created = {name: entry for name, entry in memory.created.items() if name not in seen}
        marked = [
            pod if pod.deletion or pod.uid not in memory.deleted else _being_deleted(pod)
            for pod in seen.values()
        ]
        return [*marked, *(view for view, _ in memory.created.values())]

    def objects(self, key: ClusterKey, memory: Memory) -> dict[Key, ObjectView]:
        """The other children of a cluster."""
        seen = self._objects.get(key, {})
        memory.applied = {
            applied: entry
            for applied, entry in memory.applied.items()
            if applied not in seen or seen[applied].intent != entry[0]
        }
        return dict(seen)


def _view(body: Mapping[str, Any]) -> View | None:
    if body["kind"] == CLUSTER.name:
        return cluster_view(body)
    return pod_view(body) if body["kind"] == POD.name else object_view(body)


def _being_deleted(pod: PodView) -> PodView:
    return replace(pod, deletion="9000-01-01T00:00:00+00:00")  # its grace ends some time from now


def intent_of(obj: Mapping[str, Any]) -> str:
    """The intent hash of a rendered object."""
    return str(obj["metadata"]["annotations"][INTENT])
