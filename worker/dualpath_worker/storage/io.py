"""Threads between an engine's event loop and the store.

Reads: batches of blocks with a deadline; when it passes, what has not been read is given up. A read that
hangs in the kernel cannot be stopped, so its buffer stays taken until it returns: `on_settled` says when. Its
thread is replaced for that time, within bounds, so that one part of a store does not hold up the others.
Writes: one at a time, behind the reads, from a bounded queue that drops its oldest block when it is full,
since the newest blocks are those that the next turn of a conversation will ask for.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from dualpath_worker.storage.base import BlockStore, Buffer, ReadResult, WriteResult
from dualpath_worker.storage.read_batch import Batch, ReadOutcome

log = logging.getLogger(__name__)

DEADLINE_S = 2.0
DEADLINE_FACTOR = 4.0  # times the expected time
FIRST_RATE = 100e6  # bytes/s of the store, until there is a measurement
SPARE_THREADS = 16
YIELD_S = 0.2  # a write waits at most so long for reads, so that reads cannot starve it


class ReadQueue:
    """Reads batches with `threads` threads, in the order of asking; call `read` from one event loop."""

    def __init__(self, store: BlockStore, *, threads: int = 4, deadline_s: float = DEADLINE_S) -> None:
        self._store = store
        self._deadline_s = deadline_s
        self._lock = threading.Lock()
        self._work_ready = threading.Condition(self._lock)
        self._idle = threading.Condition(self._lock)
        self._earlier = threading.Condition(self._lock)  # than the deadline that is waited for
        self._waiting: deque[tuple[Batch, int]] = deque()
        self._batches: list[Batch] = []
        self._hanging: list[Batch] = []  # answered, while a read of theirs has not come back
        self._closing = False
        self.queued_bytes = 0
        """Asked for and not read yet."""
        self.rate = FIRST_RATE
        """Bytes/s of one thread, a moving average."""
        self._threads = threads
        self._spares = 0
        for _ in range(threads):
            self._start_thread()
        threading.Thread(target=self._watch, name="read-deadlines", daemon=True).start()

    async def read(
        self, keys: Sequence[bytes], into: Sequence[memoryview], *, on_settled: Callable[[], None]
    ) -> ReadOutcome:
        """Read blocks; returns at the deadline at the latest.

        `on_settled` is called exactly once, on an I/O thread, when nothing is going to write into any of the
        buffers any more: before this returns, unless some of the blocks are late.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[ReadOutcome] = loop.create_future()

        def resolve(outcome: ReadOutcome) -> None:
            if not future.done():
                future.set_result(outcome)

        def answer(outcome: ReadOutcome) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(resolve, outcome)

        if keys:
            self._add(Batch(keys, into, self._deadline(into), on_settled, answer))
        else:
            on_settled()
            resolve(ReadOutcome(ok=(), failed=(), late=(), bytes=0))
        return await future

    @property
    def threads(self) -> int:
        """Threads that live, also those that hang."""
        return self._threads + self._spares

    @property
    def busy(self) -> bool:
        """Whether reads are waiting or running."""
        return bool(self._batches)

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait in a thread until there are no reads; false: there still are."""
        with self._lock:
            return self._idle.wait_for(lambda: not self._batches, timeout_s)

    def stuck_s(self) -> float:
        """For how long a read has hung in the store beyond its batch's deadline; 0: none has."""
        with self._lock:
            oldest = min((batch.deadline for batch in self._hanging), default=None)
        return 0.0 if oldest is None else time.monotonic() - oldest

    def close(self) -> None:
        """Begin no more reads. Threads end by themselves, as one may hang in the kernel."""
        with self._lock:
            self._closing = True
            self._work_ready.notify_all()
            self._earlier.notify_all()

    def _deadline(self, into: Sequence[memoryview]) -> float:
        ahead = self.queued_bytes + sum(buffer.nbytes for buffer in into)
        return time.monotonic() + self._deadline_s + DEADLINE_FACTOR * ahead / (self.rate * self._threads)

    def _add(self, batch: Batch) -> None:
        with self._lock:
            self._batches.append(batch)
            self._waiting.extend((batch, place) for place in range(len(batch.keys)))
            self.queued_bytes += sum(buffer.nbytes for buffer in batch.into)
            self._work_ready.notify(len(batch.keys))
            if batch is min(self._batches, key=lambda other: other.deadline):
                self._earlier.notify()

    def _start_thread(self) -> None:
        threading.Thread(target=self._work, name="read", daemon=True).start()

    def _work(self) -> None:
        while True:
            with self._lock:
                self._work_ready.wait_for(lambda: self._waiting or self._closing)
                if self._closing:
                    return
                batch, place = self._waiting.popleft()
                if batch.answered:  # late
                    continue
                batch.running += 1
            began = time.monotonic()
            try:
                (result,) = self._store.read_full([batch.keys[place]], [batch.into[place]])
            except Exception:
                log.exception("the block store failed")
                result = ReadResult.ERROR
            if self._finish(batch, place, result, time.monotonic() - began):
                return

    def _finish(self, batch: Batch, place: int, result: ReadResult, seconds: float) -> bool:
        """Whether the calling thread has been replaced."""
        size = batch.into[place].nbytes
        with self._lock:
            batch.running -= 1
            if result is ReadResult.HIT and seconds > 0:
                self.rate += 0.1 * (size / seconds - self.rate)
            if not batch.answered:
                batch.results[place] = result
                self.queued_bytes -= size
                if len(batch.results) == len(batch.keys):
                    self._end(batch)
                return False
            if batch.running == 0:
                self._hanging.remove(batch)
                batch.on_settled()
            if not batch.replaced:
                return False
            batch.replaced -= 1
            self._spares -= 1
            return True

    def _end(self, batch: Batch) -> None:
        """With the lock held: answer, and settle unless a read still hangs."""
        batch.answered = True
        self._batches.remove(batch)
        outcome = batch.outcome()
        self.queued_bytes -= sum(batch.into[place].nbytes for place in outcome.late)
        if batch.running == 0:
            batch.on_settled()
        else:
            self._hanging.append(batch)
            batch.replaced = min(batch.running, SPARE_THREADS - self._spares)
            self._spares += batch.replaced
            for _ in range(batch.replaced):
                self._start_thread()
        batch.answer(outcome)
        if not self._batches:
            self._idle.notify_all()

    def _watch(self) -> None:
        with self._lock:
            while not self._closing:
                now = time.monotonic()
                for batch in [batch for batch in self._batches if batch.deadline <= now]:
                    log.warning(
                        "%d of %d blocks were not read in time",
                        len(batch.keys) - len(batch.results),
                        len(batch.keys),
                    )
                    self._end(batch)
                nearest = min((batch.deadline for batch in self._batches), default=None)
                self._earlier.wait(None if nearest is None else max(0.0, nearest - now))


class WriteQueue:
    """Writes blocks in the background, behind the reads of `reads`; never raises, never blocks the caller."""

    def __init__(
        self,
        store: BlockStore,
        reads: ReadQueue | None = None,
        *,
        limit: int = 512,
        yield_s: float = YIELD_S,
    ) -> None:
        """`limit` is in blocks; each one that waits keeps its source memory alive."""
        self._store, self._reads, self._limit, self._yield_s = store, reads, limit, yield_s
        self._changed = threading.Condition()
        self._waiting: deque[tuple[bytes, Sequence[Buffer], Callable[[bytes], None]]] = deque()
        self._closing = False
        self._writing = False
        self.dropped = 0
        """Blocks that were pushed out of the full queue, or left over at the end."""
        self._thread = threading.Thread(target=self._work, name="write", daemon=True)
        self._thread.start()

    def put(self, key: bytes, data: Sequence[Buffer], on_done: Callable[[bytes], None]) -> None:
        """Queue a block.

        `on_done(key)` is called once, on any thread, when `data` is not needed any more: the block has been
        written, dropped or refused.
        """
        pushed_out = None
        with self._changed:
            if len(self._waiting) >= self._limit:
                pushed_out = self._waiting.popleft()
                self.dropped += 1
            self._waiting.append((key, data, on_done))
            self._changed.notify_all()
        if pushed_out is not None:
            _call(pushed_out[2], pushed_out[0])

    @property
    def pending(self) -> int:
        """Blocks that are not written yet."""
        return len(self._waiting) + self._writing

    def close(self, timeout_s: float = 10.0) -> None:
        """Write what is waiting, for so long; drop the rest."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting and not self._writing, timeout_s)
            self._closing = True
            rest, self._waiting = list(self._waiting), deque()
            self.dropped += len(rest)
            self._changed.notify_all()
        for key, _, on_done in rest:
            _call(on_done, key)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._writing = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._waiting or self._closing)
                if self._closing:
                    return
            if self._reads is not None:
                self._reads.wait_idle(self._yield_s)
            with self._changed:
                if not self._waiting:
                    continue
                key, data, on_done = self._waiting.popleft()
                self._writing = True
            self._write(key, data)
            _call(on_done, key)

    def _write(self, key: bytes, data: Sequence[Buffer]) -> WriteResult:
        try:
            return self._store.write_full(key, data)
        except Exception:
            log.exception("the block store failed")
            return WriteResult.ERROR


def _call(callback: Callable[[bytes], None], key: bytes) -> None:
    try:
        callback(key)
    except Exception:
        log.exception("a callback of the write queue failed")
