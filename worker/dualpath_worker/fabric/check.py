"""Are the NICs there that the spec promises, are they up, and can RDMA use them?"""

from __future__ import annotations

import resource
from collections.abc import MutableMapping, Sequence
from pathlib import Path

from dualpath_api.cluster import ClusterSpec, NicRule
from dualpath_worker.fabric.findings import Finding, Machine, text_of
from dualpath_worker.nics import Device, discover

IPC_LOCK = 14
"""Number of CAP_IPC_LOCK, as in linux/capability.h."""

OVER_TCP = "tcp,cma,self"


def check_fabric(rules: Sequence[NicRule], *, rdma: bool, machine: Machine) -> list[Finding]:
    """What is not as the rules say, and with `rdma` what keeps RDMA from working."""
    devices = discover(rules, machine.sysfs)
    found = []
    for rule in rules:
        mine = [device for device in devices if device.rule == rule]
        if not mine:
            found.append(_missing(rule, machine))
        elif not any(_up(device, machine) for device in mine):
            found.append(_down(rule, mine))
    return found + (_rdma(devices, machine) if rdma else [])


def fall_back(spec: ClusterSpec, environ: MutableMapping[str, str], machine: Machine) -> list[Finding]:
    """Where the spec lets a broken fabric degrade: use TCP, and say why; empty: nothing has changed."""
    if not spec.fabric.rdma or spec.fabric.on_mismatch != "Degrade":
        return []
    found = check_fabric(spec.nics, rdma=True, machine=machine)
    if found:
        environ.setdefault("UCX_TLS", OVER_TCP)
    return found


def _missing(rule: NicRule, machine: Machine) -> Finding:
    directories = (machine.sysfs / "class/net", machine.sysfs / "class/infiniband")
    present = sorted(path.name for directory in directories for path in directory.glob("*"))
    return Finding(
        what=f"no {rule.role} NIC matches {rule.match!r}",
        cause=f"this Pod has {', '.join(present) or 'no network device'}",
        remedy="correct spec.nics, or give the Pods such a NIC with spec.fabric",
    )


def _down(rule: NicRule, devices: Sequence[Device]) -> Finding:
    names = ", ".join(device.name for device in devices)
    return Finding(
        what=f"no {rule.role} NIC that matches {rule.match!r} is up",
        cause=f"the link of {names} is down",
        remedy="look at cable, switch port and driver (`ip link`, `ibstat`), or use another node",
    )


def _up(device: Device, machine: Machine) -> bool:
    if device.infiniband:
        ports = (machine.sysfs / "class/infiniband" / device.name / "ports").glob("*")
        return any("ACTIVE" in text_of(port / "state") for port in ports)
    state = text_of(machine.sysfs / "class/net" / device.name / "operstate")
    return state == "up" or (state == "unknown" and _carrier(device, machine))


def _carrier(device: Device, machine: Machine) -> bool:
    """Virtual devices know no state, but whether they carry."""
    return text_of(machine.sysfs / "class/net" / device.name / "carrier") == "1"


def _rdma(devices: Sequence[Device], machine: Machine) -> list[Finding]:
    found = []
    verbs = {
        text_of(path / "ibdev"): machine.dev / "infiniband" / path.name
        for path in sorted((machine.sysfs / "class/infiniband_verbs").glob("uverbs*"))
    }
    usable = {name for name, node in verbs.items() if node.exists()}
    wanted = {device.name for device in devices if device.infiniband}
    if not usable or wanted - usable:
        lacking = ", ".join(sorted(wanted - usable)) or "any device"
        found.append(
            Finding(
                what=f"RDMA cannot use {lacking}",
                cause="the Pod has no /dev/infiniband/uverbs* of it",
                remedy="let a device plugin or DRA add the device, or set fabric.rdma: false",
            )
        )
    if machine.memlock != resource.RLIM_INFINITY and not _may_lock(machine.status):
        found.append(
            Finding(
                what="RDMA cannot lock the block buffers in memory",
                cause=f"the limit is {machine.memlock} bytes, and CAP_IPC_LOCK is not in effect; Kubernetes "
                "gives added capabilities to the root user only",
                remedy="raise the container runtime's limit (LimitMEMLOCK=infinity), or run the engines as "
                "root with IPC_LOCK",
            )
        )
    return found


def _may_lock(status: Path) -> bool:
    effective = next(
        (line for line in text_of(status).splitlines() if line.startswith("CapEff:")), "CapEff: 0"
    )
    return bool(int(effective.split()[1], 16) >> IPC_LOCK & 1)
