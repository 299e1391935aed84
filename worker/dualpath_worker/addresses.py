"""Which device carries KV between engines, and under which address others find this one."""

from __future__ import annotations

import fcntl
import ipaddress
import logging
import socket
import struct
from collections.abc import Sequence
from pathlib import Path

from dualpath_api.cluster import NicRule
from dualpath_worker.nics import discover

log = logging.getLogger(__name__)

_SIOCGIFADDR = 0x8915
_ANY = ("0.0.0.0", "::", "")


def compute_device(rules: Sequence[NicRule], rank: int, pod_ip: str) -> str | None:
    """The UCX name of this rank's device, by the spec's rules; None: UCX chooses.

    Without rules it is the device of the pod's own address, which other pods reach; outside of pods loopback.
    """
    found = [device.ucx_name for device in discover(rules) if device.role == "compute"]
    if found:
        return found[rank % len(found)]
    if not pod_ip:
        return "lo"
    device = device_of(pod_ip)
    if device is None:
        log.warning("no device has the pod's address %s: UCX chooses one", pod_ip)
    return device


def address_of(device: str) -> str | None:
    """The first IPv4 address of a network device, else its first IPv6 address; None: it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        if (packed := _ipv4(asking, device)) is not None:
            return str(ipaddress.ip_address(packed))
    rows = _ipv6_rows(Path("/proc/net/if_inet6"))
    return next((str(ipaddress.ip_address(bytes.fromhex(row[0]))) for row in rows if row[5] == device), None)


def device_of(address: str, proc: Path = Path("/proc")) -> str | None:
    """The network device that has this IP address; None: none has it."""
    wanted = ipaddress.ip_address(address)
    if wanted.version == 6:
        rows = _ipv6_rows(proc / "net/if_inet6")
        return next((row[5] for row in rows if row[0] == wanted.packed.hex()), None)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, name in socket.if_nameindex():
            if _ipv4(asking, name) == wanted.packed:
                return name
    return None


def _ipv4(asking: socket.socket, device: str) -> bytes | None:
    try:
        answer = fcntl.ioctl(asking, _SIOCGIFADDR, struct.pack("256s", device.encode()[:15]))
    except OSError:  # it has no address
        return None
    return answer[20:24]


def _ipv6_rows(table: Path) -> list[list[str]]:
    try:
        return [line.split() for line in table.read_text().splitlines()]
    except OSError:
        return []


def advertised(host: str, pod_ip: str) -> str:
    """The host of a URL that others can ask, for a server that listens on `host`."""
    name = (pod_ip or socket.gethostname()) if host in _ANY else host
    return f"[{name}]" if ":" in name else name
