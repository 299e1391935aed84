"""Starts the processes of a plan, keeps them running, tells when they serve, and stops them in order.

Order of a start: services and the gateway, then all engines. Order of a stop: the gateway first, as it
finishes what runs (deadline: the drain seconds), then all engines, then services; what is left after its
deadline is killed. The supervisor itself holds no state that a request needs.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from dualpath_api.logs import set_up_logging
from dualpath_cli import readyfile
from dualpath_cli.keeper import REFUSED, Keeper, always
from dualpath_cli.plan import EngineName, Plan
from dualpath_cli.process import Command

ENGINE_STOP_S = 10.0
GATEWAY_EXTRA_S = 5.0
"""The gateway needs a moment beyond the drain to close its connections."""

log = logging.getLogger("dualpath")

Beside = Callable[["Supervisor"], Awaitable[None]]
"""What runs beside the processes, and ends with them."""


def supervise(plan: Plan, beside: Beside | None = None) -> int:
    """Run until told to stop; `beside` runs all the while. Returns the exit code of the command."""
    set_up_logging("supervisor", plan.options.log_form)
    return asyncio.run(Supervisor(plan, beside).run())


@dataclass(frozen=True, slots=True)
class Up:
    """A process that is ready; some have no metrics."""

    pid: int
    metrics: str | None


class Supervisor:
    """One cluster of processes."""

    def __init__(self, plan: Plan, beside: Beside | None = None) -> None:
        self._plan = plan
        self._beside = beside
        self._expected = {"gateway", *map(str, plan.engines), *self._services()}
        self._up: dict[str, Up] = {}
        self._keepers: dict[str, Keeper] = {}
        self._port = plan.options.port
        self._serves = {name: asyncio.Event() for name in self._expected}
        self._announced = False
        self._stopping = False
        self._verdict: int | None = None
        self._decided = asyncio.Event()

    async def run(self) -> int:
        """Start, serve, stop."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_signal, number)
        self._remove_ready_file()
        starting = asyncio.create_task(self._start())
        watching = asyncio.create_task(self._watch())
        try:
            await self._decided.wait()
        finally:
            starting.cancel()
            await self._stop()
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        self.event("stopped", code=self._verdict)
        return self._verdict if self._verdict is not None else 1

    async def _start(self) -> None:
        self._keepers["gateway"] = Keeper(lambda: self._plan.gateway(self._port), self)
        for stage in self._plan.services:
            for service in stage:
                self._keepers[service.name] = Keeper(always(service), self)
            for service in stage:
                await self._serves[service.name].wait()
        await self._serves["gateway"].wait()
        for name in self._plan.engines:
            self._keepers[str(name)] = Keeper(partial(self._engine, name), self)

    def _services(self) -> list[str]:
        return [service.name for stage in self._plan.services for service in stage]

    async def _watch(self) -> None:
        """Who only looks must not end what it looks at."""
        try:
            if self._beside is not None:
                await self._beside(self)
        except Exception:
            log.exception("watching ended")

    @property
    def stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._stopping

    @property
    def missing(self) -> tuple[str, ...]:
        """The processes that do not serve now."""
        return tuple(sorted(self._expected - self._up.keys()))

    def _engine(self, name: EngineName) -> Command:
        return self._plan.engine(name, self._port)

    async def _stop(self) -> None:
        self._stopping = True
        self.event("stopping")
        self._remove_ready_file()
        keepers = dict(self._keepers)
        if gateway := keepers.pop("gateway", None):
            await gateway.stop(self._plan.options.drain_seconds + GATEWAY_EXTRA_S)
        services = [keepers.pop(name) for name in self._services() if name in keepers]
        for group in (list(keepers.values()), services):  # engines write to a store until they end
            await asyncio.gather(*(keeper.stop(ENGINE_STOP_S) for keeper in group))

    def _on_signal(self, number: signal.Signals) -> None:
        if self._stopping or self._decided.is_set():
            log.warning("asked again to stop: ending everything now")
            self._verdict = 128 + number
            for keeper in self._keepers.values():
                keeper.kill()
            return
        log.info("%s: finishing what runs, for up to %g s", number.name, self._plan.options.drain_seconds)
        self._decide(0)

    def _decide(self, code: int) -> None:
        if self._verdict is None:
            self._verdict = code
        self._decided.set()

    # ------------------------------------------------------------ what the keepers tell

    def line(self, name: str, line: str) -> None:
        """Forward a line of a process to stderr; JSON lines stay JSON."""
        if self._plan.options.log_form == "text":
            text = f"{name:<13} | {line}"
        else:
            text = line if line.startswith("{") else json.dumps({"process": name, "message": line})
        with contextlib.suppress(OSError):  # nobody reads stderr any more: no reason to stop serving
            sys.stderr.write(text + "\n")
            sys.stderr.flush()

    def started(self, name: str, pid: int) -> None:
        """A process was started."""
        log.info("%s started, pid %d", name, pid)
        self.event("started", process=name, pid=pid)

    def is_ready(self, name: str, pid: int, content: dict[str, Any]) -> None:
        """A process serves: announce the cluster when it was the last, else note what was replaced."""
        if name == "gateway":
            self._port = int(content["port"])
            content = {"metrics": self._plan.url(self._port).removesuffix("v1") + "metrics"}
        self._up[name] = Up(pid=pid, metrics=content.get("metrics"))
        self._serves[name].set()
        log.info("%s is ready", name)
        complete = self._up.keys() == self._expected
        if self._announced or complete:
            self._write_ready_file()  # before the event: who hears it finds the file as it says
        self.event("process-ready", process=name, pid=pid)
        if complete and not self._announced:
            self._announced = True
            self._announce()

    def ended(self, name: str, reason: str, pause: float) -> None:
        """A process died and will be started again."""
        self._up.pop(name, None)
        log.warning("%s; starting it again in %g s", reason, pause)
        self.event("ended", process=name, reason=reason, restart_in_s=pause)

    def gave_up(self, name: str, reason: str, code: int) -> None:
        """A process cannot be started: the cluster cannot serve."""
        refused = code == REFUSED
        if not self._decided.is_set():
            log.error("%s; %s", reason, "its message above says what to change" if refused else "giving up")
        self.event("gave-up", process=name, reason=reason)
        self._decide(REFUSED if refused else 1)

    # ------------------------------------------------------------ what people and scripts are told

    def _content(self) -> dict[str, Any]:
        return {
            **self._plan.told,
            "openai": self._plan.url(self._port),
            "metrics": {name: up.metrics for name, up in sorted(self._up.items()) if up.metrics},
            "pids": {name: up.pid for name, up in sorted(self._up.items())},
        }

    def _write_ready_file(self) -> None:
        if path := self._plan.options.ready_file:
            readyfile.write(path, self._content())

    def _remove_ready_file(self) -> None:
        if path := self._plan.options.ready_file:
            path.unlink(missing_ok=True)

    def _announce(self) -> None:
        if self._plan.options.as_json:
            self.event("ready", **self._content())
        else:
            _print(f"ready {self._plan.url(self._port)}")

    def event(self, event: str, **fields: object) -> None:
        """Print a line of JSON, where events are asked for."""
        if self._plan.options.as_json:
            _print(json.dumps({"event": event, **fields}))


def _print(line: str) -> None:
    with contextlib.suppress(OSError):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
