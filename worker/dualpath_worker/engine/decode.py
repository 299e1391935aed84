"""The decode engine: reads its share of the hit, pulls the rest layer by layer, fills its cache, generates.

An attempt's way: collecting (own reads, and pulls announced by the prefill engine's Plan and Ready) ->
confirmed (the prefill engine has said that what was pulled was still this attempt's) -> filling (wait for
pages, copy) -> decoding -> closed. New complete blocks are persisted from the buffer when it is confirmed,
and from the pages while decoding.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import partial

from dualpath_api import wire
from dualpath_api.wire import ReadMode, Role
from dualpath_worker.engine.attempts import Attempt, Name
from dualpath_worker.engine.base import PEER_DEADLINE_S, BlocksRead, Engine, Parts
from dualpath_worker.engine.generation import Generation
from dualpath_worker.engine.loop_messages import (
    BlockComplete,
    Ended,
    Entered,
    Event,
    Evicted,
    Fill,
    Stepped,
    Unfilled,
)
from dualpath_worker.storage.io import WriteQueue
from dualpath_worker.transfer.results import Outcome, TransferResult

log = logging.getLogger(__name__)

PULLS_OUTSTANDING = 2


class Phase(IntEnum):
    """How far an attempt is."""

    COLLECTING = 0
    FILLING = 1  # handed to the decode loop
    DECODING = 2
    ENDED = 3  # nothing left to generate; blocks may still be written


@dataclass(slots=True, eq=False, kw_only=True)
class DecodeAttempt(Attempt):
    """One attempt at the decode engine."""

    taken: set[int] = field(default_factory=set)  # hit blocks that this side reads or has read
    at_hand: set[int] = field(default_factory=set)  # those that it has read
    met: bool = False  # the prefill engine works on this attempt too
    untold: list[wire.Have] = field(default_factory=list)  # until it does
    batches: dict[int, LayersOf] = field(default_factory=dict)
    last_seen: bool = False  # the plan of the last chunk is here
    hit_blocks: int = 0
    confirmed: bool = False
    phase: Phase = Phase.COLLECTING
    writing: int = 0  # new blocks that are still written from the buffer
    first: tuple[tuple[int, int], ...] | None = None  # from Start


@dataclass(slots=True)
class LayersOf:
    """What one planned batch still owes to one attempt."""

    blocks: tuple[tuple[int, int], ...]  # (block, the prefill engine's slot)
    unannounced: int
    unpulled: int


class DecodeEngine(Engine[DecodeAttempt]):
    """Everything but the decode loop itself, which has a thread of its own (`Generation`)."""

    role = Role.DECODE

    def __init__(self, parts: Parts, generation: Generation, writes: WriteQueue) -> None:
        super().__init__(parts)
        self._generation = generation
        self._writes = writes
        self._announced: dict[str, deque[tuple[int, int]]] = {}  # peer -> (batch, layer) to pull
        self._pulls: dict[str, int] = {}
        self._stored: list[bytes] = []
        self._held_for_fill: dict[Name, list[int]] = {}
        generation.start(lambda events: self.call(self._on_events, events))

    # ------------------------------------------------------------ reading

    def new_attempt(self, message: wire.Assign, slots: list[int]) -> DecodeAttempt:
        """Slots hold the whole prompt."""
        return DecodeAttempt(assign=message, slots=slots)

    def begin(self, attempt: DecodeAttempt) -> None:
        """Read what is granted without asking; each batch that is done asks for another one."""
        hit = attempt.assign.hit_blocks
        granted = range(hit - 1, hit - 1 - self.first_grant(attempt.assign), -1)
        for start in range(0, len(granted), self.read_batch):
            self._take_blocks(attempt, granted[start : start + self.read_batch])

    def _granted(self, attempt: DecodeAttempt, blocks: Sequence[int]) -> None:
        attempt.met = True
        untold, attempt.untold = attempt.untold, []
        for have in untold:
            self._tell(attempt, have)
        if fresh := [block for block in blocks if block not in attempt.taken]:
            self._take_blocks(attempt, fresh)

    def _take_blocks(self, attempt: DecodeAttempt, blocks: Sequence[int]) -> None:
        attempt.taken.update(blocks)
        self.read(attempt, blocks)

    def on_read(self, attempt: DecodeAttempt, read: BlocksRead) -> None:
        """Tell the prefill engine, as soon as it is there."""
        attempt.at_hand.update(read.ok)
        attempt.untold.append(
            wire.Have(
                request=attempt.name[0],
                attempt=attempt.name[1],
                blocks=tuple((block, attempt.slots[block]) for block in read.ok),
                failed=read.failed,
                late=read.late,
                bytes_read=read.bytes,
            )
        )
        if attempt.met:
            self._granted(attempt, ())
        self.changed()

    def _tell(self, attempt: DecodeAttempt, have: wire.Have) -> None:
        """Say what has been read, and ask for more; the prefill engine may pull from our slots now."""
        if attempt.released:  # it has settled the hit without these blocks
            return
        self.attempts.share(attempt)
        self.notify(attempt.peer, have)
        if not have.late:
            self.notify(attempt.peer, wire.Want(request=attempt.name[0], attempt=attempt.name[1]))

    # ------------------------------------------------------------ pulling

    def on_peer_message(self, engine: str, message: wire.ToPeer) -> None:
        """Grants, plans and announcements of prefill engines."""
        if isinstance(message, wire.Ready):
            self._ready(engine, message)
            return
        attempt = self.attempts.get(message.request, message.attempt)
        match message:
            case wire.Grant() if attempt:
                self._granted(attempt, message.blocks)
            case wire.Plan() if attempt:
                self._plan(attempt, message)
            case wire.Plan():
                released = wire.Released(request=message.request, attempt=message.attempt)
                self.parts.agent.notify(engine, wire.encode(released))
            case wire.Confirmed() if attempt:
                self._confirm(attempt)
            case wire.Released():
                self.attempts.released(message.request, message.attempt)

    def _plan(self, attempt: DecodeAttempt, plan: wire.Plan) -> None:
        # a block that both sides had in hand, or that lies behind a lost one: our read may write it any time
        if not self.vacate(attempt, [block for block, _ in plan.blocks if block in attempt.landing]):
            return
        for batch, layers in list(attempt.batches.items()):  # a batch that was given up is planned anew
            layers.unpulled -= layers.unannounced
            layers.unannounced = 0
            if layers.unpulled == 0:
                del attempt.batches[batch]
        if plan.blocks:
            number = self.layout.layers
            attempt.batches[plan.batch] = LayersOf(plan.blocks, unannounced=number, unpulled=number)
        attempt.last_seen = plan.last
        attempt.hit_blocks = plan.hit_blocks
        self._collected(attempt)

    def _ready(self, engine: str, message: wire.Ready) -> None:
        for attempt in self.attempts:
            if attempt.peer.engine == engine and (layers := attempt.batches.get(message.batch)):
                layers.unannounced -= 1
        self._announced.setdefault(engine, deque()).append((message.batch, message.layer))
        self._pull_announced(engine)

    def _pull_announced(self, engine: str) -> None:
        """Pull what is announced: one transfer for all attempts of a batch and all its layers that wait."""
        announced = self._announced.get(engine)
        while announced and self._pulls.get(engine, 0) < PULLS_OUTSTANDING:
            batch, first = announced.popleft()
            stop = first + 1
            while announced and announced[0] == (batch, stop):
                announced.popleft()
                stop += 1
            self._pull_layers(engine, batch, range(first, stop))

    def _pull_layers(self, engine: str, batch: int, layers: range) -> None:
        members = [
            (attempt, planned.blocks)
            for attempt in self.attempts
            if attempt.peer.engine == engine and (planned := attempt.batches.get(batch))
        ]
        if not members:
            return
        held = [(attempt, [attempt.slots[block] for block, _ in blocks]) for attempt, blocks in members]
        local = self.indices([slot for _, slots in held for slot in slots], layers)
        remote = self.indices([slot for _, blocks in members for _, slot in blocks], layers)
        self._pulls[engine] = self._pulls.get(engine, 0) + 1

        def done(result: TransferResult) -> None:
            self._pulls[engine] -= 1
            for attempt, _ in members:
                self._pulled(attempt, batch, len(layers), result)
            self._pull_announced(engine)

        self.pull(held, local, remote, done)

    def _pulled(self, attempt: DecodeAttempt, batch: int, layers: int, result: TransferResult) -> None:
        if result.outcome is not Outcome.DONE:
            peer = attempt.peer.engine
            self.fail(attempt, f"pulling KV from {peer}: {result.outcome.value}", peer=peer)
            return
        planned = attempt.batches.get(batch)
        if attempt.closed or planned is None:
            return
        planned.unpulled -= layers
        if planned.unpulled == 0:
            del attempt.batches[batch]
        self._collected(attempt)

    def _collected(self, attempt: DecodeAttempt) -> None:
        """The buffer holds the whole prompt: ask for confirmation by releasing the prefill engine's slots."""
        if attempt.last_seen and not attempt.batches and not attempt.closed:
            self.attempts.all_pulled(attempt)
            self._loop.call_later(PEER_DEADLINE_S, self._unconfirmed, attempt)

    def _unconfirmed(self, attempt: DecodeAttempt) -> None:
        if not attempt.confirmed:
            self.fail(attempt, f"{attempt.peer.engine} did not confirm what was pulled from it")

    # ------------------------------------------------------------ persisting and filling

    def _confirm(self, attempt: DecodeAttempt) -> None:
        if attempt.confirmed:
            return
        attempt.confirmed = True
        self.calm(attempt)
        for block in range(attempt.hit_blocks, len(attempt.assign.keys)):
            slot = attempt.slots[block]
            self.pool.begin([slot])
            attempt.writing += 1
            view = [self.pool.slot_view(slot)]
            self._persist(attempt.assign.keys[block], view, partial(self._written, attempt, slot))
        self._fill(attempt)

    def _persist(self, key: bytes, data: Sequence[memoryview], done: Callable[[], None]) -> None:
        """Write one block; `done` is called on the event loop when its memory is needed no more."""
        self._writes.put(key, data, lambda _: self.call(self._on_stored, key, done))

    def _on_stored(self, key: bytes, done: Callable[[], None]) -> None:
        done()
        if not self._stored:
            self._loop.call_soon(self._tell_stored)
        self._stored.append(key)

    def _tell_stored(self) -> None:
        keys, self._stored = tuple(self._stored), []
        self.send(wire.Stored(keys=keys))

    def _written(self, attempt: DecodeAttempt, slot: int) -> None:
        attempt.writing -= 1
        self.pool.end([slot])
        self._free(attempt)

    def peer_gone(self, engine: str, incarnation: str) -> None:
        """What it has announced is void; a new process counts its batches from 1 again."""
        self._announced.pop(engine, None)
        super().peer_gone(engine, incarnation)

    def needs_peer(self, attempt: DecodeAttempt) -> bool:
        """Until the buffer is known to be right; from then on the scheduler alone decides."""
        return not attempt.confirmed

    def on_start(self, message: wire.Start) -> None:
        """The first tokens; those that ended a choice are left out."""
        if attempt := self.attempts.get(message.request, message.attempt):
            attempt.first = message.first
            self._fill(attempt)
            return
        reason = f"{self.parts.engine} does not know this attempt"
        self.send(wire.Failed(request=message.request, attempt=message.attempt, reason=reason))

    def _fill(self, attempt: DecodeAttempt) -> None:
        if not attempt.confirmed or attempt.first is None or attempt.phase is not Phase.COLLECTING:
            return
        if attempt.first:
            attempt.phase = Phase.FILLING
            self.pool.begin(attempt.slots)
            fill = Fill(assign=attempt.assign, slots=tuple(attempt.slots), first=attempt.first)
            self._held_for_fill[attempt.name] = attempt.slots
            self._generation.fill(fill)
        else:
            attempt.phase = Phase.ENDED
            self.send(wire.Filled(request=attempt.name[0], attempt=attempt.name[1]))
            self._free(attempt)

    # ------------------------------------------------------------ decoding

    def _on_events(self, events: Sequence[Event]) -> None:
        for event in events:
            match event:
                case Stepped(drawn=drawn):
                    self.send(wire.Tokens(drawn=drawn))
                case BlockComplete(key=key, page=page, data=data):
                    self._persist(key, data, partial(self._generation.release_page, page))
                case Entered(name=name):
                    self.pool.end(self._held_for_fill.pop(name))
                    if attempt := self.attempts.get(*name):
                        attempt.phase = Phase.DECODING
                        self.send(wire.Filled(request=name[0], attempt=name[1]))
                        self._free(attempt)
                case Unfilled(name=name, reason=reason):
                    self.pool.end(self._held_for_fill.pop(name))
                    if reason and (attempt := self.attempts.get(*name)):
                        self.fail(attempt, reason)
                case Ended(name=name):
                    if attempt := self.attempts.get(*name):
                        attempt.phase = Phase.ENDED
                        self._free(attempt)
                case Evicted(name=name, reason=reason, excuse=excuse):
                    if attempt := self.attempts.get(*name):
                        self.fail(attempt, reason, excuse=excuse)
        self.changed()

    def _free(self, attempt: DecodeAttempt) -> None:
        """Give the buffer back once it is copied and written; an attempt that has ended by then is closed."""
        if attempt.closed or attempt.writing or attempt.phase < Phase.DECODING:
            return
        self.attempts.free_slots(attempt)
        if attempt.phase is Phase.ENDED:
            self.drop(attempt, "done")

    def on_abort(self, message: wire.Abort) -> None:
        """All of an attempt, or one choice that the gateway has ended (a stop string)."""
        if message.choice is None:
            super().on_abort(message)
        else:
            self._abort_choice(message.request, message.attempt, message.choice)

    def _abort_choice(self, request: str, number: int, choice: int) -> None:
        attempt = self.attempts.get(request, number)
        if attempt is None:
            return
        if attempt.first is not None:
            attempt.first = tuple(pair for pair in attempt.first if pair[0] != choice)
        if attempt.phase is Phase.COLLECTING:
            self._fill(attempt)
        else:
            self._generation.abort(attempt.name, choice)

    def forget(self, attempt: DecodeAttempt, reason: str) -> None:
        """Take it out of the decode loop."""
        if attempt.phase in (Phase.FILLING, Phase.DECODING):
            self._generation.abort(attempt.name)

    def measure(self) -> None:
        """The cache's gauges too."""
        super().measure()
        self.metrics.dropped_blocks(self._writes.dropped)
        self.metrics.pool("cache", self._generation.used_pages, 0, self._generation.pages)

    async def close(self) -> None:
        """Stop decoding and write what waits to be written."""
        await asyncio.to_thread(self._generation.stop)
        await asyncio.to_thread(self._writes.close)
        await super().close()

    def load(self) -> dict[str, int]:
        """Prompt and generated tokens; hit tokens that this side's NIC still has to read."""
        unread = 0
        for attempt in self.attempts:
            if not attempt.last_seen and not attempt.batches:
                share = {ReadMode.PREFILL: 0.0, ReadMode.SPLIT: 0.5, ReadMode.DECODE: 1.0}[
                    attempt.assign.mode
                ]
                unread += max(0, int(share * attempt.assign.hit_blocks) - len(attempt.at_hand))
        outside = sum(a.length for a in self.attempts if a.phase < Phase.DECODING)
        return {
            "seq_e": sum(a.phase is not Phase.ENDED for a in self.attempts),
            "tok_e": outside + self._generation.tokens,
            "read_q": unread * self.layout.block_tokens,
            "free_pages": self._generation.free_pages,
        }
