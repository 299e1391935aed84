"""Which engines may work together: a prefill and a decode engine of the same revision.

During a rollout several revisions serve at once, each with a KV layout of its own. A revision is complete
when a prefill and a decode engine of it take new requests.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dualpath_api.keys import KvLayout
from dualpath_api.wire import Role
from dualpath_gateway.scheduler.engine import Engine


@dataclass(frozen=True, slots=True)
class Revision:
    """The engines of one revision."""

    name: str
    layout: KvLayout
    prefill: tuple[Engine, ...]
    decode: tuple[Engine, ...]

    def takers(self, role: Role) -> set[str]:
        """Names of the engines of a role that take new requests."""
        engines = self.prefill if role is Role.PREFILL else self.decode
        return {engine.name for engine in engines if engine.accepts}

    @property
    def complete(self) -> bool:
        """Can serve a new request."""
        return all(any(engine.accepts for engine in side) for side in (self.prefill, self.decode))

    @property
    def context(self) -> int:
        """Tokens that any pair of the engines can hold; 0 without a pair.

        The prefill buffer holds the sequence, the decode buffer the sequence and one block more, the cache
        the sequence; the smallest engine counts, so that a request can go on anywhere after a failure.
        """
        if not self.prefill or not self.decode:
            return 0
        block = self.layout.block_tokens
        holds = [engine.register.max_context for engine in (*self.prefill, *self.decode)]
        holds += [engine.register.buffer_slots * block for engine in self.prefill]
        holds += [(engine.register.buffer_slots - 1) * block for engine in self.decode]
        holds += [engine.register.cache_pages * block for engine in self.decode]
        return max(0, min(holds))


def revisions_of(engines: Iterable[Engine]) -> list[Revision]:
    """The revisions of these engines, by name."""
    grouped: dict[str, list[Engine]] = {}
    for engine in engines:
        grouped.setdefault(engine.register.revision, []).append(engine)
    return [
        Revision(
            name=name,
            layout=members[0].register.layout,
            prefill=tuple(engine for engine in members if engine.role is Role.PREFILL),
            decode=tuple(engine for engine in members if engine.role is Role.DECODE),
        )
        for name, members in sorted(grouped.items())
    ]
