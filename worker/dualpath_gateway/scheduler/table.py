"""The engines that are connected, what each has said about itself, and what it was given since.

Loads are in tokens, slots or pages. An engine's own report replaces the scheduler's guess for every
assignment that the report has seen (`Report.seen`); later assignments are added to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from dualpath_api.wire import Register, Report, Role
from dualpath_policy.model import EngineLoad, Limits


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
    def accepts(self) -> bool:
        """May be given new requests: wanted by us and by the engine itself."""
        return self.accept_new and (self.report is None or self.report.accept_new)

    @property
    def reads(self) -> bool:
        """May be asked to read from storage for others."""
        return self.serve_reads and (self.report is None or self.report.serve_reads)

    @property
    def drained(self) -> bool:
        """Takes nothing new, has nothing left, and nobody reads from its buffer."""
        serving = self.report.serving_reads if self.report else 0
        seq = self.report.seq_e if self.report else 0
        return not self.accepts and not self.jobs and not serving and not seq

    @property
    def status(self) -> str:
        """`serving`, `draining` or `drained`."""
        if self.accepts:
            return "serving"
        return "drained" if self.drained else "draining"

    def seen(self, report: Report) -> None:
        """Replace the guess by the engine's own figures."""
        self.report = report
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
        )


class EngineTable:
    """All connected engines, and the drain wishes of those that are not."""

    def __init__(self) -> None:
        self._engines: dict[str, Engine] = {}
        self._wishes: dict[str, tuple[bool, bool]] = {}
        self._asked = 0

    def __iter__(self) -> Iterator[Engine]:
        return iter(self._engines.values())

    def __len__(self) -> int:
        return len(self._engines)

    def get(self, name: str | None) -> Engine | None:
        """The engine of that name, if connected."""
        return self._engines.get(name) if name else None

    def add(self, register: Register, now: float) -> Engine:
        """A newly registered engine; drain wishes from before hold on."""
        accept_new, serve_reads = self._wishes.get(register.engine, (True, True))
        engine = Engine(register=register, connected_at=now, accept_new=accept_new, serve_reads=serve_reads)
        self._engines[register.engine] = engine
        return engine

    def remove(self, name: str) -> Engine | None:
        """Forget a lost engine."""
        return self._engines.pop(name, None)

    def wish(self, name: str, accept_new: bool, serve_reads: bool) -> None:
        """Remember what an engine should do, connected or not."""
        self._wishes[name] = (accept_new, serve_reads)
        if engine := self._engines.get(name):
            engine.accept_new, engine.serve_reads = accept_new, serve_reads

    def of(self, role: Role) -> list[Engine]:
        """Engines of one role."""
        return [engine for engine in self if engine.role is role]

    def loads(self, role: Role) -> list[EngineLoad]:
        """Loads of one role's engines; the read queue is summed over a group, which shares its node's NIC."""
        engines = self.of(role)
        reads: dict[str, int] = {}
        for engine in engines:
            group = engine.register.group
            reads[group] = reads.get(group, 0) + engine.read_queue()
        return [engine.load(reads[engine.register.group]) for engine in engines]

    def limits(self) -> Limits:
        """Alpha and beta of the slowest engine that has measured itself."""
        storage = [e.register.storage_tokens_per_s for e in self if e.register.storage_tokens_per_s > 0]
        compute = [
            e.register.prefill_tokens_per_s
            for e in self.of(Role.PREFILL)
            if e.register.prefill_tokens_per_s > 0
        ]
        return Limits.from_rates(
            storage_tokens_per_s=min(storage, default=0.0), prefill_tokens_per_s=min(compute, default=0.0)
        )

    def to_ask(self) -> Engine | None:
        """The next engine to ask about storage, in turn."""
        engines = sorted(self, key=lambda engine: engine.name)
        if not engines:
            return None
        self._asked += 1
        return engines[self._asked % len(engines)]

    def can_serve(self) -> bool:
        """At least one prefill and one decode engine take new requests."""
        return all(any(engine.accepts for engine in self.of(role)) for role in Role)

    def context(self) -> int:
        """Tokens that any pair of the live engines can hold; 0 without a pair.

        The prefill buffer holds the sequence, the decode buffer the sequence and one block more, the cache
        the sequence; the smallest engine counts, so that a request can go on anywhere after a failure.
        """
        prefill, decode = self.of(Role.PREFILL), self.of(Role.DECODE)
        if not prefill or not decode:
            return 0
        holds = [e.register.max_context for e in self]
        holds += [e.register.buffer_slots * e.register.layout.block_tokens for e in prefill]
        holds += [(e.register.buffer_slots - 1) * e.register.layout.block_tokens for e in decode]
        holds += [e.register.cache_pages * e.register.layout.block_tokens for e in decode]
        return max(0, min(holds))

    def block_tokens(self) -> int:
        """Tokens of a block."""
        return next((engine.register.layout.block_tokens for engine in self), 64)

    def cache_pages(self) -> int:
        """Pages of the smallest decode cache; 0 without a decode engine."""
        return min((e.register.cache_pages for e in self.of(Role.DECODE)), default=0)
