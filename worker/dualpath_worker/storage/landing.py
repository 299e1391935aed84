"""Memory that a foreign library reads and writes in place of the engine's own.

A call that was given up may still write: Mooncake abandons a transfer after 60 s without stopping it. So
bytes land here, are checked, and only then copied to where the engine wants them; the engine's buffer is free
at the deadline whatever the library does. The copy shares its pass over memory with the checksum.
"""

from __future__ import annotations

import logging
import mmap
import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Landing:
    """A piece of memory for one object."""

    memory: NDArray[np.uint8]

    @property
    def address(self) -> int:
        """Where it is."""
        return int(self.memory.ctypes.data)


class LandingZone:
    """Landings of one size, made when they are first needed; none is ever unmapped."""

    def __init__(self, size: int, limit: int, register: Callable[[int, int], bool]) -> None:
        """`limit`: landings at once. `register(address, size)` tells the library of a new one."""
        self._size, self._limit, self._register = size, limit, register
        self._lock = threading.Lock()
        self._free: list[Landing] = []
        self._lost: list[Landing] = []
        self._made = 0

    @property
    def lost(self) -> int:
        """Landings that will not be used again."""
        return len(self._lost)

    def take(self) -> Landing | None:
        """A landing of one's own; None: there are no more."""
        with self._lock:
            if self._free:
                return self._free.pop()
            if self._made >= self._limit:
                return None
            self._made += 1
        landing = Landing(np.frombuffer(mmap.mmap(-1, self._size), np.uint8))
        if self._register(landing.address, self._size):
            return landing
        with self._lock:
            self._made -= 1
        return None

    def give_back(self, landing: Landing) -> None:
        """The library is done with it."""
        with self._lock:
            self._free.append(landing)

    def lose(self, landing: Landing) -> None:
        """Nobody knows whether the library is done with it: it is never used again."""
        with self._lock:
            self._lost.append(landing)
        log.warning(
            "%d of %d landings are lost to transfers that were abandoned", len(self._lost), self._limit
        )
