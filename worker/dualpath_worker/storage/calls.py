"""Calls into a library that may hang, each on a thread of its own that nobody has to wait for.

A call cannot be cancelled; its caller goes on at its deadline and the thread stays behind until the library
lets go. Threads are made when none is idle, up to a limit, so that hung calls do not hold up others.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")


class CallsExhaustedError(Exception):
    """Every thread hangs in a call."""


class CallPool:
    """Runs calls on daemon threads: a process may end while one hangs."""

    def __init__(self, limit: int, name: str) -> None:
        """`limit`: threads, and so calls that may hang at once."""
        self._limit, self._name = limit, name
        self._lock = threading.Lock()
        self._returned = threading.Condition(self._lock)
        self._queue: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._threads = self._outstanding = 0

    @property
    def outstanding(self) -> int:
        """Calls that have not returned."""
        return self._outstanding

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """Start a call now. Raises CallsExhaustedError."""
        future: Future[T] = Future()
        with self._lock:
            if self._outstanding >= self._limit:
                raise CallsExhaustedError
            self._outstanding += 1
            if self._outstanding > self._threads:
                self._threads += 1
                threading.Thread(target=self._work, name=f"{self._name}-{self._threads}", daemon=True).start()
        self._queue.put((future, call))
        return future

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait until every call has returned; false: some have not."""
        with self._returned:
            return self._returned.wait_for(lambda: self._outstanding == 0, timeout_s)

    def close(self) -> None:
        """End the threads that are idle, the others after their call."""
        for _ in range(self._threads):
            self._queue.put(None)

    def _work(self) -> None:
        while (job := self._queue.get()) is not None:
            future, call = job
            wanted = future.set_running_or_notify_cancel()  # from here on it cannot be cancelled
            result = error = None
            try:
                result = call() if wanted else None
            except Exception as raised:
                error = raised
            with self._returned:
                self._outstanding -= 1
                self._returned.notify_all()
            if not wanted:
                continue
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)
