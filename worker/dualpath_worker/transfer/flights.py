"""Transfers that have been posted and have not ended; agent's thread only."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dualpath_api.wire import PoolInfo
from dualpath_worker.transfer.port import NixlPort, PeerLostError, PortError
from dualpath_worker.transfer.results import OnResult, Outcome, TransferResult


@dataclass(slots=True, eq=False)
class Remote:
    """A process that we can read from. Two incarnations of one process share it."""

    name: str  # of its NIXL agent: engine/token
    metadata: bytes
    pool: PoolInfo
    descriptors: Any
    flights: int = 0
    lost: bool = False


@dataclass(slots=True, eq=False, kw_only=True)
class Flight:
    """One READ."""

    peer: str
    remote: Remote
    size: int  # bytes
    started: float  # time.monotonic()
    deadline: float
    on_done: OnResult
    on_settled: OnResult | None
    notify: bytes | None
    handle: Any = None
    overdue: bool = False

    def result(self, outcome: Outcome, reason: str) -> TransferResult:
        """The result as of now."""
        seconds = time.monotonic() - self.started
        return TransferResult(outcome=outcome, bytes=self.size, seconds=seconds, reason=reason)


@dataclass(slots=True)
class Flights:
    """All flights of an agent."""

    port: NixlPort
    on_end: Callable[[Flight, Outcome, str], None]  # once for each: nothing of it can land any more
    on_overdue: Callable[[Flight], None]  # at most once for each
    on_lost: Callable[[Flight, str], None]
    active: list[Flight] = field(default_factory=list)
    count: int = (
        0  # of flights that have not ended; other threads may read it, `active` changes while polling
    )

    overdue_since: float | None = None  # of the flight that is so for longest, as of the last `poll`

    def add(self, flight: Flight) -> None:
        """Track a posted transfer."""
        flight.remote.flights += 1
        self.count += 1
        self.active.append(flight)

    @property
    def urgent(self) -> bool:
        """Whether somebody waits for a flight: overdue ones have been given up."""
        return any(not flight.overdue for flight in self.active)

    def poll(self) -> bool:
        """Check every flight once; true if one has ended."""
        now = time.monotonic()
        flights, self.active = self.active, []
        still = [flight for flight in flights if not self._ended(flight, now)]
        ended = len(still) < len(flights)
        self.active = still + self.active  # a callback may have posted new ones
        self.overdue_since = min((flight.deadline for flight in self.active if flight.overdue), default=None)
        return ended

    def _ended(self, flight: Flight, now: float) -> bool:
        try:
            done = self.port.finished(flight.handle)
        except PeerLostError as error:
            self.on_lost(flight, str(error))
            return self._end(flight, Outcome.FAILED, f"connection lost: {error}")
        except PortError as error:
            return self._end(flight, Outcome.FAILED, str(error))
        if done:
            return self._end(flight, Outcome.DONE, "")
        if not flight.overdue and now > flight.deadline:
            flight.overdue = True
            self.on_overdue(flight)
        return False

    def _end(self, flight: Flight, outcome: Outcome, reason: str) -> bool:
        flight.remote.flights -= 1
        self.count -= 1
        self.on_end(flight, outcome, reason)
        return True
