"""Exactly one replica acts: the one that holds the Lease.

The client's election keeps the Lease; this module gives it back at a clean stop, so that the next leader need
not wait for it to run out. Whoever loses it exits: half a leader is worse than none.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.leaderelection.electionconfig import Config
from kubernetes.aio.leaderelection.leaderelection import LeaderElection
from kubernetes.aio.leaderelection.resourcelock.leaselock import LeaseLock

from dualpath_operator import metrics
from dualpath_operator.kinds import Kind
from dualpath_operator.kube import Api, KubeError
from dualpath_operator.settings import Settings

log = logging.getLogger(__name__)

LEASE = Kind("coordination.k8s.io", "v1", "Lease", "leases", watched=False)


async def lead(
    configuration: Configuration, settings: Settings, identity: str, work: Callable[[], Awaitable[None]]
) -> None:
    """Wait for the Lease, then do the work. Returns when the Lease is lost, or the work ends."""
    election = settings.leader_election
    async with ApiClient(configuration) as client:
        lock = LeaseLock(election.name, settings.lease_namespace(), identity, client)
        finished = asyncio.Event()

        async def started() -> None:
            metrics.LEADER.set(1)
            log.info("%s leads", identity)
            try:
                await work()
            finally:
                finished.set()

        async def stopped() -> None:
            metrics.LEADER.set(0)
            log.error("%s lost the lease %s/%s", identity, settings.lease_namespace(), election.name)

        elected = asyncio.create_task(
            LeaderElection(
                Config(
                    lock,
                    lease_duration=int(election.lease_duration),
                    renew_deadline=int(election.renew_deadline),
                    retry_period=election.retry_period,
                    onstarted_leading=started,
                    onstopped_leading=stopped,
                )
            ).run()
        )
        done = asyncio.create_task(finished.wait())
        try:
            await asyncio.wait({elected, done}, return_when=asyncio.FIRST_COMPLETED)
            if elected.done():
                elected.result()
        finally:
            elected.cancel()
            done.cancel()


async def give_back(api: Api, settings: Settings, identity: str) -> None:
    """Let another replica lead at once."""
    name, namespace = settings.leader_election.name, settings.lease_namespace()
    try:
        lease = await api.get(LEASE, namespace, name)
        if lease is None or lease["spec"].get("holderIdentity") != identity:
            return
        version = lease["metadata"]["resourceVersion"]
        body = {"metadata": {"resourceVersion": version}, "spec": {"leaseDurationSeconds": 1}}
        await api.merge(LEASE, namespace, name, body)
    except KubeError as error:
        log.warning("the lease was not given back: %s", error)
