"""Counters that several threads add to."""

from __future__ import annotations

import threading


class StoreCounts:
    """Counters by name."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[str, int] = {}

    def add(self, **changes: int) -> None:
        """Add to counters by name."""
        with self._lock:
            for name, change in changes.items():
                self._values[name] = self._values.get(name, 0) + change

    def values(self) -> dict[str, int]:
        """A snapshot."""
        with self._lock:
            return dict(self._values)
