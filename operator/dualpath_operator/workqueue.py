"""Keys that want work: each waits at most once and is worked on by at most one worker at a time.

A key that is added while it is worked on is worked on once more afterwards. A key may be added for later; the
earliest time counts. Nothing is remembered beyond that: a worker sees the newest state when it starts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class WorkQueue(Generic[K]):
    """Keys to work on. `settle_s` after an `add` lets a burst of changes become one pass."""

    def __init__(self, settle_s: float = 0.0) -> None:
        self._settle_s = settle_s
        self._ready: asyncio.Queue[K] = asyncio.Queue()
        self._waiting: set[K] = set()  # in _ready
        self._working: set[K] = set()
        self._again: set[K] = set()  # added while worked on
        self._timers: dict[K, tuple[float, asyncio.Handle]] = {}  # and when they are due

    def __len__(self) -> int:
        return len(self._waiting) + len(self._timers) + len(self._working)

    def add(self, key: K, after_s: float | None = None) -> None:
        """Work on a key after some time, by default when it has settled."""
        if key in self._waiting:
            return
        loop = asyncio.get_running_loop()
        delay = self._settle_s if after_s is None else after_s
        due = loop.time() + delay
        if (planned := self._timers.get(key)) is not None:
            if planned[0] <= due:
                return
            planned[1].cancel()
        self._timers[key] = (due, loop.call_later(delay, self._due, key))

    def _due(self, key: K) -> None:
        self._timers.pop(key, None)
        if key in self._working:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._ready.put_nowait(key)

    async def work(self, handle: Callable[[K], Awaitable[float | None]]) -> None:
        """One worker, until cancelled. `handle` returns after how many seconds it wants the key again."""
        while True:
            key = await self._ready.get()
            self._waiting.discard(key)
            self._working.add(key)
            try:
                again = await handle(key)
            finally:
                self._working.discard(key)
            if key in self._again:
                self._again.discard(key)
                self.add(key)
            elif again is not None:
                self.add(key, again)
