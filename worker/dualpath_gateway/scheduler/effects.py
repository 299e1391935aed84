"""What the state machine wants done: messages to engines, tokens to clients, measurements and log lines."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from dualpath_api.wire import Drawn, ToEngine


class FailureKind(StrEnum):
    """Why a request could not be finished; decides the HTTP status."""

    ENGINE = "engine"  # three attempts failed
    TIMEOUT = "timeout"  # no progress within the request's patience
    SHUTDOWN = "shutdown"  # this process ends
    UNSERVABLE = "unservable"  # no live engine could ever hold it


@dataclass(frozen=True, slots=True)
class Failure:
    """The end of a request that could not be finished."""

    kind: FailureKind
    message: str


@dataclass(frozen=True, slots=True)
class Send:
    """A message to one engine."""

    engine: str
    message: ToEngine


@dataclass(frozen=True, slots=True)
class Emit:
    """One token of one choice to the client."""

    request: str
    drawn: Drawn


@dataclass(frozen=True, slots=True)
class Ended:
    """All choices of a request are finished, or it failed. The last effect of a request."""

    request: str
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Observe:
    """One measurement for a metric of `metrics.METRICS`."""

    metric: str
    value: float
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Note:
    """One log line."""

    event: str
    fields: dict[str, object]
    warning: bool = False


Effect = Send | Emit | Ended | Observe | Note
