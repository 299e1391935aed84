"""What kopf is told: to watch what is ours by kind, and that events go into the world and wake their cluster.

Event handlers only. Handlers that react to differences (on.create and the like) lose what happened while they
failed, and daemons would have kopf hold objects by a finalizer of its own. Nor are kopf's indexes used:
all objects would have to pass through them before the first handler runs, seconds after each restart.
`sight` fills the world from lists instead, before the watches begin.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import kopf

from dualpath_operator.kinds import CLUSTER, ENGINE_GROUP, Kind
from dualpath_operator.settings import Settings
from dualpath_operator.views import ClusterKey
from dualpath_operator.world import World

BY_KOPF = (CLUSTER, ENGINE_GROUP)
"""What people and autoscalers write. `watches` follows what clusters consist of."""


def register(
    registry: kopf.OperatorRegistry, world: World, kinds: Iterable[Kind], wake: Callable[[ClusterKey], None]
) -> None:
    """Register the handler for all kinds. `wake` plans a pass over a cluster."""

    async def told(event: kopf.RawEvent, **_: Any) -> None:
        for key in world.hear(event["type"] or "", dict(event["object"])):
            wake(key)

    for kind in kinds:
        kopf.on.event(kind.group, kind.version, kind.plural, registry=registry)(told)


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


def kopf_settings(settings: Settings, kinds: Iterable[Kind]) -> kopf.OperatorSettings:
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
    for kind in kinds:
        if kind.labels:
            found.watching.label_selectors[_resource(kind)] = kind.labels
    return found


def _resource(kind: Kind) -> Any:
    return f"{kind.plural}.{kind.version}.{kind.group}".rstrip(".")
