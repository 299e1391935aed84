"""A batch of blocks that is read, and what became of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from dualpath_worker.storage.base import ReadResult


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOutcome:
    """What became of a batch; numbers are places in the list of keys that was asked for."""

    ok: tuple[int, ...]
    failed: tuple[int, ...]  # missing, corrupt, unreadable
    late: tuple[int, ...]  # given up: the bytes may still land until `on_settled`
    bytes: int  # read in time


@dataclass(slots=True, eq=False)
class Batch:
    """A batch on its way: who waits for it, and how far it is. Guarded by the queue's lock."""

    keys: Sequence[bytes]
    into: Sequence[memoryview]
    deadline: float
    on_settled: Callable[[], None]
    answer: Callable[[ReadOutcome], None]
    results: dict[int, ReadResult] = field(default_factory=dict)
    running: int = 0
    replaced: int = 0  # threads among the running ones that have a replacement
    answered: bool = False

    def outcome(self) -> ReadOutcome:
        """As of now; what has no result is late."""
        places = range(len(self.keys))
        ok = tuple(p for p in places if p in self.results and self.results[p].ok)
        failed = tuple(p for p in places if p in self.results and not self.results[p].ok)
        late = tuple(p for p in places if p not in self.results)
        return ReadOutcome(ok=ok, failed=failed, late=late, bytes=sum(self.into[p].nbytes for p in ok))
