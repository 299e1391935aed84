"""One run of one child process: start, wait until it is ready, signal, wait for its end.

A child has its own process group, so that Ctrl-C in a terminal reaches the supervisor only, which then stops
the children in order. `child.py` ties it to the supervisor's life.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, build_opener

from dualpath_cli import readyfile

READY_POLL_S = 0.05
PROBE_S = 2.0
OUTPUT_GRACE_S = 1.0
"""After the end of a process its pipe is read for so long: a grandchild may hold it open."""

_CHILD = Path(__file__).with_name("child.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """How to start a process. Ready is who has written JSON to `ready_file`, or answers 200 at `probe`."""

    name: str
    arguments: tuple[str, ...]
    program: str = sys.executable
    prefix: tuple[str, ...] = ()  # a command, with its path, that becomes the program
    ready_file: Path | None = None
    probe: str = ""  # URL
    environment: Mapping[str, str] = field(default_factory=dict)  # in addition to ours


class Process:
    """A started process. Lines that it writes go to `forward(name, line)`."""

    def __init__(self, command: Command, forward: Callable[[str, str], None]) -> None:
        self.command = command
        self._forward = forward
        if command.ready_file:
            command.ready_file.unlink(missing_ok=True)
        self._popen = subprocess.Popen(
            [*_child(), *command.prefix, command.program, *command.arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **command.environment},
        )
        self.pid = self._popen.pid
        self._end = asyncio.create_task(self._ended(), name=f"{command.name} end")
        self._output = asyncio.create_task(self._read_output(), name=f"{command.name} output")

    async def ready(self) -> dict[str, Any] | None:
        """What the process says when it is ready; None: it ended before."""
        while True:
            ended = self._end.done()  # before the look at the file, which may be its last act
            if (content := await self._said()) or ended:
                return content
            await asyncio.wait([self._end], timeout=READY_POLL_S)

    async def _said(self) -> dict[str, Any] | None:
        """What the ready file says; of who is probed, where its metrics are. None: not yet."""
        if self.command.ready_file:
            return readyfile.read(self.command.ready_file)
        if await asyncio.to_thread(_answers, self.command.probe):
            return {"metrics": self.command.probe.rpartition("/")[0] + "/metrics"}
        return None

    async def wait(self) -> int:
        """The exit code, negative for a signal; after all of its output was forwarded."""
        code = await asyncio.shield(self._end)
        await asyncio.wait([self._output], timeout=OUTPUT_GRACE_S)
        return code

    async def wait_at_most(self, seconds: float) -> bool:
        """Whether the process ended in time."""
        done, _ = await asyncio.wait([self._end], timeout=seconds)
        return bool(done)

    def terminate(self) -> None:
        """Ask it to end."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it and whatever it has started."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._end.done():
            return
        try:
            if number is signal.SIGKILL:
                os.killpg(self.pid, number)
            else:
                os.kill(self.pid, number)
        except ProcessLookupError:  # between its end and our notice of it
            pass

    async def _ended(self) -> int:
        loop = asyncio.get_running_loop()
        gone = asyncio.Event()
        handle = os.pidfd_open(self.pid)
        loop.add_reader(handle, gone.set)
        try:
            await gone.wait()
        finally:
            loop.remove_reader(handle)
            os.close(handle)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)  # what it has started; before wait() frees the group's number
        return self._popen.wait()

    async def _read_output(self) -> None:
        """Forward line by line, however long the lines are."""
        assert self._popen.stdout is not None
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), self._popen.stdout
        )
        rest = b""
        try:
            while data := await reader.read(1 << 16):
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    self._forward(self.command.name, line.decode(errors="replace"))
        finally:
            transport.close()
            if rest:
                self._forward(self.command.name, rest.decode(errors="replace"))


def _child() -> tuple[str, ...]:
    """What a command line starts with, so that its process cannot outlive this one."""
    return (sys.executable, "-I", "-S", str(_CHILD), str(os.getpid()))


def _answers(url: str) -> bool:
    """Whether it answers 200; asked directly, whatever proxy the environment names."""
    try:
        with build_opener(ProxyHandler({})).open(url, timeout=PROBE_S):
            return True
    except (OSError, HTTPException):
        return False


def why(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"exited with code {code}"
    name = signal.Signals(-code).name
    hint = ", by somebody or by the kernel for lack of memory" if name == "SIGKILL" else ""
    return f"was ended by {name}{hint}"
