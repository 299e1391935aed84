"""What the network devices of this machine do, as the kernel counts it.

Devices and their roles come from the rules of the spec and never from guessing: the first rule whose
pattern matches a device's name gives its role, other devices are not counted. Sources, below /sys:
- Ethernet: class/net/<d>/statistics/{rx,tx}_bytes; speed in Mbit/s, -1 or an error where unknown (virtio).
- InfiniBand and RoCE: class/infiniband/<d>/ports/<p>/counters/port_{rcv,xmit}_data in words of 4 bytes;
  rate as text ("400 Gb/sec (4X NDR)"). RoCE traffic does not show in the Ethernet counters, so both matter.

Counters that go backwards (a driver was reloaded, or 32 bits wrapped) give one sample without a rate. A
device that has gone is left out until it is back.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from dualpath_api.cluster import NicRule
from dualpath_api.wire import Nic

log = logging.getLogger(__name__)

PERIOD_S = 1.0
_WORD = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One device that a rule names."""

    name: str
    rule: NicRule  # that names it
    counters: tuple[tuple[Path, Path], ...]  # (received, sent) of each port
    unit: int  # bytes of one count
    scope: str  # where its name is unique: a network namespace; "": the machine
    link_bytes_per_s: float  # 0: unknown

    @property
    def role(self) -> str:
        """What it carries: storage or compute."""
        return self.rule.role

    @property
    def infiniband(self) -> bool:
        """Whether it is an RDMA device, InfiniBand or RoCE, and not a network interface."""
        return self.unit == _WORD

    @property
    def ucx_name(self) -> str:
        """The name that UCX knows: with the port, where the device has ports."""
        return f"{self.name}:1" if self.infiniband else self.name

    def read(self) -> tuple[int, int]:
        """Bytes received and sent since the driver was loaded. Raises OSError or ValueError."""
        received = sum(int(rx.read_text()) for rx, _ in self.counters)
        sent = sum(int(tx.read_text()) for _, tx in self.counters)
        return received * self.unit, sent * self.unit


def discover(rules: Sequence[NicRule], sysfs: Path = Path("/sys")) -> list[Device]:
    """All present devices that a rule names, by name."""
    found = []
    for build, directory in ((_ethernet, sysfs / "class/net"), (_infiniband, sysfs / "class/infiniband")):
        for path in sorted(directory.glob("*")):
            rule = next((rule for rule in rules if fnmatchcase(path.name, rule.match)), None)
            if rule is not None and (device := build(path, rule)) is not None:
                found.append(device)
    return sorted(found, key=lambda device: device.name)


class NicSampler:
    """Reads the counters each second in a thread of its own; `latest` is the newest sample."""

    def __init__(
        self,
        rules: Sequence[NicRule],
        *,
        sysfs: Path = Path("/sys"),
        period_s: float | None = PERIOD_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`period_s` None: no thread, the owner calls `sample`."""
        self._rules, self._sysfs, self._clock = tuple(rules), sysfs, clock
        self._before: dict[str, tuple[float, int, int]] = {}
        self._named: frozenset[str] = frozenset()
        self._warned = False
        self._stop = threading.Event()
        self.latest: tuple[Nic, ...] = ()
        self.sample()
        if period_s is not None:
            period = period_s
            threading.Thread(target=self._run, args=(period,), name="nics", daemon=True).start()

    def sample(self) -> tuple[Nic, ...]:
        """Read all devices now; rates are over the time since the sample before."""
        devices = discover(self._rules, self._sysfs)
        self._say_what_changed(devices)
        nics = [nic for device in devices if (nic := self._one(device)) is not None]
        present = {nic.name for nic in nics}
        self._before = {name: value for name, value in self._before.items() if name in present}
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

    def _one(self, device: Device) -> Nic | None:
        try:
            rx, tx = device.read()
        except (OSError, ValueError):  # went away between listing and reading
            return None
        now = self._clock()
        then, rx_before, tx_before = self._before.get(device.name, (now, rx, tx))
        seconds = now - then
        usable = seconds > 0 and rx >= rx_before and tx >= tx_before
        self._before[device.name] = (now, rx, tx)
        return Nic(
            name=device.name,
            role=device.role,
            rx_bytes=rx,
            tx_bytes=tx,
            rx_bytes_per_s=(rx - rx_before) / seconds if usable else 0.0,
            tx_bytes_per_s=(tx - tx_before) / seconds if usable else 0.0,
            link_bytes_per_s=device.link_bytes_per_s,
            scope=device.scope,
        )

    def _say_what_changed(self, devices: list[Device]) -> None:
        named = frozenset(device.name for device in devices)
        if not named and not self._warned:
            self._warned = True
            directories = (self._sysfs / "class/net", self._sysfs / "class/infiniband")
            present = sorted(path.name for directory in directories for path in directory.glob("*"))
            patterns = [rule.match for rule in self._rules]
            log.warning("no NIC matches spec.nics %s; this machine has %s", patterns, present)
        if gone := self._named - named:
            log.warning("NICs have gone: %s", sorted(gone))
        if new := named - self._named:
            log.info("NICs: %s", {device.name: device.role for device in devices if device.name in new})
        self._named = named


def _ethernet(path: Path, rule: NicRule) -> Device | None:
    statistics = path / "statistics"
    if not (statistics / "rx_bytes").exists():
        return None
    speed = _number(path / "speed") or 0.0
    return Device(
        name=path.name,
        rule=rule,
        counters=((statistics / "rx_bytes", statistics / "tx_bytes"),),
        unit=1,
        scope=_namespace(),
        link_bytes_per_s=(rule.link_bps or max(0.0, speed) * 1e6) / 8,
    )


def _infiniband(path: Path, rule: NicRule) -> Device | None:
    ports = sorted(port for port in path.glob("ports/*") if (port / "counters/port_rcv_data").exists())
    if not ports:
        return None
    return Device(
        name=path.name,
        rule=rule,
        counters=tuple((p / "counters/port_rcv_data", p / "counters/port_xmit_data") for p in ports),
        unit=_WORD,
        scope="",
        link_bytes_per_s=(rule.link_bps or sum(_rate(port) for port in ports)) / 8,
    )


def _rate(port: Path) -> float:
    """Bit/s of an InfiniBand port, from text like "400 Gb/sec (4X NDR)"; 0: unknown or down."""
    try:
        state, text = (port / "state").read_text(), (port / "rate").read_text()
    except OSError:
        return 0.0
    match = re.match(r"\s*([\d.]+)\s*Gb/sec", text)
    return float(match[1]) * 1e9 if match and "ACTIVE" in state else 0.0


def _namespace() -> str:
    """Name of this process's network namespace."""
    try:
        return str(Path("/proc/self/ns/net").readlink())
    except OSError:
        return ""


def _number(path: Path) -> float | None:
    try:
        return float(path.read_text())
    except (OSError, ValueError):  # EINVAL: the link is down or the driver does not know
        return None
