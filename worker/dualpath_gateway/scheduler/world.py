"""All that the scheduler knows, and the few steps that every part of it takes.

Only this package changes it; effects pile up in `out` until the service takes them.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field

from dualpath_api.keys import KvLayout
from dualpath_api.wire import Abort, ToEngine
from dualpath_gateway.scheduler.effects import Effect, Ended, Failure, Note, Observe, Send
from dualpath_gateway.scheduler.model import Job, Patience, State, Turn
from dualpath_gateway.scheduler.pending import PendingKeys
from dualpath_gateway.scheduler.record import Records
from dualpath_gateway.scheduler.table import EngineTable
from dualpath_policy.model import Tuning

RECENT = 256
"""Requests whose (prefill, decode) bytes, and whose (prompt, hit) tokens, are reported as recent."""


@dataclass(slots=True)
class Totals:
    """Sums since the start of the process, for metrics and the control report."""

    prompt_tokens: int = 0
    hit_tokens: int = 0
    generated_tokens: int = 0
    prefill_read_bytes: int = 0
    decode_read_bytes: int = 0
    lost_blocks: int = 0
    turned_away: int = 0  # requests, for want of engines
    outcomes: dict[str, int] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)  # by how they ended
    modes: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Query:
    """A question to storage: how much of a job's prompt it has in a layout."""

    job: str
    engine: str
    layout: KvLayout


@dataclass(slots=True)
class World:
    """The scheduler's state."""

    patience: Patience
    tuning: Tuning
    engines: EngineTable = field(default_factory=EngineTable)
    pending: PendingKeys = field(default_factory=PendingKeys)
    turns: dict[str, Turn] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)
    queue: list[Job] = field(default_factory=list)  # by Job.order
    queries: dict[int, Query] = field(default_factory=dict)
    totals: Totals = field(default_factory=Totals)
    out: list[Effect] = field(default_factory=list)
    recent_reads: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=RECENT))
    recent_hits: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=RECENT))
    records: Records = field(init=False)
    changed: bool = False  # something that may let a waiting job go on
    numbers: int = 0  # assignment numbers given out
    query_numbers: int = 0
    orders: int = 0
    warned: set[str] = field(default_factory=set)  # engines without a NIC; "": no rule names one
    _wakeups: list[tuple[float, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """The records keep as many requests as the patience says."""
        self.records = Records(self.patience.records)

    # ------------------------------------------------------------ effects

    def send(self, engine: str, message: ToEngine) -> None:
        """To an engine, if it is connected."""
        if self.engines.get(engine):
            self.out.append(Send(engine, message))

    def note(self, event: str, /, **fields: object) -> None:
        """A log line."""
        self.out.append(Note(event, fields))

    def warn(self, event: str, /, **fields: object) -> None:
        """A log line that somebody should see."""
        self.out.append(Note(event, fields, warning=True))

    def observe(self, metric: str, value: float, **labels: str) -> None:
        """A measurement."""
        self.out.append(Observe(metric, value, labels))

    # ------------------------------------------------------------ time

    def wake(self, at: float, job: Job) -> None:
        """Look at the job again at that time."""
        heapq.heappush(self._wakeups, (at, job.id))

    def due(self, now: float) -> list[str]:
        """Jobs whose time has come, each once."""
        found: dict[str, None] = {}
        while self._wakeups and self._wakeups[0][0] <= now:
            found[heapq.heappop(self._wakeups)[1]] = None
        return list(found)

    def next_wakeup(self) -> float | None:
        """When `due` has something next."""
        while self._wakeups and self._wakeups[0][1] not in self.jobs:
            heapq.heappop(self._wakeups)
        return self._wakeups[0][0] if self._wakeups else None

    # ------------------------------------------------------------ jobs

    def enter(self, job: Job, state: State, now: float, **detail: object) -> None:
        """Move a job to a state, and plan to look at it when that state's time is up."""
        job.state, job.since, job.progress_at = state, now, now
        job.turn.record.add(now, state.value, job=job.id, attempt=job.attempt, **detail)
        limit = self.allowed(job)
        if limit is not None:
            self.wake(now + limit, job)

    def allowed(self, job: Job) -> float | None:
        """Seconds that the job may stay in its state without progress; None: until its turn gives up."""
        patience = self.patience
        return {
            State.ASSIGNED: patience.assign,
            State.READING: patience.read,
            State.PREFILLING: patience.prefill,
            State.FIRST_TOKEN: patience.fill,
            State.FILLING: patience.fill,
            State.DECODING: patience.token,
        }.get(job.state)

    def enqueue(self, job: Job, now: float, **detail: object) -> None:
        """Put a job into the queue at the place that its arrival gives it."""
        job.queued_at, self.changed = now, True
        self.enter(job, State.QUEUED, now, **detail)
        at = next((i for i, other in enumerate(self.queue) if other.order > job.order), len(self.queue))
        self.queue.insert(at, job)
        self.wake(job.turn.give_up_at, job)
        self.wake(now + self.patience.pending, job)

    def unqueue(self, job: Job) -> None:
        """Take a job out of the queue, and forget its open question to storage."""
        if job in self.queue:
            self.queue.remove(job)
        if job.query is not None:
            self.queries.pop(job.query, None)
            job.query = None

    def leave_engines(self, job: Job, *, abort: bool) -> None:
        """End the current attempt on both sides; each engine is told unless it knows (`abort` False)."""
        self.changed = True
        for name in {job.prefill, job.decode} - {None}:
            assert name is not None
            if engine := self.engines.get(name):
                engine.jobs.discard(job.id)
                engine.reserved.pop(job.id, None)
                told = any(name == holder for holder, _ in job.numbers)
                if abort and told:
                    self.send(name, Abort(request=job.id, attempt=job.attempt))
        for name, number in job.numbers:
            if engine := self.engines.get(name):
                engine.unseen.pop(number, None)
        job.numbers.clear()
        job.prefill = job.decode = job.assign_prefill = None

    def drop_job(self, job: Job, state: State, now: float, **detail: object) -> None:
        """The job is over."""
        self.unqueue(job)
        self.enter(job, state, now, **detail)
        self.jobs.pop(job.id, None)
        job.turn.jobs.discard(job.id)

    def count(self, table: dict[str, int], key: str) -> None:
        """One more of a kind."""
        table[key] = table.get(key, 0) + 1

    # ------------------------------------------------------------ turns

    def end_turn(self, turn: Turn, outcome: str, now: float, failure: Failure | None = None) -> None:
        """The client's stream is over; jobs that still persist blocks go on without it."""
        if self.turns.pop(turn.id, None) is None:
            return
        turn.record.outcome = outcome if failure is None else f"{outcome}: {failure.message}"
        self.count(self.totals.outcomes, outcome)
        turn.record.cached_tokens = turn.cached_tokens
        turn.record.generated_tokens = sum(len(choice.tokens) for choice in turn.choices)
        if outcome != "aborted":
            self.out.append(Ended(turn.id, failure))
        say = self.note if failure is None else self.warn
        say(
            "request ended",
            request=turn.id,
            outcome=turn.record.outcome,
            prompt_tokens=len(turn.tokens),
            cached_tokens=turn.cached_tokens,
            generated_tokens=turn.record.generated_tokens,
            seconds=round(now - turn.arrived, 6),
        )
