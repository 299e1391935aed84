"""The driver's own statistics, as `ethtool -S` shows them, by the same ioctl and without a process.

Layouts and numbers: linux/ethtool.h. Needs no privilege. The device must be in this network namespace.
"""

from __future__ import annotations

import array
import fcntl
import socket
import struct
from collections.abc import Callable

from dualpath_worker.nics.congestion import pause_kind

_SIOCETHTOOL = 0x8946
_GSTRINGS, _GSTATS, _GSSET_INFO = 0x1B, 0x1D, 0x37
_STATS = 1  # ETH_SS_STATS
_NAME_BYTES = 32


class Ethtool:
    """Reads statistics; names are kept, as they do not change while a driver is loaded."""

    def __init__(self, keep: Callable[[str], object] = pause_kind) -> None:
        """Only statistics for whose name `keep` is true are returned."""
        self._keep = keep
        self._wanted: dict[str, tuple[int, list[tuple[int, str]]]] = {}

    def statistics(self, interface: str) -> dict[str, int]:
        """Statistics by name; empty where the driver has none, or the device has gone."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            try:
                count = _count(asking, interface)
                known = self._wanted.get(interface)
                if known is None or known[0] != count:  # another number of queues: other places
                    names = _names(asking, interface, count)
                    known = (count, [(place, name) for place, name in enumerate(names) if self._keep(name)])
                    self._wanted[interface] = known
                values = _values(asking, interface, count) if known[1] else array.array("Q")
            except OSError:
                self._wanted.pop(interface, None)
                return {}
        return {name: values[place] for place, name in known[1]}


def _count(asking: socket.socket, interface: str) -> int:
    buffer = bytearray(struct.pack("=IIQI", _GSSET_INFO, 0, 1 << _STATS, 0))
    _call(asking, interface, buffer)
    _, _, mask, count = struct.unpack("=IIQI", buffer)
    return int(count) if mask else 0


def _names(asking: socket.socket, interface: str, count: int) -> list[str]:
    buffer = bytearray(struct.pack("=III", _GSTRINGS, _STATS, count)) + bytearray(count * _NAME_BYTES)
    _call(asking, interface, buffer)
    names = (buffer[12 + place * _NAME_BYTES :][:_NAME_BYTES] for place in range(count))
    return [bytes(name).split(b"\0", 1)[0].decode("ascii", "replace") for name in names]


def _values(asking: socket.socket, interface: str, count: int) -> array.array[int]:
    buffer = bytearray(struct.pack("=II", _GSTATS, count)) + bytearray(count * 8)
    _call(asking, interface, buffer)
    return array.array("Q", bytes(buffer[8:]))


def _call(asking: socket.socket, interface: str, buffer: bytearray) -> None:
    """`struct ifreq` points to the buffer, which the kernel fills. Raises OSError."""
    place = array.array("B", bytes(buffer))
    address, _ = place.buffer_info()
    fcntl.ioctl(asking, _SIOCETHTOOL, struct.pack("16sP16x", interface.encode()[:15], address))
    buffer[:] = place.tobytes()
