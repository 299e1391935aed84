"""What happened to one request, for `GET /debug/requests/{id}` and `dualpath explain`."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

HISTORY_STEPS = 400
HISTORY_ATTEMPTS = 50


@dataclass(slots=True)
class Record:
    """The history of one request. Times are those of the caller's clock, in seconds."""

    request: str
    arrived: float
    prompt_tokens: int
    choices: int
    history: list[dict[str, Any]] = field(default_factory=list)
    attempts: list[dict[str, Any]] = field(default_factory=list)
    outcome: str = "running"
    generated_tokens: int = 0
    cached_tokens: int = 0

    def add(self, at: float, state: str, **detail: object) -> None:
        """One step. Of a very long history the middle is forgotten."""
        if len(self.history) >= HISTORY_STEPS:
            del self.history[HISTORY_STEPS // 2]
        self.history.append({"at": at, "state": state, **detail})

    def attempt(self, job: str, number: int) -> dict[str, Any]:
        """Figures of one attempt of one job; made when first asked for."""
        for known in self.attempts:
            if (known["job"], known["attempt"]) == (job, number):
                return known
        if len(self.attempts) >= HISTORY_ATTEMPTS:
            del self.attempts[HISTORY_ATTEMPTS // 2]
        self.attempts.append({"job": job, "attempt": number})
        return self.attempts[-1]

    def as_dict(self, wall_offset: float) -> dict[str, Any]:
        """JSON-ready; `wall_offset` turns the clock's times into Unix time."""
        return {
            "id": self.request,
            "arrived": self.arrived + wall_offset,
            "outcome": self.outcome,
            "prompt_tokens": self.prompt_tokens,
            "cached_tokens": self.cached_tokens,
            "generated_tokens": self.generated_tokens,
            "choices": self.choices,
            "attempts": self.attempts,
            "history": [
                {**step, "at": step["at"] + wall_offset, "after_s": round(step["at"] - self.arrived, 6)}
                for step in self.history
            ],
        }


class Records:
    """The newest requests, running and finished."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._records: OrderedDict[str, Record] = OrderedDict()

    def open(self, record: Record) -> Record:
        """Remember a new request; the oldest finished one is forgotten when there are too many."""
        self._records[record.request] = record
        while len(self._records) > self._keep:
            self._records.popitem(last=False)
        return record

    def get(self, request: str) -> Record | None:
        """The record of a request, unless it is too old or unknown."""
        return self._records.get(request)

    def newest(self, count: int) -> list[Record]:
        """The newest records, newest first."""
        return list(reversed(self._records.values()))[:count]
