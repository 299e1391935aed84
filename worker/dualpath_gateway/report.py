"""The control report, made from the scheduler's state. The caller passes the time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean

import msgspec

from dualpath_api.report import (
    ControlReport,
    EngineReport,
    NicClasses,
    NicReport,
    Quantiles,
    QueueReport,
    ReadReport,
    RevisionReport,
    SideReport,
    SidesReport,
    TuningReport,
    Utilisation,
)
from dualpath_api.wire import Nic, Role
from dualpath_gateway.scheduler.engine import Engine
from dualpath_gateway.scheduler.world import World
from dualpath_policy.model import Tuning

LATELY_S = 10.0
"""An engine that has been silent for longer does not count as reporting: an idle one reports each 2 s."""

_AS_REPORTED = (
    *("seq_e", "tok_e", "read_q", "read_bytes_queued", "read_bytes_total"),
    *("free_slots", "free_pages", "quarantined"),
)


def make_report(world: World, now: float) -> ControlReport:
    """The whole report."""
    totals = world.totals
    running = len(world.jobs) - len(world.queue)
    oldest = max((now - job.queued_at for job in world.queue), default=0.0)
    return ControlReport(
        engines=tuple(engine_report(e, now) for e in sorted(world.engines, key=lambda e: e.name)),
        sides=SidesReport(prefill=_side(world, Role.PREFILL, now), decode=_side(world, Role.DECODE, now)),
        queue=QueueReport(
            waiting=len(world.queue),
            running=running,
            oldest_s=round(oldest, 3),
            turned_away=totals.turned_away,
        ),
        revisions=tuple(
            RevisionReport(
                revision=revision.name,
                prefill=len(revision.prefill),
                decode=len(revision.decode),
                complete=revision.complete,
            )
            for revision in world.engines.revisions()
        ),
        prompt_tokens=totals.prompt_tokens,
        hit_tokens=totals.hit_tokens,
        hit_ratio=_part(totals.hit_tokens, totals.prompt_tokens),
        recent_hit_permille=_permille(
            sum(hit for _, hit in world.recent_hits), sum(prompt for prompt, _ in world.recent_hits)
        ),
        read=_read(world),
        tuning=tuning_report(world.tuning),
    )


def tuning_report(tuning: Tuning) -> TuningReport:
    """The tuning in force."""
    return TuningReport(
        path_policy=tuning.path_policy.value,
        bias_tokens=tuning.bias_tokens,
        decode_min_permille=tuning.decode_min_permille,
        decode_max_permille=tuning.decode_max_permille,
    )


def engine_report(engine: Engine, now: float) -> EngineReport:
    """One engine's state."""
    register, report = engine.register, engine.report
    busy = engine.busy_rate.per_s()
    found = EngineReport(
        id=engine.name,
        role=engine.role,
        revision=register.revision,
        pod=register.pod,
        pod_uid=register.pod_uid,
        node=register.node,
        group=register.group,
        rank=register.rank,
        incarnation=register.incarnation,
        pid=register.pid,
        metrics_url=register.metrics_url,
        state=engine.status,
        accept_new=engine.accepts,
        serve_reads=engine.reads,
        in_flight=max(len(engine.jobs), report.seq_e if report else 0),
        serving_reads=report.serving_reads if report else 0,
        drained=engine.drained,
        report_age_s=None if engine.reported_at is None else round(now - engine.reported_at, 3),
        read_bytes_per_s=engine.read_rate.per_s(),
        busy_permille=None if busy is None else min(1000, round(1000 * busy)),
        buffer_slots=register.buffer_slots,
        cache_pages=register.cache_pages,
    )
    if report is None:
        return found
    return msgspec.structs.replace(
        found,
        **{name: getattr(report, name) for name in _AS_REPORTED},
        nics=tuple(_nic(nic) for nic in report.nics),
    )


def _nic(nic: Nic) -> NicReport:
    busy = _busy(nic)
    return NicReport(
        name=nic.name,
        role=nic.role,
        rx_bytes=nic.rx_bytes,
        tx_bytes=nic.tx_bytes,
        rx_bytes_per_s=nic.rx_bytes_per_s,
        tx_bytes_per_s=nic.tx_bytes_per_s,
        rx_mean_bytes_per_s=_received(nic),
        tx_mean_bytes_per_s=_sent(nic),
        link_bytes_per_s=nic.link_bytes_per_s,
        measured_bytes_per_s=nic.measured_bytes_per_s,
        capacity_bytes_per_s=_capacity(nic),
        counted=nic.counted,
        congestion=nic.congestion,
        utilisation=busy,
    )


def _side(world: World, role: Role, now: float) -> SideReport:
    """One role's sums, and its NICs by what they carry."""
    engines = world.engines.of(role)
    loads = world.engines.loads(role)
    silent = [
        now - (engine.connected_at if engine.reported_at is None else engine.reported_at)
        for engine in engines
    ]
    nics = _distinct(engines)
    storage = [nic for nic in nics if nic.role == "storage"]
    compute = [nic for nic in nics if nic.role == "compute"]
    link = sum(_capacity(nic) for nic in storage)
    reports = [(engine.register, engine.report) for engine in engines if engine.report]
    pages = sum(register.cache_pages for register, _ in reports)
    slots = sum(register.buffer_slots for register, _ in reports)
    return SideReport(
        engines=len(engines),
        accepting=sum(engine.accepts for engine in engines),
        reporting_engines=sum(
            engine.reported_at is not None and now - engine.reported_at <= LATELY_S for engine in engines
        ),
        sample_age_s=round(max(silent), 3) if silent else None,
        seq_e=sum(load.seq_e for load in loads),
        tok_e=sum(load.tok_e for load in loads),
        read_q=sum(engine.read_queue() for engine in engines),
        read_queue_s=_part(sum(_bytes_to_read(engine) for engine in engines), link),
        read_bytes_per_s=_sum(engine.read_rate.per_s() for engine in engines),
        storage_link_bytes_per_s=link,
        storage_busy_bytes_per_s=sum(_received(nic) for nic in storage),
        utilisation=Utilisation(storage=_utilisation(storage), compute=_utilisation(compute)),
        nics=NicClasses(storage=_quantiles(storage), compute=_quantiles(compute)),
        unknown_nics=sum(_busy(nic) is None for nic in nics),
        congestion=_congestion(nics),
        kv_cache_permille=_permille(pages - sum(report.free_pages for _, report in reports), pages),
        buffer_permille=_permille(slots - sum(report.free_slots for _, report in reports), slots),
        busy_permille=_mean_permille(engine.busy_rate.per_s() for engine in engines),
    )


def _distinct(engines: Iterable[Engine]) -> list[Nic]:
    """Each NIC once: engines that share a node, and its network, report the same ones."""
    found: dict[tuple[str, ...], Nic] = {}
    for engine in engines:
        place = engine.register.node or engine.register.group
        for nic in engine.report.nics if engine.report else ():
            found[place, nic.scope, nic.name] = nic
    return list(found.values())


def _bytes_to_read(engine: Engine) -> float:
    layout = engine.register.layout
    return engine.read_queue() / layout.block_tokens * layout.full_block_bytes


def _received(nic: Nic) -> float:
    """The mean, or of an engine that does not tell it the newest rate."""
    return nic.rx_bytes_per_s if nic.rx_mean_bytes_per_s is None else nic.rx_mean_bytes_per_s


def _sent(nic: Nic) -> float:
    return nic.tx_bytes_per_s if nic.tx_mean_bytes_per_s is None else nic.tx_mean_bytes_per_s


def _capacity(nic: Nic) -> float:
    """Bytes/s that count as full; 0: unknown, or the NIC's traffic is."""
    return (nic.capacity_bytes_per_s or nic.link_bytes_per_s) if nic.counted else 0.0


def _busy(nic: Nic) -> float | None:
    """Utilisation of the busier direction."""
    return _part(max(_received(nic), _sent(nic)), _capacity(nic))


def _utilisation(nics: Sequence[Nic]) -> float | None:
    known = [nic for nic in nics if _capacity(nic)]
    busy = sum(max(_received(nic), _sent(nic)) for nic in known)
    return _part(busy, sum(_capacity(nic) for nic in known))


def _congestion(nics: Sequence[Nic]) -> dict[str, int]:
    found: dict[str, int] = {}
    for nic in nics:
        for kind, total in nic.congestion.items():
            found[kind] = found.get(kind, 0) + total
    return found


def _quantiles(nics: Sequence[Nic]) -> Quantiles:
    """By nearest rank."""
    busy = sorted(value for nic in nics if (value := _busy(nic)) is not None)
    if not busy:
        return Quantiles()

    def at(percent: int) -> int:
        return round(1000 * busy[-(-percent * len(busy) // 100) - 1])

    return Quantiles(p50_permille=at(50), p95_permille=at(95))


def _read(world: World) -> ReadReport:
    totals, recent = world.totals, world.recent_reads
    read = totals.prefill_read_bytes + totals.decode_read_bytes
    return ReadReport(
        prefill_bytes=totals.prefill_read_bytes,
        decode_bytes=totals.decode_read_bytes,
        decode_share=_part(totals.decode_read_bytes, read),
        recent_decode_share=_part(sum(d for _, d in recent), sum(p + d for p, d in recent)),
        lost_blocks=totals.lost_blocks,
    )


def _part(of: float, whole: float) -> float | None:
    return of / whole if whole else None


def _permille(of: int, whole: int) -> int | None:
    return round(1000 * of / whole) if whole else None


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _mean_permille(values: Iterable[float | None]) -> int | None:
    known = [min(1.0, value) for value in values if value is not None]
    return round(1000 * fmean(known)) if known else None
