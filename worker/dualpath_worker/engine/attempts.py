"""Attempts that an engine works on, and when their slots may be used again.

Two engines touch an attempt's slots: the owner, and its peer, which pulls from them. A slot is therefore
held (`BlockPool.begin`) from the moment that the peer is told of it until the peer says `Released`, or is
known dead; the owner's own reads and pulls hold it too. An attempt that ends before that has its slots
quarantined, and the pool frees each with its last hold (an abandoned transfer still lands: NIXL cannot
cancel).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from dualpath_api import wire
from dualpath_worker.blocks import BlockPool

Name = tuple[str, int]
"""(request, attempt)."""


@dataclass(slots=True, eq=False, kw_only=True)
class Attempt:
    """What both roles keep of one attempt. `slots[b]` holds block b of the prompt."""

    assign: wire.Assign
    slots: list[int]
    shared: bool = False  # the peer may pull from the slots
    released: bool = False  # the peer has said that it will not, or no more
    pulling: int = 0  # transfers from the peer's slots that have not ended
    pulled: bool = False  # no further transfer will start
    told: bool = False  # `Released` was sent
    closed: bool = False
    reading: int = 0  # storage batches under way
    landing: set[int] = field(default_factory=set)  # blocks whose slots they may still write
    expecting: bool = True  # the peer still has something to say, or to read

    @property
    def name(self) -> Name:
        """(request, attempt)."""
        return self.assign.request, self.assign.attempt

    @property
    def peer(self) -> wire.Peer:
        """The engine on the other side."""
        return self.assign.peer

    @property
    def length(self) -> int:
        """Tokens whose KV the prefill must leave behind."""
        return len(self.assign.tokens)


A = TypeVar("A", bound=Attempt)


@dataclass(slots=True)
class Lingering:
    """Slots of a closed attempt that its peer may still pull from."""

    peer: wire.Peer
    slots: list[int]
    asked_at: float = field(default_factory=time.monotonic)


@dataclass
class Attempts(Generic[A]):
    """The attempts of one engine; used from its event loop only."""

    pool: BlockPool
    notify: Callable[[wire.Peer, wire.ToPeer], None]
    live: dict[Name, A] = field(default_factory=dict)
    lingering: dict[Name, Lingering] = field(default_factory=dict)

    def open(self, attempt: A) -> None:
        """Take a new attempt; its slots are reserved."""
        self.live[attempt.name] = attempt

    def get(self, request: str, attempt: int) -> A | None:
        """A live attempt, or None for one that has ended or was never here."""
        return self.live.get((request, attempt))

    def __iter__(self) -> Iterator[A]:
        """Live attempts, oldest first."""
        return iter(list(self.live.values()))

    def share(self, attempt: A) -> None:
        """Before the peer is told of any slot; one that has said `Released` says it no second time."""
        if not attempt.shared and not attempt.released:
            attempt.shared = True
            self.pool.begin(attempt.slots)

    def replace_slot(self, attempt: A, block: int) -> bool:
        """A new slot for a block whose old one is the target of something overdue; False: none is free."""
        fresh = self.pool.reserve(1)
        if fresh is None:
            return False
        old = attempt.slots[block]
        attempt.slots[block] = fresh[0]
        if attempt.shared:  # nobody was told of a slot that never became ready
            self.pool.end([old])
            self.pool.begin(fresh)
        self.pool.retire([old])
        return True

    def pull_began(self, attempt: A, slots: list[int]) -> None:
        """A transfer from the peer's slots into ours has been posted."""
        attempt.pulling += 1
        self.pool.begin(slots)

    def pull_ended(self, attempt: A, slots: list[int]) -> None:
        """It has really ended, well or not."""
        attempt.pulling -= 1
        self.pool.end(slots)
        self._tell(attempt)

    def all_pulled(self, attempt: A) -> None:
        """No further transfer from the peer's slots will start."""
        attempt.pulled = True
        self._tell(attempt)

    def close(self, attempt: A) -> None:
        """The attempt is over here. Idempotent."""
        if attempt.closed:
            return
        attempt.closed = True
        del self.live[attempt.name]
        self.free_slots(attempt)
        self.all_pulled(attempt)

    def free_slots(self, attempt: A) -> None:
        """The attempt goes on without its slots."""
        self.pool.retire(attempt.slots)
        if attempt.shared:
            self.lingering[attempt.name] = Lingering(attempt.peer, attempt.slots)
            attempt.shared = False
        attempt.slots = []

    def released(self, request: str, number: int) -> A | None:
        """The peer will not touch our slots any more; returns the attempt if it is still live."""
        if left := self.lingering.pop((request, number), None):
            self.pool.end(left.slots)
        attempt = self.live.get((request, number))
        if attempt is not None:
            attempt.released = True
            if attempt.shared:
                attempt.shared = False
                self.pool.end(attempt.slots)
        return attempt

    def peer_gone(self, engine: str, incarnation: str) -> list[A]:
        """A dead peer touches nothing: end its holds; returns the live attempts that it leaves behind."""

        def lost(peer: wire.Peer) -> bool:
            return (peer.engine, peer.incarnation) == (engine, incarnation)

        for name in [name for name, left in self.lingering.items() if lost(left.peer)]:
            self.released(*name)
        orphans = [attempt for attempt in self if lost(attempt.peer)]
        for attempt in orphans:
            self.released(*attempt.name)
        return orphans

    def overdue(self, after_s: float) -> Iterator[tuple[wire.Peer, Name]]:
        """Closed attempts whose peer has said nothing for so long since they ended or it was asked last."""
        now = time.monotonic()
        for name, left in self.lingering.items():
            if now - left.asked_at >= after_s:
                left.asked_at = now
                yield left.peer, name

    def forgive(self) -> None:
        """Wait for no peer any more: the scheduler uses nothing of the closed attempts.

        Whoever still pulls from their slots may get other bytes: a prefill engine's tokens for such an
        attempt are ignored, and a decode engine gets no `Confirmed`.
        """
        for name in list(self.lingering):
            self.released(*name)

    def _tell(self, attempt: A) -> None:
        if attempt.pulled and attempt.pulling == 0 and not attempt.told:
            attempt.told = True
            self.notify(attempt.peer, wire.Released(request=attempt.name[0], attempt=attempt.name[1]))
