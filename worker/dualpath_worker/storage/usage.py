"""How many bytes the blocks of a store take, counted by all its processes in one small file.

A process that is killed between its rename and its addition leaves the figure short by one block; every
scan of the evicting process puts it right. Nodes of a shared mount without common locks overwrite each
other's additions; so every process scans now and then. On a medium without room for the figure itself the
process counts alone.
"""

from __future__ import annotations

import contextlib
import os
import struct
import threading
from pathlib import Path

from dualpath_worker.storage.locks import lock, unlock

_FIGURE = struct.Struct("<q")
_PAGE = 4096


def footprint(size: int) -> int:
    """Bytes that a file of `size` bytes takes on the medium, in whole pages."""
    return -(-size // _PAGE) * _PAGE


class Usage:
    """The shared figure. A store that has none yet gives `fresh`: somebody must scan."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
        self._alone = 0  # the figure while the file cannot be written
        self._threads = threading.Lock()  # flock does not know the threads of one process apart
        self.fresh = os.fstat(self._fd).st_size < _FIGURE.size

    def bytes(self) -> int:
        """The figure, without waiting for writers: 8 bytes are written at once."""
        data = os.pread(self._fd, _FIGURE.size, 0)
        return int(_FIGURE.unpack(data)[0]) if len(data) == _FIGURE.size else self._alone

    def add(self, change: int) -> int:
        """Add to the figure (negative: subtract); the new figure."""
        with self._threads:
            lock(self._fd, wait=True)
            try:
                total = max(0, self.bytes() + change)
                self._alone = total
                with contextlib.suppress(OSError):  # a full disk; an existing figure is overwritten in place
                    os.pwrite(self._fd, _FIGURE.pack(total), 0)
                return total
            finally:
                unlock(self._fd)

    def correct(self, counted: int, figure_before: int) -> None:
        """After a scan that began when the figure was `figure_before` and that found `counted` bytes."""
        self.add(counted - figure_before)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)
