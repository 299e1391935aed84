"""The live objects as the watches tell them. kopf fills it; the passes read it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from dualpath_operator.memory import Memory
from dualpath_operator.model import INTENT, Key
from dualpath_operator.views import ClusterKey, ObjectView, PodView


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


class Index(Protocol):
    """An index of kopf: a key to the values of all objects that have it."""

    def get(self, key: Any, default: Any = None) -> Any:
        """The values, or the default."""

    def __iter__(self) -> Any:
        """All keys."""


class World:
    """Read access to the indexes, with what was written but not yet told laid over it."""

    def __init__(self) -> None:
        self._clusters: Index | None = None
        self._pods: Index | None = None
        self._objects: Index | None = None

    def bind(self, *, clusters: Index, pods: Index, objects: Index) -> None:
        """Take the indexes; kopf hands them to handlers only."""
        self._clusters, self._pods, self._objects = clusters, pods, objects

    @property
    def bound(self) -> bool:
        """False before the first event."""
        return self._clusters is not None

    def clusters(self) -> list[ClusterKey]:
        """All clusters."""
        return list(self._clusters) if self._clusters is not None else []

    def cluster(self, key: ClusterKey) -> ClusterView | None:
        """One cluster, or None when it is gone."""
        return next(iter(_values(self._clusters, key)), None)

    def pods(self, key: ClusterKey, memory: Memory) -> list[PodView]:
        """The engine Pods of a cluster, also those just made, without those just deleted and gone."""
        seen: list[PodView] = list(_values(self._pods, key))
        names = {pod.name for pod in seen}
        memory.created = {name: entry for name, entry in memory.created.items() if name not in names}
        marked = [
            pod if pod.deletion or pod.uid not in memory.deleted else _being_deleted(pod) for pod in seen
        ]
        return [*marked, *(view for view, _ in memory.created.values())]

    def objects(self, key: ClusterKey, memory: Memory) -> dict[Key, ObjectView]:
        """The other children of a cluster, also in the form just applied."""
        seen: dict[Key, ObjectView] = {view.key: view for view in _values(self._objects, key)}
        memory.applied = {
            applied: entry
            for applied, entry in memory.applied.items()
            if applied not in seen or seen[applied].intent != entry[0]
        }
        return seen


def _values(index: Index | None, key: ClusterKey) -> Iterable[Any]:
    return () if index is None else index.get(key, ())


def _being_deleted(pod: PodView) -> PodView:
    return replace(pod, deletion="9000-01-01T00:00:00+00:00")  # its grace ends some time from now


def intent_of(obj: Mapping[str, Any]) -> str:
    """The intent hash of a rendered object."""
    return str(obj["metadata"]["annotations"][INTENT])
