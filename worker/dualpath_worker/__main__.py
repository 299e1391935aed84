"""One engine process: reads its settings, builds the objects, wires them, runs until told to stop."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import uuid
from collections.abc import Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import torch
import uvloop

from dualpath_api import wire
from dualpath_api.errors import DualPathError, SpecError
from dualpath_api.keys import KvLayout
from dualpath_api.logs import set_up_logging
from dualpath_api.wire import Role
from dualpath_worker.addresses import advertised, compute_device
from dualpath_worker.blocks import BlockPool
from dualpath_worker.engine.base import Parts
from dualpath_worker.engine.decode import DecodeEngine
from dualpath_worker.engine.generation import Generation
from dualpath_worker.engine.layerwise import LayerwisePrefill
from dualpath_worker.engine.prefill import PrefillEngine
from dualpath_worker.engine.profiling import attention_time, prefill_speed
from dualpath_worker.fabric import Machine, fall_back
from dualpath_worker.fabric.classes import environment, transfer_options
from dualpath_worker.fabric.preflight import before_register
from dualpath_worker.health import problems
from dualpath_worker.link import SchedulerLink
from dualpath_worker.metrics import Metrics
from dualpath_worker.models import Model, load_model
from dualpath_worker.nics import NicSampler, discover, standing
from dualpath_worker.serving import Probes, serve_http
from dualpath_worker.settings import Settings, read_settings
from dualpath_worker.storage.factory import open_store, store_network
from dualpath_worker.storage.io import ReadQueue, WriteQueue
from dualpath_worker.transfer.agent import TransferAgent
from dualpath_worker.transfer.exit import leave
from dualpath_worker.transfer.local import NicCopies

log = logging.getLogger("dualpath_worker")

AnyEngine = PrefillEngine | DecodeEngine


def main() -> None:
    """Exit code 0 after a stop, 2 for what the user must change, 1 for our own faults."""
    code = 1
    try:
        settings = read_settings()
        set_up_logging(settings.engine, settings.log_format)
        torch.set_num_threads(max(1, min(torch.get_num_threads(), os.cpu_count() or 1)))
        uvloop.run(serve(settings))
        code = 0
    except DualPathError as error:
        sys.stderr.write(f"{error}\n")
        code = 2
    except Exception:
        log.exception("engine stopped by an unexpected error")
    finally:
        leave(code)  # UCX crashes in the C library's exit handlers


async def serve(settings: Settings) -> None:
    """Build everything, serve until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    stopping = asyncio.create_task(stop.wait())
    loading = asyncio.create_task(asyncio.to_thread(load, settings))
    await asyncio.wait([loading, stopping], return_when=asyncio.FIRST_COMPLETED)
    if not loading.done():
        log.info("stopped while the model was loaded")
        leave(0)  # a thread cannot be stopped, and a large model loads for minutes
    engine, link, background, url = await build(settings, await loading)
    tasks = [asyncio.create_task(work) for work in background]
    registered = asyncio.create_task(link.registered.wait())
    await asyncio.wait([registered, stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
    if registered.done():
        log.info("registered with the scheduler at %s", settings.scheduler)
        if settings.ready_file:
            await asyncio.to_thread(write_ready, settings.ready_file, url)
        await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
    registered.cancel()
    log.info("stopping")
    for task in tasks:
        if task.done() and (error := task.exception()):
            raise error
        task.cancel()
    await engine.close()


def load(settings: Settings) -> Model:
    """Look at the networks, which is soon done, then load the checkpoint that the spec names."""
    in_pod = bool(settings.place.pod)
    for finding in before_register(settings.spec, os.environ, in_pod=in_pod):
        log.warning("going on, as fabric.onMismatch is Degrade: %s", finding)
    for name, value in environment(settings.spec.fabric.traffic_classes).items():
        os.environ.setdefault(name, value)  # read when a library opens its first connection
    uri = settings.spec.model.uri
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return load_model(Path(uri.removeprefix("file://")), settings.spec.model.dtype, device)


Background = list[Coroutine[Any, Any, None]]


async def build(settings: Settings, model: Model) -> tuple[AnyEngine, SchedulerLink, Background, str]:
    """All objects of the process, wired."""
    layout = await asyncio.to_thread(model.layout, settings.spec.kv.block_tokens)
    slots = settings.buffer_bytes // layout.full_block_bytes
    pages = settings.cache_bytes // layout.full_block_bytes if settings.role is Role.DECODE else 0
    if slots < 2 or (settings.role is Role.DECODE and pages < 2):
        raise SpecError(
            f"spec.{settings.role}.resources is too small",
            cause=f"a Full Block of this model has {layout.full_block_bytes} bytes; a rank's dramBuffer "
            f"holds {slots}, its kvCache {pages}",
            remedy="give each rank of the group at least two, better a few hundred blocks",
        )
    metrics = Metrics()
    pool = BlockPool(slots=slots, layers=layout.layers, layer_block_bytes=layout.layer_block_bytes)
    place = settings.place
    degraded = fall_back(settings.spec, os.environ, Machine.this())
    for finding in degraded:
        log.warning("going on over TCP, as fabric.onMismatch is Degrade: %s", finding)
    rules = () if degraded else settings.spec.nics
    device = compute_device(rules, settings.rank, place.pod_ip)
    classes = settings.spec.fabric.traffic_classes
    agent = TransferAgent(settings.engine, device=device, options=transfer_options(classes))
    agent.register(pool)
    network = store_network(settings.spec, degraded=bool(degraded))
    ranks = settings.own.parallelism.data
    store = await asyncio.to_thread(open_store, settings.spec.storage, layout, network=network, ranks=ranks)
    sampler = NicSampler(settings.spec.nics) if settings.first_of_group and settings.spec.nics else None
    process = uuid.uuid4().hex

    def register() -> wire.Register:
        incarnation = uuid.uuid4().hex
        return wire.Register(
            protocol=wire.PROTOCOL,
            engine=settings.engine,
            role=settings.role,
            group=settings.group_id,
            rank=settings.rank,
            incarnation=incarnation,
            pid=os.getpid(),
            layout=layout,
            max_context=model.config.max_context,
            buffer_slots=slots,
            cache_pages=pages,
            peer=agent.peer(incarnation),
            metrics_url=url,
            prefill_tokens_per_s=speed,
            storage_tokens_per_s=storage_speed(sampler, layout),
            revision=place.revision,
            pod=place.pod,
            pod_uid=place.pod_uid,
            node=place.node,
            process=process,
            accept_new=engine.accept_new,
            serve_reads=engine.serve_reads,
            storage_nic=standing(settings.spec.nics, discover(settings.spec.nics)),
        )

    link = SchedulerLink(
        settings.scheduler,
        token=settings.token,
        register=register,
        on_message=lambda message: engine.on_message(message),
        on_lost=lambda: engine.on_lost_link(),
    )
    parts = Parts(
        engine=settings.engine,
        layout=layout,
        pool=pool,
        agent=agent,
        store=store,
        reads=ReadQueue(store),
        link=link,
        metrics=metrics,
        nics=sampler,
    )
    speed = 0.0
    engine: AnyEngine
    background: Background = [link.run()]
    if settings.role is Role.PREFILL:
        runner = LayerwisePrefill(model, pool, layout.block_tokens)
        fitted = await asyncio.to_thread(attention_time, model)
        speed = await asyncio.to_thread(prefill_speed, runner, pool, layout.block_tokens)
        batching = settings.spec.prefill.batching
        engine = PrefillEngine(
            parts, runner, attention=fitted, quota_s=batching.compute_quota, max_tokens=batching.max_tokens
        )
        background.append(engine.compute_forever())
    else:
        by_nic = partial(NicCopies, pool, device=device, options=transfer_options(classes))
        through = settings.spec.fabric.local_copies == "Nic"
        generation = Generation(model, pool, layout, pages, metrics, by_nic=by_nic if through else None)
        engine = DecodeEngine(parts, generation, WriteQueue(store, parts.reads))
    background.append(engine.report_forever())
    probes = Probes(
        refresh=engine.measure,
        problems=lambda: problems(parts.reads, agent),
        registered=link.registered.is_set,
    )
    served = await serve_http(metrics, settings.host, settings.metrics_port, probes)
    url = f"http://{advertised(settings.host, place.pod_ip)}:{served.addresses[0][1]}/metrics"
    return engine, link, background, url


def storage_speed(sampler: NicSampler | None, layout: KvLayout) -> float:
    """Tokens per second that the storage NICs of this node can carry; 0.0: not known."""
    nics = sampler.latest if sampler else ()
    link = sum(nic.capacity_bytes_per_s for nic in nics if nic.role == "storage")
    return link * layout.block_tokens / layout.full_block_bytes


def write_ready(path: Path, url: str) -> None:
    """Tell the supervisor, atomically."""
    scratch = path.with_suffix(".tmp")
    scratch.write_text(json.dumps({"metrics": url, "pid": os.getpid()}))
    scratch.rename(path)


if __name__ == "__main__":
    main()
