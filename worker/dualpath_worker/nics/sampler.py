"""Samples the NICs each second, in a thread of its own."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from dualpath_api.cluster import NicRule
from dualpath_api.wire import Nic
from dualpath_worker.nics.congestion import read_congestion
from dualpath_worker.nics.counters import Bytes
from dualpath_worker.nics.devices import Device, discover
from dualpath_worker.nics.ethtool import Ethtool
from dualpath_worker.nics.rates import Capacity, Mean, usable

log = logging.getLogger(__name__)

PERIOD_S = 1.0
CONGESTION_S = 5.0
"""Between readings of congestion counters: many files, and drivers ask their firmware for statistics."""

DISCOVER_S = 10.0
"""Between looks at speeds and states; devices that come or go are seen at once."""

_FASTER = 1.5  # than its link no counter runs, even if a window was measured too short

Statistics = Callable[[str], Mapping[str, int]]


class NicSampler:
    """Reads the counters each second; `latest` is the newest sample."""

    def __init__(
        self,
        rules: Sequence[NicRule],
        *,
        sysfs: Path = Path("/sys"),
        period_s: float | None = PERIOD_S,
        clock: Callable[[], float] = time.monotonic,
        statistics: Statistics | None = None,
    ) -> None:
        """`period_s` None: no thread, the owner calls `sample`. `statistics`: ethtool's, by interface."""
        self._rules, self._sysfs, self._clock = tuple(rules), sysfs, clock
        self._statistics = statistics or Ethtool().statistics
        self._reads_wait: Callable[[], bool] = lambda: False
        self._waited = False
        self._tracks: dict[str, _Track] = {}
        self._present: tuple[frozenset[str], ...] = ()
        self._looked = -DISCOVER_S
        self._warned = False
        self._stop = threading.Event()
        self.latest: tuple[Nic, ...] = ()
        self.sample()
        if period_s is not None:
            period = period_s
            threading.Thread(target=self._run, args=(period,), name="nics", daemon=True).start()

    def watch(self, reads_wait: Callable[[], bool]) -> None:
        """Windows at whose begin and end `reads_wait()` was true measure the capacity."""
        self._reads_wait = reads_wait

    def sample(self) -> tuple[Nic, ...]:
        """Read all devices now; rates are over the time since the sample before."""
        waiting = self._reads_wait()
        self._look()
        loaded, self._waited = waiting and self._waited, waiting
        nics = []
        for name, track in list(self._tracks.items()):
            try:
                nics.append(track.sample(self._clock(), loaded, self._statistics))
            except (OSError, ValueError):  # went away between listing and reading
                del self._tracks[name]
                self._present = ()
        self.latest = tuple(nics)
        return self.latest

    def close(self) -> None:
        """Stop the thread."""
        self._stop.set()

    def _run(self, period_s: float) -> None:
        while not self._stop.wait(period_s):
            try:
                self.sample()
            except Exception:
                log.exception("sampling the NICs failed")

    def _look(self) -> None:
        """Find the devices anew, if there are others than before or their speed may have changed."""
        now = self._clock()
        present = tuple(_names(self._sysfs / folder) for folder in ("class/net", "class/infiniband"))
        if present == self._present and now - self._looked < DISCOVER_S:
            return
        self._present, self._looked = present, now
        devices = discover(self._rules, self._sysfs)
        self._say_what_changed(devices)
        tracks = {}
        for device in devices:
            known = self._tracks.get(device.name)
            same = known is not None and known.device.counters == device.counters
            tracks[device.name] = known if known is not None and same else _Track(device)
            tracks[device.name].device = device
        self._tracks = tracks

    def _say_what_changed(self, devices: Sequence[Device]) -> None:
        found = {device.role for device in devices}
        lacking = [rule for rule in self._rules if rule.role not in found]
        if lacking and not self._warned:
            self._warned = True
            log.warning(
                "no NIC matches spec.nics %s; this machine has %s",
                {rule.match: rule.role for rule in lacking},
                sorted(frozenset().union(*self._present)),
            )
        before, now = self._tracks.keys(), {device.name for device in devices}
        if gone := before - now:
            log.warning("NICs have gone: %s", sorted(gone))
        for device in devices:
            if device.name not in before:
                log.info("NIC %s carries %s", device.name, device.role)
                if not device.counters:
                    log.warning("NIC %s has no counters: its traffic is unknown", device.name)


class _Track:
    """What is known of one device from earlier samples."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self._bytes = Bytes(device.counters)
        self._received, self._sent, self._capacity = Mean(), Mean(), Capacity()
        self._at: float | None = None
        self._congestion: dict[str, int] = {}
        self._congestion_at: float | None = None

    def sample(self, now: float, loaded: bool, statistics: Statistics) -> Nic:
        """Raises OSError or ValueError if the device has gone."""
        device = self.device
        seconds = 0.0 if self._at is None else now - self._at
        most = _FASTER * seconds * device.link_bytes_per_s or float("inf")
        new = self._bytes.read(most) if device.counters else None
        self._at = now
        rates = (0.0, 0.0)
        if new is not None and seconds > 0:
            rates = (new[0] / seconds, new[1] / seconds)
            self._received.add(rates[0], seconds)
            self._sent.add(rates[1], seconds)
            if loaded:
                self._capacity.add(rates[0] if device.role == "storage" else max(rates))
        if self._congestion_at is None or now - self._congestion_at >= CONGESTION_S:
            self._congestion_at = now
            tables = [statistics(name) for name in device.interfaces]
            self._congestion = read_congestion(device.congestion, tables)
        measured = self._capacity.measured
        received, sent = self._bytes.totals
        return Nic(
            name=device.name,
            role=device.role,
            rx_bytes=received,
            tx_bytes=sent,
            rx_bytes_per_s=rates[0],
            tx_bytes_per_s=rates[1],
            rx_mean_bytes_per_s=self._received.value,
            tx_mean_bytes_per_s=self._sent.value,
            link_bytes_per_s=device.link_bytes_per_s,
            measured_bytes_per_s=measured,
            capacity_bytes_per_s=usable(device.link_bytes_per_s, measured, trusted=device.trusted),
            counted=bool(device.counters),
            congestion=self._congestion,
            scope=device.scope,
        )


def _names(folder: Path) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder))  # noqa: PTH208 -- each second; Path objects cost more than the call
    except OSError:
        return frozenset()
