"""Blocks that are computed, but still wait in a decode engine's write queue.

Storage does not know them yet; a request that needs one waits for it instead of computing it again.
"""

from __future__ import annotations

from collections.abc import Iterable


class PendingKeys:
    """Key -> decode engines that will write it."""

    def __init__(self) -> None:
        self._writers: dict[bytes, set[str]] = {}

    def __len__(self) -> int:
        return len(self._writers)

    def add(self, engine: str, keys: Iterable[bytes]) -> None:
        """`engine` has these blocks in its write queue."""
        for key in keys:
            self._writers.setdefault(key, set()).add(engine)

    def stored(self, keys: Iterable[bytes]) -> None:
        """These have left a write queue; who else has one of them writes nothing new."""
        for key in keys:
            self._writers.pop(key, None)

    def drop_engine(self, engine: str) -> None:
        """A lost engine writes nothing any more."""
        for key in [key for key, writers in self._writers.items() if engine in writers]:
            self._writers[key].discard(engine)
            if not self._writers[key]:
                del self._writers[key]

    def needed_by(self, keys: Iterable[bytes]) -> bool:
        """Whether any of these is still to be written."""
        return bool(self._writers) and any(key in self._writers for key in keys)
