"""`python -m dualpath_operator [--config FILE]`: probes and webhooks on every replica, work on the leader."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop

from dualpath_api.errors import DualPathError
from dualpath_api.logs import set_up_logging
from dualpath_operator.kube import Api
from dualpath_operator.leader import Lease, lead
from dualpath_operator.operation import operate
from dualpath_operator.server import Health, serving
from dualpath_operator.settings import Settings, identity, read_settings
from dualpath_operator.sight import Sight
from dualpath_operator.webhooks import serving_webhooks
from dualpath_operator.world import World

log = logging.getLogger("dualpath_operator")


def main(arguments: Sequence[str] | None = None) -> int:
    """0 after a clean stop, 1 when the Lease or the watches were lost, 2 for bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m dualpath_operator",
        description="Reconcile DualPathCluster objects of one Kubernetes cluster.",
        epilog="Example:  python -m dualpath_operator --config operator.yaml",
    )
    parser.add_argument("--config", type=Path, help="YAML file of settings; docs/reference/configuration.md")
    options = parser.parse_args(arguments)
    try:
        settings = read_settings(options.config)
        level = logging.getLevelNamesMapping()[settings.log.level]
        logging.getLogger("kopf").setLevel(logging.WARNING)  # a line for each handler and event otherwise
        set_up_logging("operator", settings.log.format, level)
        gc.set_threshold(50_000, 20, 20)  # thousands of views live long; looking at them is dear
        return uvloop.run(run(settings))
    except OSError as error:
        sys.stderr.write(f"error: the operator cannot start\n  cause:  {error}\n  remedy: see its settings\n")
        return 2
    except DualPathError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2


async def run(settings: Settings) -> int:
    """The whole process."""
    api = await Api.connect()
    world = World()
    sight = Sight(api, world, settings.watch_namespaces)
    health = Health(sight.problem)
    async with api, contextlib.AsyncExitStack() as stack:
        port = await stack.enter_async_context(serving(health, settings.http.host, settings.http.port))
        if settings.webhook.enabled:
            hooks = await stack.enter_async_context(serving_webhooks(settings.webhook))
            log.info("webhooks on port %d", hooks)
        log.info("probes and metrics on port %d", port)
        health.ready = True
        return await _lead_until(asyncio.Event(), api, settings, sight, world)


async def _lead_until(
    stopped: asyncio.Event, api: Api, settings: Settings, sight: Sight, world: World
) -> int:
    """Wait to lead, lead, and give the Lease back at a clean stop."""

    def take_signals() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)

    take_signals()
    election = settings.leader_election
    lease = Lease(api, election, settings.lease_namespace(), identity())
    work = asyncio.create_task(
        lead(lease, election, lambda: operate(api, settings, world, sight, take_signals))
    )
    stop = asyncio.create_task(stopped.wait())
    await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
    for task in (work, stop):
        task.cancel()
    (ended,) = await asyncio.gather(work, return_exceptions=True)
    if stopped.is_set() or ended is True:
        await lease.give_back()
        return 0
    log.error("stopped: %s", "the lease was lost" if ended is False else repr(ended))
    return 1


if __name__ == "__main__":
    sys.exit(main())
