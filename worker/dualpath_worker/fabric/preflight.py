"""Before an engine registers: does the way to storage leave by a storage NIC, do the peers answer, how fast?

Peers are told by DUALPATH_FABRIC_PEERS, "NIC=ADDRESS,NIC=ADDRESS", or by flags: an engine that has not
registered knows none. Any answer of a peer's address counts, also that a port is closed there.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from dualpath_api.cluster import ClusterSpec
from dualpath_api.errors import SpecError, UnsupportedError
from dualpath_api.spec.fabric import FabricMode, TrafficClasses
from dualpath_worker.addresses import address_of, device_of
from dualpath_worker.fabric.check import check_fabric
from dualpath_worker.fabric.findings import Finding, Machine, text_of
from dualpath_worker.fabric.probe import ProbeError, measure
from dualpath_worker.nics import Device, discover

PEERS = "DUALPATH_FABRIC_PEERS"
ANSWER_S = 2.0
_CLOSED_PORT = 9  # discard: nobody listens, so the answer is a refusal
_NETWORK_FILE_SYSTEMS = {"nfs", "nfs4", "ceph", "lustre", "glusterfs", "beegfs"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """An address that must answer through a network interface of ours."""

    nic: str
    address: str


def parse_peers(text: str) -> tuple[Peer, ...]:
    """From "NIC=ADDRESS,NIC=ADDRESS". Raises SpecError."""
    found = []
    for item in filter(None, (part.strip() for part in text.split(","))):
        nic, equals, address = item.partition("=")
        if not (nic and equals and address):
            raise SpecError(
                f"the peer {item!r} cannot be read",
                cause="a peer is NIC=ADDRESS",
                remedy="for example cnic0=10.20.0.3",
            )
        found.append(Peer(nic=nic, address=address))
    return tuple(found)


def preflight(spec: ClusterSpec, peers: Sequence[Peer], machine: Machine) -> list[Finding]:
    """All that is wrong with the networks of an engine, before it takes work."""
    found = check_fabric(spec.nics, rdma=spec.fabric.rdma, machine=machine)
    devices = discover(spec.nics, machine.sysfs)
    found += check_routes(spec, devices, machine)
    for peer in peers:
        lost = unreachable(peer)
        if lost is not None:
            found.append(lost)
        elif spec.fabric.least_bandwidth_permille is not None:
            found += _slow(spec, peer, devices, spec.fabric.least_bandwidth_permille)
    return found


def before_register(spec: ClusterSpec, environ: Mapping[str, str], *, in_pod: bool) -> list[Finding]:
    """What an engine goes on in spite of, as the spec says Degrade. Raises UnsupportedError if it says Fail.

    In a Pod a container before this one has looked.
    """
    fabric = spec.fabric
    if in_pod or not fabric.preflight or fabric.mode is FabricMode.NONE:
        return []
    found = preflight(spec, parse_peers(environ.get(PEERS, "")), Machine.this())
    wrong = [finding for finding in found if not finding.advice]
    if wrong and fabric.on_mismatch == "Fail":
        first, *more = wrong
        others = "".join(f"; and {finding.what}: {finding.cause}" for finding in more)
        raise UnsupportedError(first.what, cause=first.cause + others, remedy=first.remedy)
    return found


# ---------------------------------------------------------------- the way to storage


def check_routes(spec: ClusterSpec, devices: Sequence[Device], machine: Machine) -> list[Finding]:
    """Whether what is sent to the store leaves by a storage NIC; nothing without rules for storage."""
    storage = [device for device in devices if device.role == "storage"]
    names = {name for device in storage for name in (*device.interfaces, device.name)}
    if not names:
        return []
    found = []
    for host in storage_hosts(spec, machine):
        try:
            device = leaves_by(host)
        except OSError as error:
            found.append(
                Finding(
                    what=f"there is no route to storage at {host}",
                    cause=str(error),
                    remedy="look at `ip route get`, name service and cables, or correct spec.storage",
                )
            )
            continue
        if device not in names | {"lo"}:
            found.append(
                Finding(
                    what=f"the route to storage at {host} leaves by {device}",
                    cause=f"spec.nics says that {', '.join(sorted(names))} carries storage",
                    remedy=f"give {host} a route over a storage NIC (`ip route`), or correct spec.nics",
                )
            )
    return found


def storage_hosts(spec: ClusterSpec, machine: Machine) -> list[str]:
    """Hosts of the store: its endpoints, or the servers of the file system that the directory is on.

    Of a managed store only the metadata's endpoints are known, and these are on the Pod network.
    """
    if spec.storage.external is not None:
        ends = spec.storage.external.endpoints
        return list(dict.fromkeys(end.rpartition(":")[0].strip("[]") for end in ends))
    if spec.storage.files is not None:
        return _servers(PurePath(spec.storage.files.path), text_of(machine.mounts))
    return []


def _servers(path: PurePath, mounts: str) -> list[str]:
    """The servers of the mount that a path is on, as "SERVER:/PATH" and its variants name them."""
    best: tuple[int, str] = (-1, "")
    for line in mounts.splitlines():
        source, point, kind, *_ = [*line.split(), "", "", ""]
        if path.is_relative_to(point) and len(point) > best[0]:
            best = (len(point), source if kind in _NETWORK_FILE_SYSTEMS else "")
    servers = best[1].partition(":/")[0]
    hosts = (part.partition("@")[0] for part in servers.split(","))  # Lustre adds @tcp, @o2ib
    bare = (host.strip("[]") if host.endswith("]") else host.rsplit(":", 1)[0] for host in hosts if host)
    return list(dict.fromkeys(bare))


def leaves_by(host: str) -> str:
    """The interface by which packets to a host leave. Nothing is sent. Raises OSError."""
    family, kind, protocol, _, target = socket.getaddrinfo(host, _CLOSED_PORT, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind, protocol) as asking:
        asking.connect(target)
        own = str(asking.getsockname()[0])
    return device_of(own.partition("%")[0]) or own


# ---------------------------------------------------------------- peers


def unreachable(peer: Peer) -> Finding | None:
    """None: the peer's address answers through the NIC."""
    source = address_of(peer.nic)
    cause = f"{peer.nic} has no IP address" if source is None else _asked(peer, source)
    if cause is None:
        return None
    return Finding(
        what=f"{peer.address} does not answer through {peer.nic}",
        cause=cause,
        remedy="look at cable, switch port and addresses (`ip addr`, `ip route`), or use another node",
    )


def _asked(peer: Peer, source: str) -> str | None:
    """Why there was no answer; None: there was one."""
    family = socket.AF_INET6 if ":" in peer.address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as asking:
        asking.settimeout(ANSWER_S)
        try:
            with contextlib.suppress(PermissionError):  # kernels before 5.7: the address has to do
                asking.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, peer.nic.encode())
            asking.bind((source, 0))
            asking.connect((peer.address, _CLOSED_PORT))
        except TimeoutError:
            return f"no answer within {ANSWER_S:g} s"
        except OSError as error:
            return None if error.errno == errno.ECONNREFUSED else str(error)
    return None


def _slow(spec: ClusterSpec, peer: Peer, devices: Sequence[Device], least: int) -> list[Finding]:
    """A flow to the peer, against the speed of the NIC."""
    device = next((d for d in devices if peer.nic in (d.name, *d.interfaces)), None)
    if device is None or not device.link_bytes_per_s:
        return [_unmeasured(peer, "the speed of the NIC is not known: give linkBps in spec.nics")]
    classes = spec.fabric.traffic_classes or TrafficClasses()
    try:
        (flow,) = measure(
            classes, peer.address, source=address_of(peer.nic) or "", names=("inference",)
        ).alone
    except ProbeError as error:
        return [_unmeasured(peer, error.cause)]
    wanted = device.link_bytes_per_s * least / 1000
    if flow.bytes_per_s >= wanted:
        return []
    return [
        Finding(
            what=f"{peer.nic} carries {flow.bytes_per_s / 1e6:.1f} MB/s to {peer.address}, "
            f"{wanted / 1e6:.1f} are wanted",
            cause=f"fabric.leastBandwidthPermille is {least}, "
            f"and the link has {device.link_bytes_per_s / 1e6:.1f} MB/s",
            remedy="look for other traffic, errors and a lower speed on the way (`ethtool`, `ibdiagnet`)",
        )
    ]


def _unmeasured(peer: Peer, cause: str) -> Finding:
    return Finding(
        what=f"the bandwidth to {peer.address} through {peer.nic} was not measured",
        cause=cause,
        remedy="let the peer run `python -P -m dualpath_worker.fabric probe serve`",
        advice=True,
    )
