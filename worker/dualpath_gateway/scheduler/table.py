"""The engines that are connected, and what is wished of them.

A wish belongs to an engine's process: it outlives a lost connection, and ends with the process, whose
successor of the same name has been asked nothing. A scheduler that has just been started learns from the
engines what the one before had wished.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from dualpath_api.keys import KvLayout
from dualpath_api.wire import Register, Role
from dualpath_gateway.scheduler.engine import Engine
from dualpath_gateway.scheduler.revisions import Revision, revisions_of
from dualpath_policy.model import EngineLoad, Limits

WISHES_KEPT = 1000
"""Names of engines, the newest, whose wishes are remembered."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What one process of an engine should do."""

    process: str
    accept_new: bool
    serve_reads: bool


class EngineTable:
    """All connected engines, and the wishes for those that may come back."""

    def __init__(self) -> None:
        self._engines: dict[str, Engine] = {}
        self._wishes: dict[str, Wish] = {}
        self._asked = 0

    def __iter__(self) -> Iterator[Engine]:
        return iter(self._engines.values())

    def __len__(self) -> int:
        return len(self._engines)

    def get(self, name: str | None) -> Engine | None:
        """The engine of that name, if connected."""
        return self._engines.get(name) if name else None

    def add(self, register: Register, now: float) -> Engine:
        """A newly registered engine; what was wished of its process before holds on."""
        wish = self._wishes.get(register.engine)
        if wish is None or wish.process != register.process:
            wish = Wish(register.process, register.accept_new, register.serve_reads)
        engine = Engine(
            register=register,
            connected_at=now,
            accept_new=wish.accept_new,
            serve_reads=wish.serve_reads,
        )
        self._engines[register.engine] = engine
        return engine

    def remove(self, name: str) -> Engine | None:
        """Forget a lost engine."""
        return self._engines.pop(name, None)

    def wish(self, name: str, accept_new: bool, serve_reads: bool) -> None:
        """What a connected engine should do from now on; unknown names are ignored."""
        engine = self._engines.get(name)
        if engine is None:
            return
        engine.accept_new, engine.serve_reads = accept_new, serve_reads
        self._wishes.pop(name, None)
        self._wishes[name] = Wish(engine.register.process, accept_new, serve_reads)
        if len(self._wishes) > WISHES_KEPT:
            del self._wishes[next(iter(self._wishes))]

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

    def to_ask(self, layout: KvLayout) -> Engine | None:
        """The next engine of this layout to ask about storage, in turn."""
        engines = sorted(
            (engine for engine in self if engine.register.layout == layout), key=lambda engine: engine.name
        )
        if not engines:
            return None
        self._asked += 1
        return engines[self._asked % len(engines)]

    # ------------------------------------------------------------ revisions

    def revisions(self) -> list[Revision]:
        """All revisions of the connected engines."""
        return revisions_of(self)

    def complete(self) -> list[Revision]:
        """The revisions that can serve a new request."""
        return [revision for revision in self.revisions() if revision.complete]

    def layout_of(self, revision: str) -> KvLayout | None:
        """The KV layout of a revision's engines; None where none is connected."""
        return next((e.register.layout for e in self if e.register.revision == revision), None)

    def layouts(self) -> list[KvLayout]:
        """What a request may be hashed with: the layouts of complete revisions, else of all; each once."""
        revisions = self.revisions()
        serving = [revision for revision in revisions if revision.complete] or revisions
        return list(dict.fromkeys(revision.layout for revision in serving))

    def can_serve(self) -> bool:
        """At least one revision is complete."""
        return bool(self.complete())

    def context(self) -> int:
        """Tokens that any pair of engines of one revision can hold; 0 without a pair."""
        return min((revision.context for revision in self._serving()), default=0)

    def cache_tokens(self) -> tuple[int, int]:
        """The smallest decode cache: its pages, and the tokens of a page; (0, 64) without a decode engine."""
        caches = [
            (engine.register.cache_pages, revision.layout.block_tokens)
            for revision in self._serving()
            for engine in revision.decode
        ]
        return min(caches, key=lambda cache: cache[0] * cache[1], default=(0, 64))

    def _serving(self) -> list[Revision]:
        """Complete revisions; where there is none, those that have engines of both roles."""
        revisions = self.revisions()
        complete = [revision for revision in revisions if revision.complete]
        return complete or [revision for revision in revisions if revision.prefill and revision.decode]


def limits_of(engines: Iterable[Engine]) -> Limits:
    """Alpha and beta of the slowest of these engines that has measured itself."""
    registers = [engine.register for engine in engines]
    storage = [one.storage_tokens_per_s for one in registers if one.storage_tokens_per_s > 0]
    compute = [
        one.prefill_tokens_per_s
        for one in registers
        if one.role is Role.PREFILL and one.prefill_tokens_per_s > 0
    ]
    return Limits.from_rates(
        storage_tokens_per_s=min(storage, default=0.0), prefill_tokens_per_s=min(compute, default=0.0)
    )
