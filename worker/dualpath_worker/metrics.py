"""Prometheus series of an engine process. The table in docs/reference/metrics.md is made from `METRICS`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from dualpath_api.wire import Nic
from dualpath_worker.storage.base import StoreStats

STEP_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

METRICS: Final[tuple[tuple[str, str, str, tuple[str, ...]], ...]] = (
    ("counter", "dualpath_path_read_bytes", "KV bytes read from storage by this side.", ("path",)),
    (
        "counter",
        "dualpath_storage_errors",
        "Blocks that storage did not give or take, by kind: corrupt, read, write, full (no room), match.",
        ("kind",),
    ),
    ("counter", "dualpath_storage_tier_bytes", "KV bytes read from the memory in front of storage.", ()),
    ("counter", "dualpath_storage_skipped_blocks", "Blocks not asked for, as their store node fails.", ()),
    ("counter", "dualpath_storage_written_bytes", "KV bytes written to storage.", ()),
    ("counter", "dualpath_storage_evicted_bytes", "KV bytes that this process evicted from storage.", ()),
    ("counter", "dualpath_storage_dropped_blocks", "Blocks dropped from a full write queue.", ()),
    ("gauge", "dualpath_storage_used_bytes", "Bytes of the whole store.", ()),
    ("gauge", "dualpath_storage_limit_bytes", "Bytes that the store may take.", ()),
    ("counter", "dualpath_transfer_errors", "Transfers between engines that did not succeed.", ("kind",)),
    ("counter", "dualpath_transfer_bytes", "KV bytes pulled from other engines.", ("role",)),
    ("gauge", "dualpath_kv_blocks_used", "Blocks or pages held by live requests.", ("pool",)),
    ("gauge", "dualpath_kv_blocks_quarantined", "Blocks that wait for an abandoned transfer.", ("pool",)),
    ("gauge", "dualpath_kv_blocks_total", "Blocks or pages of the pool.", ("pool",)),
    ("gauge", "dualpath_nic_link_bytes_per_second", "Link speed of a NIC; 0: unknown.", ("nic", "role")),
    (
        "gauge",
        "dualpath_nic_capacity_bytes_per_second",
        "What counts as full: the link, or what a NIC of unknown link has carried under load; 0: unknown.",
        ("nic", "role"),
    ),
    (
        "gauge",
        "dualpath_nic_utilization_ratio",
        "Mean rate over capacity, the busier direction; no sample while either is unknown.",
        ("nic", "role"),
    ),
    (
        "counter",
        "dualpath_nic_congestion",
        "What a crowded network did to a NIC, by kind (docs/networks.md).",
        ("nic", "role", "kind"),
    ),
    ("counter", "dualpath_nic_bytes", "Bytes of a NIC, all traffic.", ("nic", "role", "dir")),
    ("histogram", "dualpath_engine_step_seconds", "Time of one compute step.", ("kind",)),
    ("histogram", "dualpath_decode_batch_size", "Sequences of a decode step.", ()),
)


class Metrics:
    """All series of one engine process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        made = {name: self._make(kind, name, text, labels) for kind, name, text, labels in METRICS}
        self._made = made
        self._counted: dict[tuple[str, ...], float] = {}
        self.path_read_bytes = self._counter("dualpath_path_read_bytes")
        self.storage_errors = self._counter("dualpath_storage_errors")
        self.transfer_errors = self._counter("dualpath_transfer_errors")
        self.transfer_bytes = self._counter("dualpath_transfer_bytes")
        self.busy_s = 0.0
        """Spent computing, since start."""
        self.batch_size = self._histogram("dualpath_decode_batch_size")

    def computed(self, kind: str, seconds: float) -> None:
        """One step is done. Called by the one thread that computes."""
        self._histogram("dualpath_engine_step_seconds").labels(kind).observe(seconds)
        self.busy_s += seconds

    def pool(self, pool: str, used: int, quarantined: int, total: int) -> None:
        """Set the gauges of one pool ("buffer" or "cache")."""
        self._gauge("dualpath_kv_blocks_used").labels(pool).set(used)
        self._gauge("dualpath_kv_blocks_quarantined").labels(pool).set(quarantined)
        self._gauge("dualpath_kv_blocks_total").labels(pool).set(total)

    def storage(self, stats: StoreStats) -> None:
        """What the store has counted since start."""
        for kind, total in {
            "corrupt": stats.corrupt_blocks,
            "read": stats.read_errors,
            "write": stats.write_errors,
            "full": stats.refused_blocks,
        }.items():
            self._up_to("dualpath_storage_errors", total, kind)
        self._up_to("dualpath_storage_tier_bytes", stats.tier_bytes)
        self._up_to("dualpath_storage_skipped_blocks", stats.skipped_blocks)
        self._up_to("dualpath_storage_written_bytes", stats.written_bytes)
        self._up_to("dualpath_storage_evicted_bytes", stats.evicted_bytes)
        self._gauge("dualpath_storage_used_bytes").set(stats.used_bytes)
        self._gauge("dualpath_storage_limit_bytes").set(stats.limit_bytes)

    def dropped_blocks(self, total: int) -> None:
        """Blocks that the write queue has dropped since start."""
        self._up_to("dualpath_storage_dropped_blocks", total)

    def nics(self, sample: Sequence[Nic]) -> None:
        """The newest sample of the NICs; a counter that went backwards counts from there."""
        for nic in sample:
            labels, capacity = (nic.name, nic.role), nic.capacity_bytes_per_s
            self._gauge("dualpath_nic_link_bytes_per_second").labels(*labels).set(nic.link_bytes_per_s)
            self._gauge("dualpath_nic_capacity_bytes_per_second").labels(*labels).set(capacity)
            for kind, total in nic.congestion.items():
                self._up_to("dualpath_nic_congestion", total, *labels, kind)
            if not nic.counted:
                continue
            self._up_to("dualpath_nic_bytes", nic.rx_bytes, *labels, "rx")
            self._up_to("dualpath_nic_bytes", nic.tx_bytes, *labels, "tx")
            if capacity:
                busy = max(nic.rx_mean_bytes_per_s or 0.0, nic.tx_mean_bytes_per_s or 0.0) / capacity
                self._gauge("dualpath_nic_utilization_ratio").labels(*labels).set(busy)

    def _up_to(self, name: str, total: float, *labels: str) -> None:
        """Bring a counter to a total that somebody else keeps."""
        key = (name, *labels)
        before = self._counted.get(key, 0.0)
        counter = self._counter(name).labels(*labels) if labels else self._counter(name)
        counter.inc(total - before if total >= before else total)
        self._counted[key] = total

    def _make(self, kind: str, name: str, text: str, labels: tuple[str, ...]) -> Counter | Gauge | Histogram:
        if kind == "counter":
            return Counter(name, text, labels, registry=self.registry)
        if kind == "gauge":
            return Gauge(name, text, labels, registry=self.registry)
        buckets = (1, 2, 4, 8, 16, 32, 64, 128, 256) if name.endswith("_size") else STEP_BUCKETS
        return Histogram(name, text, labels, registry=self.registry, buckets=buckets)

    def _counter(self, name: str) -> Counter:
        made = self._made[name]
        assert isinstance(made, Counter)
        return made

    def _gauge(self, name: str) -> Gauge:
        made = self._made[name]
        assert isinstance(made, Gauge)
        return made

    def _histogram(self, name: str) -> Histogram:
        made = self._made[name]
        assert isinstance(made, Histogram)
        return made
