"""Processes of the test bed: they log to a file, die with the test run, and are stopped by pid."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

LOG_TAIL = 4000  # characters shown when a process did not do what it should


class Process:
    """One child process. The kernel kills it when the thread that started it is gone (`setpriv --pdeathsig`)."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as sink:
            self._popen = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env=None if env is None else dict(env),
                cwd=cwd,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Its process id; the session's and group's id too."""
        return self._popen.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative for a signal."""
        return self._popen.poll()

    def running(self) -> bool:
        """Raise, with the end of the log, when it has gone: nobody waits a minute for a dead process."""
        if self.exit_code is not None:
            raise RuntimeError(f"{self.name} ended with {self.exit_code}:\n{self.tail()}")
        return True

    def tail(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-LOG_TAIL:]

    def kill(self) -> None:
        """SIGKILL: what a crash looks like."""
        self._popen.kill()
        self._popen.wait()

    def stop(self, within: float = 30.0) -> int:
        """SIGTERM, then SIGKILL after `within` seconds; the exit code."""
        if self.exit_code is None:
            self._popen.terminate()
            try:
                self._popen.wait(within)
            except subprocess.TimeoutExpired:
                self.kill()
        return self._popen.wait()

    def freeze(self) -> None:
        """SIGSTOP: alive, but blind and mute, as after a long pause of its machine."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that were free a moment ago; all different."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
