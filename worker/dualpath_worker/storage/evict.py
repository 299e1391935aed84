"""Keeping a `files` store below its size: whoever holds the lock file evicts, for all processes.

Nobody is elected for long: a process that finds the store nearly full tries the lock; if another has it,
that one is doing the work. The kernel releases the lock of a process that dies. Blocks go in the order of
their last use (modification time, touched by matches and reads at most once a minute), down to a low-water
mark, so that one scan of the tree pays for many writes. A block that is being read stays readable: its
reader has it open.
"""

from __future__ import annotations

import contextlib
import heapq
import logging
import os
import threading
from collections.abc import Iterator

from dualpath_worker.storage.locks import lock
from dualpath_worker.storage.places import Places
from dualpath_worker.storage.usage import Usage, footprint

log = logging.getLogger(__name__)

HIGH = 0.95  # of the limit: begin to evict in the background
CLOSE_S = 5.0
LOW = 0.85  # of the limit: evict down to this
TRUST = 0.05  # of the limit: written by this process before it counts what is there,
TRUST_BLOCKS = 64  # or so many blocks, if that is more


class Evictor:
    """Evicts on request, in the caller's thread (`make_room`) or in one of its own (`wake`)."""

    def __init__(self, places: Places, usage: Usage, limit: int) -> None:
        self._places, self._usage, self.limit = places, usage, limit
        self.evicted_blocks = self.evicted_bytes = 0
        self._written, self._due = 0, False
        self._threads = threading.Lock()
        self._woken = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="evict", daemon=True)
        self._thread.start()

    def wrote(self, size: int) -> None:
        """A block of `size` bytes has been added: see whether it is time to look."""
        self._written += size  # threads may lose an addition, which only makes it later
        self._due = self._written > max(self.limit * TRUST, TRUST_BLOCKS * size)
        if self._usage.add(size) > self.limit * HIGH or self._due:
            self.wake()

    def wake(self) -> None:
        """Let the background thread look: tidy up after dead processes, evict if nearly full."""
        self._woken.set()

    def make_room(self, size: int, *, limit: int | None = None) -> bool:
        """Whether `size` more bytes fit below the limit (a lower one if given); evicts if need be, waits."""
        limit = min(self.limit, limit) if limit is not None else self.limit
        if self._usage.bytes() + size <= limit:
            return True
        with self._threads, self._lock(wait=True):
            if self._usage.bytes() + size > limit:  # the process before us may have done it
                self._evict(min(int(limit * LOW), limit - size))
        return self._usage.bytes() + size <= limit

    def recount(self) -> None:
        """Scan the tree and put the shared figure right."""
        with self._threads, self._lock(wait=True):
            self._count()

    def _count(self) -> None:
        self._written, self._due, before = 0, False, self._usage.bytes()
        self._usage.correct(sum(size for _, size, _ in self._scan()), before)

    def close(self) -> None:
        """Stop the thread, after what it is doing if that is soon."""
        self._closing = True
        self._woken.set()
        # a writer may wait for the lock of a process that has been stopped: not for ever
        self._thread.join(CLOSE_S)

    def _run(self) -> None:
        while True:
            self._woken.wait()
            self._woken.clear()
            if self._closing:
                return
            try:
                with self._threads, self._lock(wait=False) as mine:
                    if mine:
                        self._places.sweep_scratch()
                        if self._due:
                            self._count()
                        if self._usage.bytes() > self.limit * HIGH:
                            self._evict(int(self.limit * LOW))
            except OSError as error:
                log.warning("eviction from %s failed: %s", self._places.root, error)

    @contextlib.contextmanager
    def _lock(self, *, wait: bool) -> Iterator[bool]:
        fd = os.open(self._places.evict_lock, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
        try:
            yield lock(fd, wait=wait)
        finally:
            os.close(fd)

    def _evict(self, target: int) -> None:
        """Remove the least recently used blocks until the target is met, and put the figure right."""
        for _ in range(2):  # again if the figure was too low, so that too few candidates were kept
            before = self._usage.bytes()
            if before <= target:
                return
            counted, candidates = self._oldest(before - target)
            self._usage.correct(counted, before)
            blocks, freed = self._remove(candidates, counted - target)
            if blocks:
                log.info("evicted %d blocks, %d bytes, from %s", blocks, freed, self._places.root)

    def _oldest(self, surplus: int) -> tuple[int, list[tuple[int, int, str]]]:
        """Bytes of all blocks, and the oldest blocks that make up `surplus`, oldest first."""
        counted = held = 0
        heap: list[tuple[int, int, str]] = []  # newest first, so that it is the one to drop
        for mtime, size, path in self._scan():
            counted += size
            heapq.heappush(heap, (-mtime, size, path))
            held += size
            while held - heap[0][1] >= surplus:
                held -= heapq.heappop(heap)[1]
        return counted, sorted(heap, reverse=True)

    def _scan(self) -> Iterator[tuple[int, int, str]]:
        """Time of last use, footprint and path of every block."""
        for entry in self._places.scan():
            with contextlib.suppress(OSError):
                stat = entry.stat(follow_symlinks=False)
                yield stat.st_mtime_ns, footprint(stat.st_size), entry.path

    def _remove(self, candidates: list[tuple[int, int, str]], surplus: int) -> tuple[int, int]:
        blocks = freed = 0
        for _, size, path in candidates:
            if freed >= surplus:
                break
            with contextlib.suppress(OSError):
                os.unlink(path)  # noqa: PTH108 - a Path for each of a million files costs seconds
                self._usage.add(-size)
                blocks, freed = blocks + 1, freed + size
        self.evicted_blocks += blocks
        self.evicted_bytes += freed
        return blocks, freed
