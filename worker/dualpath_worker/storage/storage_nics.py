"""The storage NICs of a store's process, by patterns on their names: its address, and its RDMA devices."""

from __future__ import annotations

import fcntl
import socket
import struct
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from dualpath_api.errors import SpecError
from dualpath_worker.storage.mooncake_client import StoreNetwork

_SIOCGIFADDR = 0x8915


def store_network_of(
    patterns: Sequence[str], *, rdma: bool, host: str, infiniband: Path = Path("/sys/class/infiniband")
) -> StoreNetwork:
    """The network of a process that uses the NICs that match, where there are patterns.

    A matching interface with an address gives the address under which others reach the process, otherwise
    `host` does. Raises SpecError if RDMA is asked for and no device matches: any other would be a guess.
    """
    own = next((found for name in _matching(_interfaces(), patterns) if (found := _address(name))), host)
    if not rdma:
        return StoreNetwork(host=own)
    devices = _matching([path.name for path in sorted(infiniband.glob("*"))], patterns)
    if not devices:
        raise SpecError(
            f"no RDMA device matches {', '.join(patterns) or 'nothing'}",
            cause=f"{infiniband} has no such device",
            remedy="name the storage NICs with --nics (in a cluster: spec.nics), or use --protocol tcp",
        )
    return StoreNetwork(protocol="rdma", devices=tuple(devices), host=own)


def _matching(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]


def _interfaces() -> list[str]:
    return sorted(name for _, name in socket.if_nameindex())


def _address(device: str) -> str:
    """IPv4 address of a network interface; "": none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            answer = fcntl.ioctl(asking, _SIOCGIFADDR, struct.pack("256s", device.encode()[:15]))
        except OSError:
            return ""
    return socket.inet_ntoa(answer[20:24])
