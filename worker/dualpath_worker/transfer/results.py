"""How a transfer ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """State of a transfer when its callback is called."""

    DONE = "done"  # all bytes are here
    FAILED = "failed"  # it has ended without them; nothing lands any more
    OVERDUE = "overdue"  # the deadline has passed and bytes may still land: keep the slots in quarantine


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferResult:
    """Outcome of one pull."""

    outcome: Outcome
    bytes: int  # asked for
    seconds: float  # since `pull` was called
    reason: str = ""  # empty if DONE


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferStats:
    """Counters since the start of the agent, and what is going on now."""

    pulled_bytes: int = 0
    done: int = 0
    failed: int = 0
    overdue: int = 0
    in_flight: int = 0  # not ended, overdue ones included
    notifications_sent: int = 0
    notifications_received: int = 0


OnResult = Callable[[TransferResult], None]
