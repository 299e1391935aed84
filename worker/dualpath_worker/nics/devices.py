"""Which devices the rules name, and which files count their bytes.

- Ethernet: class/net/<d>/statistics/{rx,tx}_bytes. `speed` is in Mbit/s, -1 or an error where unknown;
  devices without hardware below them (veth, bridges) tell a speed that nothing keeps to.
- InfiniBand: class/infiniband/<d>/ports/<p>/counters/port_{rcv,xmit}_data, in words of 4 bytes; IP over it is
  part of that. `rate` is a text ("400 Gb/sec (4X NDR)").
- RoCE: RDMA does not pass the network stack, so a port's traffic is the sum of what the RDMA device and what
  its network interface count. mlx5 counts in counters/port_*_data, bnxt_re in hw_counters/{rx,tx}_bytes.

A virtual function, or a bond, may have an RDMA device without any counter: it is there, and not counted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from dualpath_api.cluster import NicRule
from dualpath_api.wire import StorageNic
from dualpath_worker.nics.congestion import congestion_files

WORD = 4
"""Bytes of one count of an InfiniBand data counter."""

_INFINIBAND, _ETHERNET = "InfiniBand", "Ethernet"
_DATA = (
    ("counters/port_rcv_data", "counters/port_xmit_data", WORD),
    ("hw_counters/rx_bytes", "hw_counters/tx_bytes", 1),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """Two files that count the bytes of one direction each, in units."""

    received: Path
    sent: Path
    unit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One device that a rule names."""

    name: str
    rule: NicRule  # that names it
    infiniband: bool  # an RDMA device, InfiniBand or RoCE, and not a network interface
    counters: tuple[Counted, ...]  # added up; none: what it does cannot be known
    congestion: tuple[tuple[str, Path], ...]  # (kind, file)
    interfaces: tuple[str, ...]  # network interfaces on its ports
    scope: str  # where its name is unique: a network namespace; "": the machine
    link_bytes_per_s: float  # as the rule or the kernel says; 0: unknown
    trusted: bool  # whether that is the speed of real hardware, or was given by the rule

    @property
    def role(self) -> str:
        """What it carries: storage or compute."""
        return self.rule.role

    @property
    def ucx_name(self) -> str:
        """The name that UCX knows: with the port, where the device has ports."""
        return f"{self.name}:1" if self.infiniband else self.name


def discover(rules: Sequence[NicRule], sysfs: Path = Path("/sys")) -> list[Device]:
    """All present devices that a rule names, by name.

    An interface and an RDMA device of one port count once if both are named for the same role.
    """
    tree = _Tree(sysfs, rules)
    found = [_rdma(tree, name, rule) for name, rule in tree.rdma.items()]
    found += [device for name, rule in tree.nets.items() if (device := _net(tree, name, rule)) is not None]
    return sorted(found, key=lambda device: device.name)


def standing(rules: Sequence[NicRule], devices: Sequence[Device]) -> StorageNic:
    """Whether this machine has a storage NIC of its own, as far as the rules tell."""
    if all(rule.role != "storage" for rule in rules):
        return StorageNic.UNNAMED
    return StorageNic.PRESENT if any(d.role == "storage" for d in devices) else StorageNic.MISSING


class _Tree:
    """What /sys/class has, and which of it the rules name."""

    def __init__(self, sysfs: Path, rules: Sequence[NicRule]) -> None:
        self.net_class, self.rdma_class = sysfs / "class/net", sysfs / "class/infiniband"
        self._rules = rules
        self.nets = self._named(self.net_class)
        self.rdma = self._named(self.rdma_class)

    def _named(self, directory: Path) -> dict[str, NicRule]:
        names = sorted(path.name for path in directory.glob("*"))
        return {name: rule for name in names if (rule := self._rule(name)) is not None}

    def _rule(self, name: str) -> NicRule | None:
        return next((rule for rule in self._rules if fnmatchcase(name, rule.match)), None)

    def ports(self, device: str) -> list[Path]:
        return sorted(self.rdma_class.joinpath(device, "ports").glob("*"))

    def interfaces(self, device: str) -> list[str]:
        """Network interfaces on the ports of an RDMA device."""
        return sorted(path.name for path in self.rdma_class.joinpath(device, "device/net").glob("*"))

    def rdma_of(self, interface: str) -> list[str]:
        """RDMA devices on the port of a network interface."""
        return sorted(path.name for path in self.net_class.joinpath(interface, "device/infiniband").glob("*"))

    def data(self, device: str) -> list[Counted]:
        """Where an RDMA device counts its bytes; empty: nowhere."""
        found = []
        for port in self.ports(device):
            for received, sent, unit in _DATA:
                if (port / received).exists():
                    found.append(Counted(received=port / received, sent=port / sent, unit=unit))
                    break
        return found

    def statistics(self, interface: str) -> list[Counted]:
        directory = self.net_class / interface / "statistics"
        if not (directory / "rx_bytes").exists():
            return []
        return [Counted(received=directory / "rx_bytes", sent=directory / "tx_bytes", unit=1)]

    def over_ethernet(self, device: str) -> bool:
        return any(_text(port / "link_layer") == _ETHERNET for port in self.ports(device))


def _rdma(tree: _Tree, name: str, rule: NicRule) -> Device:
    ports, interfaces = tree.ports(name), tree.interfaces(name)
    counters = tree.data(name)
    if tree.over_ethernet(name) and counters:
        alone = [net for net in interfaces if net not in tree.nets or tree.nets[net].role == rule.role]
        counters += [counted for net in alone for counted in tree.statistics(net)]
    return Device(
        name=name,
        rule=rule,
        infiniband=True,
        counters=tuple(counters),
        congestion=congestion_files(ports, [tree.net_class / net for net in interfaces]),
        interfaces=tuple(interfaces),
        scope="",
        link_bytes_per_s=(rule.link_bps or sum(_rate(port) for port in ports)) / 8,
        trusted=True,
    )


def _net(tree: _Tree, name: str, rule: NicRule) -> Device | None:
    """None: it is no interface, or an RDMA device of the same port stands for it."""
    path, rdma = tree.net_class / name, tree.rdma_of(name)
    counters = tree.statistics(name)
    if not counters or any(tree.rdma[each].role == rule.role for each in rdma if each in tree.rdma):
        return None
    unnamed = [each for each in rdma if each not in tree.rdma]
    data = [counted for each in unnamed for counted in tree.data(each)]
    if data and not any(tree.over_ethernet(each) for each in unnamed):
        counters = []  # IP over InfiniBand: the port counts it as well
    speed = max(0.0, _number(path / "speed") or 0.0) * 1e6
    return Device(
        name=name,
        rule=rule,
        infiniband=False,
        counters=(*counters, *data),
        congestion=congestion_files([port for each in unnamed for port in tree.ports(each)], [path]),
        interfaces=(name,),
        scope=_namespace(),
        link_bytes_per_s=(rule.link_bps or speed) / 8,
        trusted=bool(rule.link_bps) or (path / "device").exists(),
    )


def _rate(port: Path) -> float:
    """Bit/s of an InfiniBand port, from text like "400 Gb/sec (4X NDR)"; 0: unknown or down."""
    match = re.match(r"([\d.]+)\s*Gb/sec", _text(port / "rate"))
    return float(match[1]) * 1e9 if match and "ACTIVE" in _text(port / "state") else 0.0


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


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
