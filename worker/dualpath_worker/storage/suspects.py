"""Who failed lately, and is better left alone for a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Suspects:
    """Names that are remembered for `hold_s` seconds each."""

    def __init__(self, hold_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._hold_s, self._clock = hold_s, clock
        self._until: dict[str, float] = {}
        self._lock = threading.Lock()

    def add(self, name: str) -> bool:
        """Suspect somebody from now on; false: that is nothing new."""
        with self._lock:
            new = self._until.get(name, 0.0) <= self._clock()
            self._until[name] = self._clock() + self._hold_s
            return new

    def __contains__(self, name: str) -> bool:
        with self._lock:
            return self._until.get(name, 0.0) > self._clock()

    def __bool__(self) -> bool:
        """Whether there are any; forgets those whose time is over."""
        if not self._until:  # without the lock: this is asked for every block
            return False
        with self._lock:
            now = self._clock()
            self._until = {name: end for name, end in self._until.items() if end > now}
            return bool(self._until)
