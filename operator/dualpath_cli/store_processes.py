"""The processes of `dualpath storage up`: maybe an etcd, masters, nodes. Kept alive, stopped in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dualpath_api.errors import SpecError
from dualpath_api.logs import set_up_logging
from dualpath_api.units import parse_bytes
from dualpath_cli import readyfile
from dualpath_cli.checks import check_ready_file, reachable
from dualpath_cli.keeper import REFUSED, Keeper, always
from dualpath_cli.process import Command

log = logging.getLogger("dualpath")

STOP_S = 15.0
_BECOME = "import os,sys;os.execv(sys.argv[1],sys.argv[1:])"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreOptions:
    """The command line."""

    nodes: int
    size: int
    medium: str
    path: Path | None
    host: str
    port: int
    metrics_port: int
    etcd: Path | None
    ready_file: Path | None
    log_form: str

    @property
    def masters(self) -> int:
        """A second one only where somebody elects the leader."""
        return 2 if self.etcd else 1

    @property
    def etcd_port(self) -> int:
        """Of clients; the next one is for peers."""
        return self.port + self.masters

    @property
    def endpoint(self) -> str:
        """What engines are told."""
        return f"{self.host}:{self.etcd_port if self.etcd else self.port}"


def size_of(text: str) -> int:
    """Bytes. Raises SpecError."""
    try:
        size = parse_bytes(text)
    except ValueError as error:
        raise SpecError(f"--size {text} is no size", cause=str(error), remedy="for example 16Gi") from None
    if size < 1 << 24:
        raise SpecError(
            f"--size {text} is too little", cause="a node keeps at least 16Mi", remedy="give more"
        )
    return size


def run_store(options: StoreOptions) -> int:
    """Run until told to stop; the exit code. Raises SpecError."""
    set_up_logging("storage", options.log_form)
    if options.medium == "NVMe" and options.path is None:
        raise SpecError("medium NVMe needs a directory", cause="no --path", remedy="give one with --path DIR")
    check_ready_file(options.ready_file)
    with contextlib.ExitStack() as held:
        folder = options.path or Path(
            held.enter_context(tempfile.TemporaryDirectory(prefix="dualpath-store-"))
        )
        return asyncio.run(_run(options, folder.absolute()))


def commands(options: StoreOptions, folder: Path) -> Iterator[tuple[Command, ...]]:
    """Groups of processes; each starts when the one before is ready."""
    metrics = iter(range(options.metrics_port, options.metrics_port + options.masters + options.nodes))
    if options.etcd:
        yield (_etcd(options, options.etcd, folder / "etcd"),)
    where = ("--etcd", options.endpoint) if options.etcd else ()
    offload = ("--offload",) if options.medium == "NVMe" else ()
    yield tuple(
        _process(
            options, "master", number, next(metrics), "--port", str(options.port + number), *where, *offload
        )
        for number in range(options.masters)
    )
    where = where or ("--master", options.endpoint)
    keep = ("--size", str(options.size), "--medium", options.medium)
    yield tuple(
        _process(
            options, "node", number, next(metrics), *where, *keep, "--path", str(folder / f"node-{number}")
        )
        for number in range(options.nodes)
    )


def _process(options: StoreOptions, verb: str, number: int, metrics_port: int, *rest: str) -> Command:
    own = ("--host", options.host, "--metrics-host", options.host, "--metrics-port", str(metrics_port))
    return Command(
        name=f"{verb}-{number}",
        arguments=("-P", "-m", "dualpath_worker.storage", verb, *own, "--log", options.log_form, *rest),
        probe=f"http://{reachable(options.host)}:{metrics_port}/readyz",
    )


def _etcd(options: StoreOptions, program: Path, data: Path) -> Command:
    client, peer = (f"http://{options.host}:{options.etcd_port + offset}" for offset in (0, 1))
    return Command(
        name="etcd",
        arguments=(
            "-I", "-S", "-c", _BECOME, str(program.absolute()), "--data-dir", str(data), "--log-level=error",
            "--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer,
            "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}",
        ),
        probe=f"{client}/health",
    )  # fmt: skip


async def _run(options: StoreOptions, folder: Path) -> int:
    return await _Store(options, folder).run()


class _Store:
    """Keeps the processes; the watcher of their keepers."""

    def __init__(self, options: StoreOptions, folder: Path) -> None:
        self._options, self._folder = options, folder
        self._groups: list[list[Keeper]] = []
        self._pids: dict[str, int] = {}
        self._ready: dict[str, asyncio.Event] = {}
        self._decided: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def run(self) -> int:
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self._decide, 0)
        starting = asyncio.create_task(self._start())
        starting.add_done_callback(self._has_started)
        try:
            return await self._decided
        finally:
            starting.cancel()
            if self._options.ready_file:
                self._options.ready_file.unlink(missing_ok=True)
            for group in reversed(self._groups):  # nodes leave while there is a master
                await asyncio.gather(*(keeper.stop(STOP_S) for keeper in group))

    async def _start(self) -> None:
        for group in commands(self._options, self._folder):
            self._ready |= {command.name: asyncio.Event() for command in group}
            self._groups.append([Keeper(always(command), self) for command in group])
            for command in group:
                await self._ready[command.name].wait()
        content = {"endpoint": self._options.endpoint, "pids": self._pids, "masters": self._masters()}
        if self._options.ready_file:
            readyfile.write(self._options.ready_file, content)
        sys.stdout.write(f"ready {self._options.endpoint}\n")
        sys.stdout.flush()

    def _has_started(self, starting: asyncio.Task[None]) -> None:
        if not starting.cancelled() and (error := starting.exception()) is not None:
            log.error("the store runs and cannot say so: %s", error)
            self._decide(1)

    def _masters(self) -> list[str]:
        first = self._options.metrics_port
        return [f"{self._options.host}:{first + number}" for number in range(self._options.masters)]

    def _decide(self, code: int) -> None:
        if not self._decided.done():
            self._decided.set_result(code)

    # ------------------------------------------------------------ what the keepers tell

    def line(self, name: str, line: str) -> None:
        with contextlib.suppress(OSError):
            sys.stderr.write(f"{name:<9} | {line}\n" if self._options.log_form == "text" else f"{line}\n")
            sys.stderr.flush()

    def started(self, name: str, pid: int) -> None:
        self._pids[name] = pid

    def is_ready(self, name: str, pid: int, content: dict[str, Any]) -> None:
        log.info("%s is ready, pid %d", name, pid)
        self._ready[name].set()

    def ended(self, name: str, reason: str, pause: float) -> None:
        log.warning("%s; starting it again in %g s", reason, pause)

    def gave_up(self, name: str, reason: str, code: int) -> None:
        log.error("%s; giving up", reason)
        self._decide(REFUSED if code == REFUSED else 1)
