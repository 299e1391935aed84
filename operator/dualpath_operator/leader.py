"""Exactly one replica acts: the one that holds the Lease.

The election of the Kubernetes client (37.0.2) cannot create its Lease and never gives it back; this is small.
As there, a holder counts as gone when its Lease has not changed for its duration by our own clock: clocks of
other machines do not matter. Whoever cannot renew exits: half a leader is worse than none.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from dualpath_operator import metrics
from dualpath_operator.kinds import LEASE
from dualpath_operator.kube import Api, KubeError
from dualpath_operator.settings import LeaderElectionSettings

log = logging.getLogger(__name__)


class Lease:
    """One candidate's view of the Lease."""

    def __init__(
        self,
        api: Api,
        settings: LeaderElectionSettings,
        namespace: str,
        identity: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._settings = settings
        self._namespace = namespace
        self._identity = identity
        self._clock = clock
        self._seen: tuple[str, str] = ("", "")  # holder and renew time
        self._seen_at = 0.0
        self._version = ""  # of the Lease as this candidate wrote it last
        self.taken = False  # somebody else was seen to hold it

    async def hold(self) -> bool:
        """Take or renew the Lease; False when somebody else holds it. Raises KubeError."""
        if self._version and await self._renewed():
            return True
        found = await self._api.get(LEASE, self._namespace, self._settings.name)
        if found is None:
            return await self._create()
        spec = found.get("spec", {})
        holder = spec.get("holderIdentity") or ""
        if holder not in {"", self._identity} and not self._expired(holder, spec):
            self.taken = True
            return False
        body = self._spec(taken=holder != self._identity, transitions=int(spec.get("leaseTransitions") or 0))
        body["metadata"] = {"resourceVersion": found["metadata"]["resourceVersion"]}
        try:
            self._wrote(await self._api.merge(LEASE, self._namespace, self._settings.name, body))
        except KubeError as error:
            if error.status == 409:
                return False
            raise
        return True

    async def _renewed(self) -> bool:
        """Renew what nobody else has touched, in one call."""
        body = self._spec(taken=False, transitions=0)
        body["metadata"] = {"resourceVersion": self._version}
        try:
            self._wrote(await self._api.merge(LEASE, self._namespace, self._settings.name, body))
        except KubeError as error:
            self._version = ""
            if error.status in {404, 409}:
                return False
            raise
        return True

    def _wrote(self, lease: dict[str, Any]) -> None:
        self._version = str(lease["metadata"]["resourceVersion"])

    async def give_back(self) -> None:
        """Let another candidate lead at once; only said, not needed."""
        try:
            found = await self._api.get(LEASE, self._namespace, self._settings.name)
            if found is None or found.get("spec", {}).get("holderIdentity") != self._identity:
                return
            version = found["metadata"]["resourceVersion"]
            body = {"metadata": {"resourceVersion": version}, "spec": {"holderIdentity": ""}}
            await self._api.merge(LEASE, self._namespace, self._settings.name, body)
        except KubeError as error:
            log.warning("the lease was not given back: %s", error)

    def _expired(self, holder: str, spec: dict[str, Any]) -> bool:
        seen = (holder, str(spec.get("renewTime")))
        if seen != self._seen:
            self._seen, self._seen_at = seen, self._clock()
        duration = float(spec.get("leaseDurationSeconds") or self._settings.lease_duration)
        return self._clock() - self._seen_at > duration

    async def _create(self) -> bool:
        meta = {"name": self._settings.name, "namespace": self._namespace}
        lease = {"apiVersion": LEASE.api_version, "kind": LEASE.name, "metadata": meta}
        try:
            self._wrote(await self._api.create({**lease, **self._spec(taken=True, transitions=0)}))
        except KubeError as error:
            if error.status == 409:
                return False
            raise
        return True

    def _spec(self, *, taken: bool, transitions: int) -> dict[str, Any]:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec: dict[str, Any] = {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": math.ceil(self._settings.lease_duration),
            "renewTime": now,
        }
        if taken:
            spec |= {"acquireTime": now, "leaseTransitions": transitions + 1}
        return {"spec": spec}


async def lead(lease: Lease, settings: LeaderElectionSettings, work: Callable[[], Awaitable[None]]) -> bool:
    """Wait for the Lease, then work. True when the work ended by itself, False when the Lease is lost."""
    while not await _tried(lease):  # noqa: ASYNC110 - what is waited for happens on another machine
        await asyncio.sleep(settings.retry_period)
    lease.taken = False
    metrics.LEADER.set(1)
    log.info("this replica leads")
    working = asyncio.ensure_future(work())
    renewing = asyncio.create_task(_renew(lease, settings))
    try:
        await asyncio.wait({working, renewing}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
        return working.done()
    finally:
        metrics.LEADER.set(0)
        for task in (working, renewing):
            task.cancel()
        await asyncio.gather(working, renewing, return_exceptions=True)


async def _renew(lease: Lease, settings: LeaderElectionSettings) -> None:
    """Renew until that has failed for the renew deadline, or somebody else has the Lease.

    Times count from before a call: whoever waits for the Lease to expire saw it renewed no earlier.
    """
    renewed = time.monotonic()
    while (left := renewed + settings.renew_deadline - time.monotonic()) > 0:
        await asyncio.sleep(min(left, settings.retry_period))
        asked = time.monotonic()
        try:
            async with asyncio.timeout(renewed + settings.renew_deadline - asked):
                held = await _tried(lease)
        except TimeoutError:
            break
        if held:
            renewed = asked
        elif lease.taken:
            log.error("somebody else holds the lease")
            return
    log.error("the lease could not be renewed for %.0f s", settings.renew_deadline)


async def _tried(lease: Lease) -> bool:
    try:
        return await lease.hold()
    except KubeError as error:
        log.warning("the lease: %s", error)
        return False
