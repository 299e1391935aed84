"""Lists: the world before the watches begin, and the proof that the watches still see.

A watch can go silent without an error; a probe that only asks whether the process runs stays green then. So
what the API server lists, versions only, is compared with the world now and then. What is not listed any more
is forgotten. What is newer in two lists in a row than in the world was missed: the operator is blind, and has
to start anew.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence

from dualpath_operator import metrics
from dualpath_operator.kinds import Kind
from dualpath_operator.kube import Api, KubeError
from dualpath_operator.views import ClusterKey
from dualpath_operator.watches import Source
from dualpath_operator.world import Place, World

log = logging.getLogger(__name__)

FIRST_S, EVERY_S = 30.0, 120.0
"""The first look comes soon: what went between the lists and the watches is only found by it."""

BLIND_AFTER_S = 600.0
"""Also the time that the API server may be unreachable before a restart is tried."""


class Sight:
    """Looks with lists, for one leader."""

    def __init__(self, api: Api, world: World, namespaces: Iterable[str]) -> None:
        self._api = api
        self._world = world
        self._namespaces: tuple[str | None, ...] = tuple(namespaces) or (None,)
        self._proven_at: float | None = None
        self._suspects: dict[Place, str] = {}

    def problem(self) -> str:
        """Why the watches cannot be trusted; empty when they can, or when nothing has been looked at yet."""
        if self._proven_at is None:
            return ""
        age = time.monotonic() - self._proven_at
        metrics.HEARTBEAT_AGE.set(age)
        return f"the watches were not proven for {age:.0f} s" if age > BLIND_AFTER_S else ""

    async def fill(self, kinds: Sequence[Kind]) -> dict[Source, str]:
        """Take up all that exists; where watches go on from it. Raises KubeError."""

        async def take(kind: Kind, namespace: str | None) -> str:
            version = ""
            async for page in self._api.pages(kind, namespace, labels=kind.labels):
                version = page.version
                for item in page.items:
                    self._world.take({"kind": kind.name, **item})
            return version

        sources = [(kind, namespace) for kind in kinds for namespace in self._namespaces]
        versions = await asyncio.gather(*(take(*source) for source in sources))
        self._proven_at = time.monotonic()
        return dict(zip(sources, versions, strict=True))

    async def look(self, kinds: Sequence[Kind], wake: Callable[[ClusterKey], None]) -> None:
        """Look regularly, until cancelled."""
        await asyncio.sleep(FIRST_S)
        while True:
            try:
                await self.look_once(kinds, wake)
            except KubeError as error:
                log.warning("the watches cannot be checked: %s", error)
            await asyncio.sleep(EVERY_S)

    async def look_once(self, kinds: Sequence[Kind], wake: Callable[[ClusterKey], None]) -> None:
        """One comparison."""
        newer: dict[Place, str] = {}
        for kind in kinds:
            for namespace in self._namespaces:
                newer |= await self._compare(kind, namespace, wake)
        missed = {place for place, version in newer.items() if self._suspects.get(place) == version}
        self._suspects = newer
        if missed:
            told = ", ".join("/".join(place) for place in sorted(missed)[:5])
            log.error("the watches missed changes of %s", told)
        else:
            self._proven_at = time.monotonic()
        self.problem()

    async def _compare(
        self, kind: Kind, namespace: str | None, wake: Callable[[ClusterKey], None]
    ) -> dict[Place, str]:
        """Forget what is gone; what is newer than the world."""
        before = self._world.versions(kind.name, namespace)
        found = {
            (kind.name, meta["namespace"], meta["name"]): (meta["uid"], meta["resourceVersion"])
            async for page in self._api.pages(kind, namespace, labels=kind.labels, metadata_only=True)
            for meta in (item["metadata"] for item in page.items)
        }
        for place, (uid, _) in before.items():
            if found.get(place, ("", ""))[0] != uid and (key := self._world.remove(*place, uid)):
                log.info("%s was gone unnoticed", "/".join(place))
                wake(key)
        now = self._world.versions(kind.name, namespace)
        return {
            place: version
            for place, (_, version) in found.items()
            if int(now.get(place, ("", "0"))[1]) < int(version)
        }
