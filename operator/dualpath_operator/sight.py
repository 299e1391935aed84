"""Whether the watches still see: what they told is compared with what the API server lists.

A watch can go silent without an error; a probe that only asks whether the process runs stays green then. So
the leader lists the clusters now and then, versions only. An object that is newer in two lists in a row than
in the index was missed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable

from dualpath_operator import metrics
from dualpath_operator.kinds import CLUSTER
from dualpath_operator.kube import Api, KubeError
from dualpath_operator.world import World

log = logging.getLogger(__name__)

EVERY_S = 60.0
BLIND_AFTER_S = 300.0
"""Also the time that the API server may be unreachable before a restart is tried."""


class Sight:
    """Looks at the watches of one leader."""

    def __init__(self, api: Api, world: World, namespaces: Iterable[str]) -> None:
        self._api = api
        self._world = world
        self._namespaces: tuple[str | None, ...] = tuple(namespaces) or (None,)
        self._proven_at: float | None = None
        self._suspects: dict[tuple[str, str], str] = {}

    def problem(self) -> str:
        """Why the watches cannot be trusted; empty when they can, or when nothing has been looked at yet."""
        if self._proven_at is None:
            return ""
        age = time.monotonic() - self._proven_at
        metrics.HEARTBEAT_AGE.set(age)
        return f"the watches were not proven for {age:.0f} s" if age > BLIND_AFTER_S else ""

    async def look(self) -> None:
        """Look regularly, until cancelled."""
        self._proven_at = time.monotonic()
        while True:
            await asyncio.sleep(EVERY_S)
            try:
                await self.look_once()
            except KubeError as error:
                log.warning("the watches cannot be checked: %s", error)

    async def look_once(self) -> None:
        """One comparison."""
        newer: dict[tuple[str, str], str] = {}
        for namespace in self._namespaces:
            for item in await self._api.list(CLUSTER, namespace, metadata_only=True):
                meta = item["metadata"]
                key = (meta["namespace"], meta["name"])
                seen = self._world.cluster(key)
                if seen is None or int(seen.version) < int(meta["resourceVersion"]):
                    newer[key] = meta["resourceVersion"]
        missed = {key for key, version in newer.items() if self._suspects.get(key) == version}
        self._suspects = newer
        if missed:
            log.error(
                "the watches missed changes of %s", ", ".join("/".join(key) for key in sorted(missed)[:5])
            )
        else:
            self._proven_at = time.monotonic()
        self.problem()
