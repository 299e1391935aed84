"""`python -m dualpath_operator [--config FILE]`: probes and webhooks on every replica, work on the leader."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from kubernetes.aio.config import ConfigException

from dualpath_api.errors import DualPathError, SpecError
from dualpath_api.logs import configure
from dualpath_operator.kube import Api
from dualpath_operator.leader import give_back, lead
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
        configure(settings.log.format, settings.log.level)
        return asyncio.run(run(settings))
    except DualPathError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2


async def run(settings: Settings) -> int:
    """The whole process."""
    try:
        api = await Api.connect()
    except ConfigException as error:
        raise SpecError(
            "no API server is known",
            cause=str(error),
            remedy="run in a Pod with a ServiceAccount, or set KUBECONFIG",
        ) from None
    me, world = identity(), World()
    sight = Sight(api, world, settings.watch_namespaces)
    health = Health(sight.problem)
    async with api, contextlib.AsyncExitStack() as stack:
        port = await stack.enter_async_context(serving(health, settings.http.host, settings.http.port))
        if settings.webhook.enabled:
            hooks = await stack.enter_async_context(serving_webhooks(settings.webhook))
            log.info("webhooks on port %d", hooks)
        log.info("probes and metrics on port %d", port)
        health.ready = True
        stopped = _stop_signal()
        work = asyncio.create_task(
            lead(api.configuration, settings, me, lambda: operate(api, settings, world, sight))
        )
        stop = asyncio.create_task(stopped.wait())
        await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
        clean = stopped.is_set()
        for task in (work, stop):
            task.cancel()
        ended = await asyncio.gather(work, return_exceptions=True)
        if clean:
            await give_back(api, settings, me)
            return 0
        problem = ended[0]
        log.error("stopped: %s", problem or "the lease or the watches were lost")
        return 1


def _stop_signal() -> asyncio.Event:
    event = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, event.set)
    return event


if __name__ == "__main__":
    sys.exit(main())
