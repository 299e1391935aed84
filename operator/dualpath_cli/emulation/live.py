"""What the NICs of an emulated network do, second by second: a table in a terminal, else lines or events.

Rates are bytes on the wire in the direction that carries more, utilisation is that over the rate that is
set, and the queue is what waits in the NIC's buckets. All of it is read from the kernel.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.request import ProxyHandler, Request, build_opener

from msgspec import DecodeError
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from dualpath_api.report import ControlReport, decode_report
from dualpath_cli.emulation.rates import UNLIMITED, format_rate
from dualpath_cli.emulation.wires import Counters, Wires
from dualpath_cli.supervisor import Beside, Supervisor

PERIOD_S = 1.0
LINES_EVERY = 10
"""Periods between two lines of those who read a log."""
_ASK_S = 2.0

log = logging.getLogger("dualpath")


@dataclass(frozen=True, slots=True, kw_only=True)
class NicNow:
    """One NIC over the last period; bytes per second."""

    nic: str
    up: bool
    link: float | None  # None: unlimited
    rx: float
    tx: float
    waiting: int  # bytes

    @property
    def utilisation(self) -> float | None:
        """Of the busier direction; None: unlimited."""
        return None if self.link is None else max(self.rx, self.tx) / self.link


class Meter:
    """Turns counters into rates."""

    def __init__(self, network: Wires) -> None:
        self._network = network
        self._before: tuple[float, Mapping[str, Counters]] = (time.monotonic(), network.all_counters())

    def read(self) -> list[NicNow]:
        """All NICs since the last call."""
        then, before = self._before
        self._before = now, counters = time.monotonic(), self._network.all_counters()
        seconds, found = max(now - then, 1e-3), []
        for nic, link in self._network.links().items():
            new, old = counters[nic], before[nic]
            bits = link.bits_per_s
            found.append(
                NicNow(
                    nic=nic,
                    up=link.up,
                    link=None if bits is None or bits >= UNLIMITED else bits / 8,
                    rx=max(0, new.rx_bytes - old.rx_bytes) / seconds,
                    tx=max(0, new.tx_bytes - old.tx_bytes) / seconds,
                    waiting=new.rx_waiting + new.tx_waiting,
                )
            )
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What is shown: of whom, and where to ask."""

    network: Wires
    url: str
    token: str

    def report(self) -> ControlReport | None:
        """What the scheduler says; None: it does not answer."""
        request = Request(f"{self.url}/control/v1/report", headers={"Authorization": f"Bearer {self.token}"})
        try:
            with build_opener(ProxyHandler({})).open(request, timeout=_ASK_S) as answer:
                return decode_report(answer.read())
        except (OSError, HTTPException, DecodeError):
            return None


def table(view: View) -> Beside:
    """A table in the terminal, renewed each second."""

    async def show(supervisor: Supervisor) -> None:
        with Live(Text("starting"), console=Console(), auto_refresh=False, redirect_stderr=False) as live:
            async for nics, report in _each_period(view):
                live.update(Group(drawn(view, nics), Text(below(supervisor, report))), refresh=True)

    return show


def lines(view: View) -> Beside:
    """A line a NIC that has something to do, now and then, and an event each second."""

    async def show(supervisor: Supervisor) -> None:
        count = 0
        async for nics, report in _each_period(view):
            count += 1
            supervisor.event("nics", nics=[event_of(nic) for nic in nics], decodeShare=_share(report))
            if count % LINES_EVERY == 0:
                for nic in nics:
                    if max(nic.rx, nic.tx) > (nic.link or 1e9) / 100 or not nic.up:
                        log.info("%s", " ".join(row(nic)))

    return show


async def _each_period(view: View) -> AsyncIterator[tuple[list[NicNow], ControlReport | None]]:
    meter = await asyncio.to_thread(Meter, view.network)
    while True:
        await asyncio.sleep(PERIOD_S)
        yield await asyncio.to_thread(meter.read), await asyncio.to_thread(view.report)


def drawn(view: View, nics: Sequence[NicNow]) -> Table:
    """The table of all NICs."""
    shown = Table(*_HEADS, title=f"{view.network.name}: {view.url}/v1", title_justify="left")
    for column in shown.columns[1:]:
        column.justify = "right"
    for nic in nics:
        shown.add_row(*row(nic), style="red" if not nic.up else None)
    return shown


_HEADS = ("NIC", "rate", "received", "sent", "busy", "queue")


def row(nic: NicNow) -> tuple[str, ...]:
    """One NIC in words."""
    rate = "unlimited" if nic.link is None else format_rate(round(nic.link * 8))
    busy = "-" if nic.utilisation is None else f"{100 * nic.utilisation:.0f} %"
    return (
        nic.nic,
        rate if nic.up else "cut",
        f"{nic.rx / 1e6:.1f} MB/s",
        f"{nic.tx / 1e6:.1f} MB/s",
        busy,
        f"{nic.waiting / 1024:.0f} KiB",
    )


def below(supervisor: Supervisor, report: ControlReport | None) -> str:
    """Who is missing; otherwise requests, and who reads."""
    if supervisor.stopping:
        return "stopping"
    if supervisor.missing:
        return f"waiting for {', '.join(supervisor.missing)}"
    if report is None:
        return "the scheduler does not answer"
    share = _share(report)
    told = "-" if share is None else f"{100 * share:.0f} %"
    waits = [
        f"{side} {seconds:.2f} s"
        for side in ("prefill", "decode")
        if (seconds := getattr(report.sides, side).read_queue_s) is not None
    ]
    queue = f"{report.queue.running} running, {report.queue.waiting} waiting"
    return f"{queue}; decode side reads {told}; read queues: {', '.join(waits) or '-'}"


def event_of(nic: NicNow) -> dict[str, object]:
    """One NIC for scripts; bytes and bytes per second."""
    return {
        "nic": nic.nic,
        "up": nic.up,
        "linkBytesPerS": nic.link,
        "rxBytesPerS": round(nic.rx),
        "txBytesPerS": round(nic.tx),
        "utilisation": nic.utilisation,
        "queueBytes": nic.waiting,
    }


def _share(report: ControlReport | None) -> float | None:
    return None if report is None else report.read.recent_decode_share


@contextlib.contextmanager
def quiet(log_file: Path) -> Iterator[None]:
    """The table has the terminal; everything else is written to a file."""
    with log_file.open("a", buffering=1) as sink, contextlib.redirect_stderr(sink):
        yield
