"""A thread that runs commands in order and does its own work between them."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

log = logging.getLogger(__name__)
T = TypeVar("T")


class CommandThread:
    """Commands may come from any thread; `between` says how long to wait for the next one."""

    def __init__(self, name: str, between: Callable[[bool], float]) -> None:
        """`between(had_commands)` runs on the thread and returns seconds."""
        self._between = between
        self._commands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._closing = False
        self.came_round = time.monotonic()
        """When the last round began; the thread is busy, or stuck, since then."""
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, command: Callable[[], None]) -> None:
        """Run `command` on the thread, soon, and in the order of the calls."""
        self._commands.put(command)

    def call(self, command: Callable[[], T]) -> T:
        """Run `command` on the thread and wait for its result or exception."""
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(command())
            except BaseException as error:
                future.set_exception(error)

        self.put(run)
        return future.result()

    def close(self, timeout_s: float) -> None:
        """Stop after the current round; waits unless called on the thread itself."""
        self._closing = True
        self.put(lambda: None)
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        pause = 0.0
        while not self._closing:
            self.came_round = time.monotonic()
            try:
                command = self._commands.get(timeout=pause)
            except queue.Empty:
                pause = self._between(False)
                continue
            self._run_one(command)
            while not self._commands.empty():
                self._run_one(self._commands.get())
            pause = self._between(True)

    @staticmethod
    def _run_one(command: Callable[[], None]) -> None:
        try:
            command()
        except Exception:
            log.exception("a transfer command failed")
