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


def device_of(address: str, proc: Path = Path("/proc")) -> str | None:
    """The network device that has this IP address; None: none has it."""
    wanted = ipaddress.ip_address(address)
    if wanted.version == 6:
        return _device_of_ipv6(wanted.packed.hex(), proc / "net/if_inet6")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            try:
                answer = fcntl.ioctl(asking, _SIOCGIFADDR, request)
            except OSError:  # it has no address
                continue
            if answer[20:24] == wanted.packed:
                return name
    return None


def _device_of_ipv6(wanted: str, table: Path) -> str | None:
    try:
        rows = [line.split() for line in table.read_text().splitlines()]
    except OSError:
        return None
    return next((row[5] for row in rows if row[0] == wanted), None)


def advertised(host: str, pod_ip: str) -> str:
    """The host of a URL that others can ask, for a server that listens on `host`."""
    name = (pod_ip or socket.gethostname()) if host in _ANY else host
    return f"[{name}]" if ":" in name else name
