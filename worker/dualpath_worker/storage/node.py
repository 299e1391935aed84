"""A node of a Mooncake Store: a process that gives memory, or memory and a directory, to it.

The blocks are as durable as the process: other nodes have the copies. With medium NVMe blocks that do not fit
into a little memory go to files, and a node that starts on the directory of another offers what it finds.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from aiohttp import web
from prometheus_client import CollectorRegistry, Gauge, ProcessCollector, generate_latest

from dualpath_api.errors import SpecError
from dualpath_worker.storage.calls import CallPool, CallsExhaustedError
from dualpath_worker.storage.mooncake_client import TCP, StoreNetwork, library
from dualpath_worker.storage.mooncake_link import StoreLink
from dualpath_worker.storage.service import get, on_signals, said, serve

log = logging.getLogger(__name__)

T = TypeVar("T")

STAGING = 1 << 30
"""Memory of a node with medium NVMe."""
_FILE = (16 << 20, 256 << 20)  # least and most bytes of a file
_PORTS = 16
_USABLE = ((1024, 32767), (61000, 65535))  # the library refuses others
_ASK_S = 2.0
_LEAVE_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    """What the command line says."""

    endpoints: tuple[str, ...]
    medium: str = "DRAM"
    path: str = ""
    size: int = 1 << 30
    port: int = 0
    metrics_host: str = "0.0.0.0"
    metrics_port: int = 9004
    network: StoreNetwork = TCP


async def serve_node(settings: NodeSettings) -> int:
    """Run until told to stop. Raises SpecError or UnsupportedError."""
    stop = on_signals()
    environment(settings)
    library()
    on_disk = settings.medium == "NVMe"
    link = StoreLink(
        settings.endpoints,
        settings.network,
        segment=min(settings.size, STAGING) if on_disk else settings.size,
        directory=settings.path if on_disk else "",
        port=settings.port,
    )
    calls = CallPool(4, "node")
    runner = await serve(settings.metrics_host, settings.metrics_port, _routes(settings, link, calls))
    log.info("store node of %d bytes in %s", settings.size, settings.medium)
    await stop.wait()
    link.close()
    if link.client is not None:
        await _ask(calls, link.client.close, _LEAVE_S)
    await runner.cleanup()
    return 0


def environment(settings: NodeSettings) -> None:
    """What the library reads from the environment. Raises SpecError."""
    if settings.port:
        last = settings.port + _PORTS - 1
        if not any(low <= settings.port and last <= high for low, high in _USABLE):
            raise SpecError(
                f"port {settings.port} cannot be used",
                cause=f"a store node takes {_PORTS} ports in 1024 to 32767 or in 61000 to 65535",
                remedy="choose another --port",
            )
        os.environ |= {"MC_MIN_RPC_PORT": str(settings.port), "MC_MAX_RPC_PORT": str(last)}
    if settings.medium != "NVMe":
        return
    try:
        Path(settings.path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SpecError(
            f"cannot use {settings.path}",
            cause=str(error),
            remedy="give a directory that can be written: --path DIR",
        ) from error
    os.environ |= {
        "MOONCAKE_OFFLOAD_FILE_STORAGE_PATH": settings.path,
        "MOONCAKE_OFFLOAD_TOTAL_SIZE_LIMIT_BYTES": str(settings.size),
        "MOONCAKE_OFFLOAD_BUCKET_MAX_TOTAL_SIZE": str(settings.size),
        "MOONCAKE_OFFLOAD_BUCKET_EVICTION_POLICY": "lru",
        # a file is written when so much has come together; the store stops short of its limit by one file
        "MOONCAKE_OFFLOAD_BUCKET_SIZE_LIMIT_BYTES": str(min(max(settings.size // 16, _FILE[0]), _FILE[1])),
        "MOONCAKE_OFFLOAD_HEARTBEAT_INTERVAL_SECONDS": "2",
    }


def _routes(settings: NodeSettings, link: StoreLink, calls: CallPool) -> list[web.RouteDef]:
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    size = Gauge("dualpath_store_node_size_bytes", "Bytes that the node may keep.", registry=registry)
    joined = Gauge("dualpath_store_node_joined", "1: the store's master answers.", registry=registry)
    size.set(settings.size)

    async def in_store() -> bool:
        return link.client is not None and await _ask(calls, link.client.healthy, _ASK_S) is True

    async def alive() -> web.Response:
        return said("ok")

    async def ready() -> web.Response:
        return said("joined") if await in_store() else said("no master", ok=False)

    async def metrics() -> web.Response:
        joined.set(await in_store())
        return web.Response(body=generate_latest(registry), content_type="text/plain", charset="utf-8")

    return [get("/healthz", alive), get("/readyz", ready), get("/metrics", metrics)]


async def _ask(calls: CallPool, call: Callable[[], T], timeout_s: float) -> T | None:
    try:
        return await asyncio.wait_for(asyncio.wrap_future(calls.submit(call)), timeout_s)
    except (TimeoutError, CallsExhaustedError):
        return None
