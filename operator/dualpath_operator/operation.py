"""The leader's work: kopf and watches for what happens, workers for the passes, a poller for the gateways."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

import kopf

from dualpath_operator import metrics
from dualpath_operator.control import Control
from dualpath_operator.handlers import BY_KOPF, kopf_settings, register
from dualpath_operator.kinds import CHILDREN, CLUSTER, OPTIONAL, POD, Kind
from dualpath_operator.kube import Api, KubeError
from dualpath_operator.model import Images, Surroundings
from dualpath_operator.reconcile import Reconciler
from dualpath_operator.settings import Settings, identity
from dualpath_operator.sight import Sight
from dualpath_operator.telemetry import Telemetry
from dualpath_operator.views import ClusterKey
from dualpath_operator.watches import Watches
from dualpath_operator.workqueue import WorkQueue
from dualpath_operator.world import World

log = logging.getLogger(__name__)

T = TypeVar("T")

SETTLE_S = 0.2
"""Events of one cluster within this time cause one pass."""

VISITORS = 16

RETRY_S = 2.0


async def known_kinds(api: Api) -> frozenset[Kind]:
    """The optional kinds that the API server knows now. Those installed later are found at the next start."""
    found: set[Kind] = set()
    for version in {kind.api_version for kind in OPTIONAL}:
        titles = await api.kinds(version)
        found |= {kind for kind in OPTIONAL if kind.title in titles}
    return frozenset(found)


async def operate(
    api: Api, settings: Settings, world: World, sight: Sight, take_signals: Callable[[], None]
) -> None:
    """Reconcile until cancelled. `take_signals` is called when kopf has taken SIGTERM for itself.

    Raises whatever made kopf give up: the process has to start anew then.
    """
    optional = await patiently(lambda: known_kinds(api))
    log.info("optional kinds: %s", ", ".join(sorted(kind.name for kind in optional)) or "none")
    around = Surroundings(
        images=Images(**settings.images.model_dump()),
        kinds=frozenset(kind.title for kind in optional),
        operator_namespace=settings.own_namespace(),
    )
    children = [kind for kind in (POD, *CHILDREN, *sorted(optional, key=lambda k: k.name)) if kind.watched]
    kinds = [CLUSTER, *children]
    passes: WorkQueue[ClusterKey] = WorkQueue(SETTLE_S)
    visits: WorkQueue[ClusterKey] = WorkQueue()
    async with Control() as control:
        telemetry = Telemetry(control, settings.gateway_url, passes.add, visits.add)
        reconciler = Reconciler(api, world, settings, around, telemetry)
        versions = await patiently(lambda: sight.fill(kinds))
        starts = [(source, version) for source, version in versions.items() if source[0] not in BY_KOPF]
        for key in world.clusters():
            passes.add(key, 0.0)
        tasks = [
            asyncio.create_task(_kopf(settings, world, passes, take_signals), name="kopf"),
            asyncio.create_task(Watches(api, world, passes.add).follow(starts), name="watches"),
            asyncio.create_task(sight.look(kinds, passes.add), name="sight"),
            asyncio.create_task(_measure(passes), name="measure"),
        ]
        tasks += [asyncio.create_task(passes.work(reconciler.handle)) for _ in range(settings.workers)]
        tasks += [asyncio.create_task(visits.work(telemetry.visit)) for _ in range(VISITORS)]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """An answer of the API server, asked for until it comes: kinds may not be installed yet."""
    while True:
        try:
            return await ask()
        except KubeError as error:
            log.warning("not all objects can be listed yet: %s", error)
            await asyncio.sleep(error.retry_after or RETRY_S)


async def _kopf(
    settings: Settings,
    world: World,
    passes: WorkQueue[ClusterKey],
    take_signals: Callable[[], None],
) -> None:
    registry = kopf.OperatorRegistry()
    kopf.on.login(registry=registry)(_login)
    register(registry, world, BY_KOPF, passes.add)
    before = asyncio.all_tasks()
    tasks = await kopf.spawn_tasks(
        registry=registry,
        settings=kopf_settings(settings, BY_KOPF),
        identity=identity(),  # type: ignore[arg-type]  # else the name of a user that no image has to know
        standalone=True,
        clusterwide=not settings.watch_namespaces,
        namespaces=settings.watch_namespaces,
    )
    # at a signal, kopf would wait 5 s for tasks that are not its own: open connections to the webhooks
    take_signals()
    await kopf.run_tasks(tasks, ignored=before)


async def _login(**kwargs: object) -> kopf.ConnectionInfo | None:
    """As `Api.connect`: the kubeconfig, else the Pod's ServiceAccount."""
    return kopf.login_with_kubeconfig(**kwargs) or kopf.login_with_service_account(**kwargs)  # type: ignore[arg-type]


async def _measure(passes: WorkQueue[ClusterKey]) -> None:
    while True:
        metrics.QUEUE.set(len(passes))
        await asyncio.sleep(5.0)
