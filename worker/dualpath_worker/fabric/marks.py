"""Reads back how traffic is marked and weighed on this machine, and gives the lines that are missing.

All of it is advice: an engine runs without, only its collectives are then not ahead of KV.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from dualpath_api.cluster import ClusterSpec
from dualpath_api.errors import UnsupportedError
from dualpath_api.spec.fabric import TrafficClasses
from dualpath_worker.fabric import queues
from dualpath_worker.fabric.classes import ethernet_lines, kv_class, overridden, subnet_manager_lines
from dualpath_worker.fabric.findings import Finding, Machine, text_of
from dualpath_worker.nics import Device, discover

LINK_PART = 0.97
"""Of a link's speed that HTB gives out, so that packets wait in its queues and not behind them."""


def check_classes(spec: ClusterSpec, environ: Mapping[str, str], machine: Machine) -> list[Finding]:
    """What keeps the spec's traffic classes from having an effect; empty without any classes."""
    classes = spec.fabric.traffic_classes
    if classes is None:
        return []
    found = [_overridden(name, value) for name, value in sorted(overridden(classes, environ).items())]
    devices = [device for device in discover(spec.nics, machine.sysfs) if device.role == "compute"]
    rdma = [device for device in devices if device.infiniband]
    for device in rdma:
        found += _global_class(device, classes, machine)
    found += _weights(rdma, classes, machine)
    return found + _over_tcp([device for device in devices if not device.infiniband], classes)


def _overridden(name: str, value: str) -> Finding:
    return Finding(
        what=f"{name}={value} is in the environment and not what fabric.trafficClasses says",
        cause="what the environment says wins",
        remedy=f"unset {name}, or set fabric.trafficClasses alike",
        advice=True,
    )


def _global_class(device: Device, classes: TrafficClasses, machine: Machine) -> list[Finding]:
    """A class that was set for all RDMA of a port replaces what UCX asks for."""
    wanted, found = kv_class(classes).traffic_class, []
    for path in sorted((machine.sysfs / "class/infiniband" / device.name / "tc").glob("*/traffic_class")):
        match = re.search(r"tclass=(\d+)", text_of(path))
        if match and int(match[1]) != wanted:
            found.append(
                Finding(
                    what=f"{device.name} marks all RDMA with traffic class {match[1]}, KV as well",
                    cause=f"it is set in {path}, which applications cannot override",
                    remedy=f"echo tclass=-1 > {path}",
                    advice=True,
                )
            )
    return found


def _weights(devices: Sequence[Device], classes: TrafficClasses, machine: Machine) -> list[Finding]:
    """NICs, switches and subnet manager weigh the marks; none of them can be asked from here."""
    layers = {
        text_of(path)
        for device in devices
        for path in (machine.sysfs / "class/infiniband" / device.name / "ports").glob("*/link_layer")
    }
    lines = []
    if "InfiniBand" in layers:
        lines += ["in opensm.conf of the subnet manager:", subnet_manager_lines(classes)]
    if "Ethernet" in layers:
        lines += ["on each host, and alike on the switches:"]
        lines += [ethernet_lines(classes, name) for device in devices for name in device.interfaces]
    if not lines:
        return []
    return [
        Finding(
            what="whether the network weighs the traffic classes cannot be read back from here",
            cause="marks are set by each sender, but switches, NICs and the subnet manager give them a worth",
            remedy="\n".join(["see that this is set once:", *lines]),
            advice=True,
        )
    ]


def _over_tcp(devices: Sequence[Device], classes: TrafficClasses) -> list[Finding]:
    found = []
    try:
        if devices and not queues.marks():
            found.append(_unmarked(classes, "nftables has no table of that name"))
    except UnsupportedError as error:
        found.append(_unmarked(classes, error.cause))
    for device in devices:
        try:
            if not queues.queues(device.name):
                found.append(_unshaped(device, classes, "it has no queues of ours"))
        except UnsupportedError as error:
            found.append(_unshaped(device, classes, error.cause))
    return found


def _unmarked(classes: TrafficClasses, cause: str) -> Finding:
    return Finding(
        what="TCP is not known to be marked with the traffic classes",
        cause=cause,
        remedy=f"nft -f - <<END\n{queues.nft_lines(classes)}\nEND",
        advice=True,
    )


def _unshaped(device: Device, classes: TrafficClasses, cause: str) -> Finding:
    rate = int(LINK_PART * 8 * device.link_bytes_per_s)
    lines = "\n".join(f"tc {line}" for line in queues.tc_lines(classes, device.name, rate))
    return Finding(
        what=f"{device.name} is not known to weigh the traffic classes",
        cause=cause,
        remedy=lines if rate else "give the NIC's linkBps in spec.nics, to see the lines for it",
        advice=True,
    )
