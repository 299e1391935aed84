"""What a gateway reports to whoever operates its cluster: `GET /control/v1/report`, as JSON in camelCase.

Every field has a default and unknown ones are ignored, so that gateway and operator may be of different
versions. Rates are bytes per second over about 30 seconds, shares are permille, ages and waits are seconds.
"""

from __future__ import annotations

import msgspec

from dualpath_api.wire import Role


class Part(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Base of all parts: camelCase, immutable."""


class NicReport(Part, frozen=True, kw_only=True):
    """One NIC as its engine saw it last, all traffic."""

    name: str = ""
    role: str = ""  # storage | compute
    rx_bytes: int = 0
    tx_bytes: int = 0
    rx_bytes_per_s: float = 0.0
    tx_bytes_per_s: float = 0.0
    rx_mean_bytes_per_s: float = 0.0  # over some seconds
    tx_mean_bytes_per_s: float = 0.0
    link_bytes_per_s: float = 0.0  # 0: unknown
    measured_bytes_per_s: float = 0.0  # what it carried while reads were waiting; 0: not measured
    capacity_bytes_per_s: float = 0.0  # what counts as full; 0: unknown
    counted: bool = True  # False: it has no counters
    congestion: dict[str, int] = {}  # totals by kind, as in dualpath_nic_congestion_total
    utilisation: float | None = None  # mean of the busier direction over capacity; None: unknown


class EngineReport(Part, frozen=True, kw_only=True):
    """One connected engine. It is admitted once its state is `serving`."""

    id: str = ""
    role: Role = Role.PREFILL
    revision: str = ""
    pod: str = ""
    pod_uid: str = ""
    node: str = ""
    group: str = ""
    rank: int = 0
    incarnation: str = ""
    pid: int = 0
    metrics_url: str = ""
    state: str = ""  # serving | draining | drained
    accept_new: bool = True
    serve_reads: bool = True
    in_flight: int = 0
    serving_reads: int = 0
    drained: bool = False  # proven: takes nothing, has nothing, and is read by nobody
    report_age_s: float | None = None  # None: it has not reported yet
    seq_e: int = 0
    tok_e: int = 0
    read_q: int = 0
    read_bytes_queued: int = 0
    read_bytes_total: int = 0
    read_bytes_per_s: float | None = None
    busy_permille: int | None = None  # of its time, computing
    buffer_slots: int = 0
    free_slots: int = 0
    cache_pages: int = 0
    free_pages: int = 0
    quarantined: int = 0
    nics: tuple[NicReport, ...] = ()


class Quantiles(Part, frozen=True, kw_only=True):
    """Of the utilisation of NICs; None without a NIC whose link is known."""

    p50_permille: int | None = None
    p95_permille: int | None = None


class NicClasses(Part, frozen=True, kw_only=True):
    """By what the NICs carry."""

    storage: Quantiles = Quantiles()
    compute: Quantiles = Quantiles()


class Utilisation(Part, frozen=True, kw_only=True):
    """Traffic over links, summed over the NICs of a side; None: no link is known."""

    storage: float | None = None
    compute: float | None = None


class SideReport(Part, frozen=True, kw_only=True):
    """All engines of one role."""

    engines: int = 0
    accepting: int = 0
    reporting_engines: int = 0  # heard of lately
    sample_age_s: float | None = None  # of the engine that is silent for longest; None without engines
    seq_e: int = 0
    tok_e: int = 0
    read_q: int = 0
    read_queue_s: float | None = None  # what waits to be read, over the links of the storage NICs
    read_bytes_per_s: float | None = None  # by these engines
    storage_link_bytes_per_s: float = 0.0  # capacity of the storage NICs, where it is known
    storage_busy_bytes_per_s: float = 0.0  # received by the storage NICs, all traffic
    utilisation: Utilisation = Utilisation()
    nics: NicClasses = NicClasses()
    unknown_nics: int = 0  # without a known capacity, or without counters
    congestion: dict[str, int] = {}  # of all NICs, by kind
    kv_cache_permille: int | None = None  # used pages; None for prefill
    buffer_permille: int | None = None  # used slots
    busy_permille: int | None = None  # mean of the engines


class SidesReport(Part, frozen=True, kw_only=True):
    """Both sides."""

    prefill: SideReport = SideReport()
    decode: SideReport = SideReport()


class QueueReport(Part, frozen=True, kw_only=True):
    """Requests that have no engines yet, and those that have."""

    waiting: int = 0
    running: int = 0
    oldest_s: float = 0.0  # how long the longest waiting one has waited
    turned_away: int = 0  # since start, as there were no engines for them


class ReadReport(Part, frozen=True, kw_only=True):
    """What was read from storage; shares are the decode side's part of the bytes."""

    prefill_bytes: int = 0
    decode_bytes: int = 0
    decode_share: float | None = None
    recent_decode_share: float | None = None
    lost_blocks: int = 0


class TuningReport(Part, frozen=True, kw_only=True):
    """The tuning in force, as in `PUT /control/v1/tuning`."""

    path_policy: str = "Auto"
    bias_tokens: int = 0
    decode_min_permille: int = 0
    decode_max_permille: int = 1000


class RevisionReport(Part, frozen=True, kw_only=True):
    """Engines of one revision."""

    revision: str = ""
    prefill: int = 0
    decode: int = 0
    complete: bool = False  # can serve a request


class ControlReport(Part, frozen=True, kw_only=True):
    """The whole report."""

    engines: tuple[EngineReport, ...] = ()
    sides: SidesReport = SidesReport()
    queue: QueueReport = QueueReport()
    revisions: tuple[RevisionReport, ...] = ()
    prompt_tokens: int = 0
    hit_tokens: int = 0
    hit_ratio: float | None = None
    recent_hit_permille: int | None = None  # of the newest requests
    read: ReadReport = ReadReport()
    tuning: TuningReport = TuningReport()


_decoder = msgspec.json.Decoder(ControlReport)


def encode_report(part: Part) -> bytes:
    """A report, or a part of one, as JSON."""
    return msgspec.json.encode(part)


def decode_report(data: bytes) -> ControlReport:
    """Raises msgspec.DecodeError on anything else."""
    return _decoder.decode(data)
