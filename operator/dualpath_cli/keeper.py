"""Keeps one process alive: starts it, and starts it again with growing pauses when it dies."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Protocol

from dualpath_cli.process import Command, Process, why

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
STABLE_S = 60.0
"""A process that was ready for so long starts again with the shortest pause."""
START_TRIES = 5
"""A process that was never ready is given up after so many starts."""
REFUSED = 2
"""Exit code of a process whose configuration is not acceptable: starting it again would not help."""


class Watcher(Protocol):
    """Who wants to know; `dualpath_cli.supervisor` implements it."""

    def line(self, name: str, line: str) -> None:
        """A line that the process wrote."""

    def started(self, name: str, pid: int) -> None:
        """A process was started."""

    def is_ready(self, name: str, pid: int, content: dict[str, Any]) -> None:
        """A process is ready, and what it says."""

    def ended(self, name: str, reason: str, pause: float) -> None:
        """A process died; it is started again after `pause` seconds."""

    def gave_up(self, name: str, reason: str, code: int) -> None:
        """A process cannot be started."""


def always(command: Command) -> Callable[[], Command]:
    """For a process that is started in the same way each time."""
    return lambda: command


class Keeper:
    """One process that should be running. `command` is asked before each start."""

    def __init__(
        self, command: Callable[[], Command], watcher: Watcher, *, first_pause_s: float = FIRST_PAUSE_S
    ) -> None:
        self._command = command
        self._watcher = watcher
        self._first_pause_s = first_pause_s
        self._stopping = False
        self.process: Process | None = None
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(self._check)

    async def _run(self) -> None:
        pause, was_ready, failures = self._first_pause_s, False, 0
        while True:
            command = self._command()
            self.process = process = Process(command, self._watcher.line)
            self._watcher.started(command.name, process.pid)
            content = await process.ready()
            since = time.monotonic()
            if content is not None and not self._stopping:
                was_ready, failures = True, 0
                self._watcher.is_ready(command.name, process.pid, content)
            code = await process.wait()
            if self._stopping:
                return
            failures += content is None
            reason = f"{command.name} {why(code)}"
            if not was_ready and (code == REFUSED or failures >= START_TRIES):
                self._watcher.gave_up(command.name, reason, code)
                return
            if content is not None and time.monotonic() - since >= STABLE_S:
                pause = self._first_pause_s
            self._watcher.ended(command.name, reason, pause)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    async def stop(self, deadline_s: float) -> None:
        """Ask the process to end; after the deadline it is killed."""
        self._stopping = True
        process = self.process
        if process is not None:
            process.terminate()
            if not await process.wait_at_most(deadline_s):
                process.kill()
            await process.wait()
        if not self._task.done():
            self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def _check(self, task: asyncio.Task[None]) -> None:
        """A fault of the keeping itself (no memory for a process, a broken ready file) is not silent."""
        if not task.cancelled() and (error := task.exception()):
            self.kill()
            self._watcher.gave_up("supervisor", f"supervisor failed: {error!r}", 1)

    def kill(self) -> None:
        """End the process now and do not start it again."""
        self._stopping = True
        if self.process is not None:
            self.process.kill()
