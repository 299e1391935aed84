"""A master of a Mooncake Store: the library's own program, with our probes, metrics and end.

Without an etcd its memory is the only place that knows where blocks are: a new one begins empty. With one,
masters elect a leader and replay its log of changes, so that blocks outlive it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from dualpath_api.errors import SpecError
from dualpath_worker.storage.mooncake_client import library, own_address
from dualpath_worker.storage.service import get, on_signals, said, serve

log = logging.getLogger(__name__)

GRACE_S = 3.0
_ASK_S = 2.0
_CHILD = "import ctypes,os,sys;ctypes.CDLL(None).prctl(1,9);os.getppid()==int(sys.argv[1]) or sys.exit(1);" \
    "os.execv(sys.argv[2],sys.argv[2:])"  # fmt: skip
"""Becomes a program that the kernel kills when we die; asked for after the fork, where we have no threads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MasterSettings:
    """What the command line says."""

    etcd: tuple[str, ...] = ()
    host: str = ""
    port: int = 50051
    metrics_host: str = "0.0.0.0"
    metrics_port: int = 9003
    node_ttl_s: int = 10
    lease_s: float = 10.0
    offload: bool = False


async def serve_master(settings: MasterSettings) -> int:
    """Run until told to stop; 1: the program ended by itself. Raises SpecError or UnsupportedError."""
    stop = on_signals()
    _check_port(settings)
    inner = _free_port()
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-S", "-c", _CHILD, str(os.getpid()), *command(settings, inner)
    )
    base = f"http://127.0.0.1:{inner}"
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_ASK_S)) as session:
        try:
            runner = await serve(
                settings.metrics_host, settings.metrics_port, _routes(session, base, settings.port)
            )
        except SpecError:
            await _end(child)
            raise
        log.info("master on port %d, %s", settings.port, "elected by etcd" if settings.etcd else "alone")
        ended, stopping = asyncio.create_task(child.wait()), asyncio.create_task(stop.wait())
        await asyncio.wait([ended, stopping], return_when=asyncio.FIRST_COMPLETED)
        if not stop.is_set():
            log.error("mooncake_master ended with code %s", child.returncode)
        stopping.cancel()
        await _end(child)
        await runner.cleanup()
    return 0 if stop.is_set() else 1


def command(settings: MasterSettings, metrics_port: int) -> list[str]:
    """The program and its arguments. Raises UnsupportedError."""
    program = Path(library().__file__).with_name("mooncake_master")
    flags = {
        "rpc_address": "0.0.0.0",
        "rpc_port": settings.port,
        "metrics_host": "127.0.0.1",
        "metrics_port": metrics_port,
        "client_ttl": settings.node_ttl_s,
        "default_kv_lease_ttl": f"{settings.lease_s * 1000:.0f}ms",
        "minloglevel": 2,
        "logtostderr": "true",
    }
    if settings.offload:
        flags["enable_offload"] = "true"
    if settings.etcd:
        flags |= {
            "rpc_address": settings.host or own_address(settings.etcd[0]),  # the others are told this one
            "enable_ha": "true",
            "enable_oplog": "true",
            "etcd_endpoints": ";".join(settings.etcd),
        }
    elif settings.host:
        flags["rpc_address"] = settings.host
    return [str(program), *(f"--{name}={value}" for name, value in flags.items())]


def _routes(session: aiohttp.ClientSession, base: str, port: int) -> list[web.RouteDef]:
    async def ready() -> web.Response:
        health = await _health(session, base)
        serving = bool(health.get("service_ready")) or health.get("role") == "standby"
        return said(str(health.get("role", "starting")), ok=serving)

    async def alive() -> web.Response:
        return said("ok")

    async def metrics() -> web.Response:
        body = await _text(session, f"{base}/metrics")
        role = (await _health(session, base)).get("role")
        leads = (
            f"# TYPE dualpath_store_master_leads gauge\ndualpath_store_master_leads {int(role == 'leader')}\n"
        )
        return web.Response(text=leads + body, content_type="text/plain")

    async def status() -> web.Response:
        health, segments = await _health(session, base), await _json(session, f"{base}/get_segments_detail")
        return web.json_response(
            {
                "role": health.get("role", "starting"),
                "serving": bool(health.get("service_ready")),
                "port": port,
                "leader": health.get("leader_address"),
                "keys": _figure(await _text(session, f"{base}/metrics"), "master_key_count"),
                "nodes": [
                    {
                        "name": segment["segment_name"],
                        "address": segment["te_endpoint"],
                        "status": segment["status"],
                        "usedBytes": segment["allocator_used_bytes"],
                        "sizeBytes": segment["size_bytes"],
                    }
                    for segment in segments.get("segments", [])
                ],
            }
        )

    async def keys() -> web.Response:
        return web.Response(text=await _text(session, f"{base}/get_all_keys"))

    return [
        get("/healthz", alive),
        get("/readyz", ready),
        get("/metrics", metrics),
        get("/status", status),
        get("/keys", keys),
    ]


async def _health(session: aiohttp.ClientSession, base: str) -> Mapping[str, Any]:
    return await _json(session, f"{base}/health")


async def _json(session: aiohttp.ClientSession, url: str) -> Mapping[str, Any]:
    try:
        async with session.get(url) as answer:
            found: Mapping[str, Any] = await answer.json(content_type=None)
            return found or {}
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return {}


async def _text(session: aiohttp.ClientSession, url: str) -> str:
    try:
        async with session.get(url) as answer:
            return await answer.text()
    except (aiohttp.ClientError, TimeoutError):
        return ""


def _figure(metrics: str, name: str) -> int:
    lines = (line.split() for line in metrics.splitlines())
    return next((int(float(line[1])) for line in lines if len(line) == 2 and line[0] == name), 0)


async def _end(child: asyncio.subprocess.Process) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        if child.returncode is None:
            child.send_signal(number)
            try:
                await asyncio.wait_for(child.wait(), GRACE_S)
            except TimeoutError:
                continue


def _check_port(settings: MasterSettings) -> None:
    host = settings.host or "0.0.0.0"
    try:
        with socket.create_server((host, settings.port)):
            pass
    except OSError as error:
        raise SpecError(
            f"the master cannot listen on {host}:{settings.port}",
            cause=error.strerror or str(error),
            remedy="give a free port with --port, and an address of this machine with --host",
        ) from None


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
