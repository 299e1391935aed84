"""One connected engine: what it has said about itself, and what it was given since.

Loads are in tokens, slots or pages. An engine's own report replaces the scheduler's guess for every
assignment that the report has seen (`Report.seen`); later assignments are added to it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from dualpath_api.wire import Register, Report, Role
from dualpath_gateway.scheduler.window import Window
from dualpath_policy.model import EngineLoad


@dataclass(slots=True)
class Guess:
    """What one assignment adds to an engine until a report includes it."""

    tokens: int
    read_tokens: int
    slots: int
    cache_tokens: int


@dataclass(slots=True)
class Engine:
    """One connected engine."""

    register: Register
    connected_at: float
    report: Report | None = None
    reported_at: float | None = None
    read_rate: Window = field(default_factory=Window)  # bytes from storage
    busy_rate: Window = field(default_factory=Window)  # seconds of computing
    unseen: dict[int, Guess] = field(default_factory=dict)
    reserved: dict[str, Guess] = field(default_factory=dict)  # decided, not yet sent; by job
    jobs: set[str] = field(default_factory=set)
    accept_new: bool = True  # wanted by the operator of the cluster
    serve_reads: bool = True

    @property
    def name(self) -> str:
        """The engine's id, also its process name."""
        return self.register.engine

    @property
    def role(self) -> Role:
        """Prefill or decode."""
        return self.register.role

    @property
    def heard_at(self) -> float:
        """When it last told its load, or came."""
        return self.connected_at if self.reported_at is None else self.reported_at

    @property
    def accepts(self) -> bool:
        """May be given new requests: wanted by us and by the engine itself."""
        return self.accept_new and (self.report is None or self.report.accept_new)

    @property
    def reads(self) -> bool:
        """May be asked to read from storage for others."""
        return self.serve_reads and (self.report is None or self.report.serve_reads)

    @property
    def drained(self) -> bool:
        """Proven by the engine itself: it takes nothing new, has nothing left, and nobody reads from it."""
        report = self.report
        if report is None or report.accept_new or report.serve_reads or self.accept_new or self.serve_reads:
            return False
        return not (self.jobs or report.seq_e or report.serving_reads or report.read_bytes_queued)

    @property
    def status(self) -> str:
        """`serving`, `draining` or `drained`."""
        if self.accepts:
            return "serving"
        return "drained" if self.drained else "draining"

    def seen(self, report: Report, now: float) -> None:
        """Replace the guess by the engine's own figures."""
        self.report, self.reported_at = report, now
        self.read_rate.add(now, report.read_bytes_total)
        self.busy_rate.add(now, report.busy_s)
        self.unseen = {number: guess for number, guess in self.unseen.items() if number > report.seen}

    def guesses(self) -> list[Guess]:
        """What comes on top of the last report."""
        return [*self.unseen.values(), *self.reserved.values()]

    def read_queue(self) -> int:
        """Hit tokens that wait for this engine's reads."""
        reported = self.report.read_q if self.report else 0
        return max(0, reported + sum(guess.read_tokens for guess in self.guesses()))

    def load(self, node_reads: int) -> EngineLoad:
        """What the policy is told; `node_reads` is the read queue of the whole node."""
        report, unseen = self.report, self.guesses()
        block = self.register.layout.block_tokens
        slots = report.free_slots if report else self.register.buffer_slots
        pages = report.free_pages if report else self.register.cache_pages
        return EngineLoad(
            engine=self.name,
            group=self.register.group,
            role=self.role,
            seq_e=(report.seq_e if report else 0) + len(unseen),
            tok_e=(report.tok_e if report else 0) + sum(guess.tokens for guess in unseen),
            read_q=node_reads,
            free_tokens=max(0, pages * block - sum(guess.cache_tokens for guess in unseen)),
            free_slots=max(0, slots - sum(guess.slots for guess in unseen)),
            accept_new=self.accepts,
            serve_reads=self.reads,
            storage_nic=self.register.storage_nic,
            node=self.register.node,
        )
