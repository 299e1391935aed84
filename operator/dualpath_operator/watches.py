"""Watches of what clusters consist of: Pods and all other children, as many as tens of thousands.

kopf watches what people write. It gives every object a queue and a task, and parses each event in Python; for
children that was half of the operator's processor time and most of its memory. Here an event becomes a view,
and nothing else is kept of it. A watch begins where the list before it ended, so nothing is missed between
them; where the API server has forgotten that point (410), a new list takes its place.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from dualpath_operator.kinds import Kind
from dualpath_operator.kube import Api, KubeError
from dualpath_operator.model import Object
from dualpath_operator.views import ClusterKey
from dualpath_operator.world import World

log = logging.getLogger(__name__)

GONE = 410
PAUSE_S = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""After failures in a row; the first also between two streams that the API server ended in order."""

Source = tuple[Kind, str | None]
"""What one list or watch covers: a kind, in one namespace or in all."""


class Watches:
    """Follows sources; `wake` plans a pass over a cluster."""

    def __init__(self, api: Api, world: World, wake: Callable[[ClusterKey], None]) -> None:
        self._api = api
        self._world = world
        self._wake = wake

    async def follow(self, starts: Iterable[tuple[Source, str]]) -> None:
        """Follow all sources from their resourceVersions on, until cancelled."""
        await asyncio.gather(*(self._follow(*source, version) for source, version in starts))

    async def _follow(self, kind: Kind, namespace: str | None, version: str) -> None:
        failures = 0
        while True:
            pause = PAUSE_S[0]
            try:
                version = version or await self._list_again(kind, namespace)
                async for event in self._api.watch(kind, namespace, version, labels=kind.labels):
                    version = self._take(event)
                    failures = 0
            except KubeError as error:
                if error.status == GONE:
                    version = ""
                failures += 1
                pause = max(error.retry_after or 0.0, PAUSE_S[min(failures, len(PAUSE_S) - 1)])
                level = logging.DEBUG if error.status == GONE else logging.WARNING
                log.log(level, "watch of %s: %s", kind.plural, error)
            await asyncio.sleep(pause)

    def _take(self, event: Object) -> str:
        """Tell the world; the version to go on from."""
        body = event["object"]
        if event["type"] != "BOOKMARK":
            for key in self._world.hear(event["type"], body):
                self._wake(key)
        return str(body["metadata"]["resourceVersion"])

    async def _list_again(self, kind: Kind, namespace: str | None) -> str:
        """What has happened unseen; the version of the list."""
        known = self._world.versions(kind.name, namespace)
        there, version = set(), ""
        async for page in self._api.pages(kind, namespace, labels=kind.labels):
            version = page.version
            for item in page.items:
                there.add(item["metadata"]["uid"])
                for key in self._world.take({"kind": kind.name, **item}):
                    self._wake(key)
        for place, (uid, _) in known.items():
            if uid not in there and (gone := self._world.remove(*place, uid)):
                self._wake(gone)
        return version
