"""A scripted world for two engines: network, storage, compute and scheduler, in any order that the test picks.

What is scripted is what lies outside of the engines' own code: NIXL, the store's threads, the model. Every row of
KV names its token, position and layer, so a wrong or foreign byte shows wherever KV is used or persisted.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Callable, Sequence
from random import Random
from types import SimpleNamespace
from typing import Any

import torch

from dualpath_api import wire
from dualpath_api.keys import KvLayout, block_keys
from dualpath_worker.blocks import BlockPool
from dualpath_worker.engine.arrivals import LayersLostError
from dualpath_worker.engine.base import Parts
from dualpath_worker.engine.generation import Ended, Entered, Fill, Unfilled
from dualpath_worker.engine.layerwise import ChunkLostError, ChunkWork
from dualpath_worker.metrics import Metrics
from dualpath_worker.storage.io import ReadOutcome
from dualpath_worker.transfer.results import Outcome, TransferResult

BLOCK = 4
LAYOUT = KvLayout(fingerprint="f", dtype="float32", layers=2, kv_heads=1, head_dim=1, block_tokens=BLOCK)


def rows(tokens: Sequence[int], first: int, stop: int, layer: int) -> bytes:
    """KV of tokens[first:stop] in one layer."""
    return b"".join(struct.pack("<HBBI", tokens[at], layer, 0, at) for at in range(first, stop))


class World:
    """Everything that can happen next; `events` of one FIFO channel each happen in order."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.channels: dict[object, deque[Callable[[], None]]] = {}
        self.agents: dict[str, Agent] = {}
        self.contents: dict[bytes, tuple[tuple[int, ...], int]] = {}  # key -> (tokens, block)
        self.stored: set[bytes] = set()
        self.wrong: list[str] = []

    def later(self, channel: object, event: Callable[[], None]) -> None:
        """Let it happen at some time."""
        self.channels.setdefault(channel, deque()).append(event)

    def happen(self) -> bool:
        """One event of a random channel; False: none is left."""
        ready = [channel for channel, events in self.channels.items() if events]
        if not ready:
            return False
        self.channels[self.random.choice(ready)].popleft()()
        return True

    def learn(self, tokens: tuple[int, ...]) -> tuple[bytes, ...]:
        """Keys of a prompt; the world knows what belongs into their blocks."""
        keys = block_keys(LAYOUT.root(), tokens, BLOCK)
        for block, key in enumerate(keys):
            self.contents[key] = (tokens, block)
        return tuple(keys)

    def block(self, key: bytes) -> bytes:
        """The right content of a block."""
        tokens, block = self.contents[key]
        return b"".join(
            rows(tokens, block * BLOCK, (block + 1) * BLOCK, layer) for layer in range(LAYOUT.layers)
        )


class Agent:
    """Stands in for the transfer agent: same calls, the world decides when and whether things arrive."""

    def __init__(self, world: World, engine: str, pool: BlockPool) -> None:
        self.world, self.engine, self.pool = world, engine, pool
        self.expected = 0
        self.dead = False
        world.agents[engine] = self

    def on_notification(self, callback: Callable[[str, bytes], None]) -> None:
        self.deliver = callback

    def add_peer(self, peer: wire.Peer) -> None:
        pass

    def remove_peer(self, engine: str, incarnation: str) -> None:
        pass

    def close(self) -> None:
        pass

    def expect(self, change: int) -> None:
        self.expected += change

    def notify(self, peer: str, data: bytes) -> None:
        def arrive() -> None:
            if not self.world.agents[peer].dead and not self.dead:
                self.world.agents[peer].deliver(self.engine, data)

        self.world.later((self.engine, peer), arrive)

    def pull(
        self,
        peer: str,
        local: Any,
        remote: Any,
        *,
        deadline_s: float,
        on_done: Callable[[TransferResult], None],
        on_settled: Callable[[TransferResult], None],
    ) -> None:
        source = self.world.agents[peer]
        size = LAYOUT.layer_block_bytes

        def result(outcome: Outcome) -> TransferResult:
            return TransferResult(outcome=outcome, bytes=len(local) * size, seconds=0.0)

        def land() -> TransferResult:
            if source.dead:
                return result(Outcome.FAILED)
            mine, theirs = self.pool.tensor.view(-1, size), source.pool.tensor.view(-1, size)
            mine[torch.from_numpy(local).long()] = theirs[torch.from_numpy(remote).long()]
            return result(Outcome.DONE)

        def overdue() -> None:
            on_done(result(Outcome.OVERDUE))
            self.world.later(object(), lambda: on_settled(land()))

        slow = self.world.random.random() < 0.03
        self.world.later(object(), overdue if slow else lambda: on_done(land()))


class Reads:
    """Stands in for the read queue."""

    queued_bytes = 0

    def __init__(self, world: World) -> None:
        self.world = world

    async def read(
        self, keys: Sequence[bytes], views: Sequence[memoryview], *, on_settled: Callable[[], None]
    ) -> ReadOutcome:
        answer: asyncio.Future[ReadOutcome] = asyncio.get_running_loop().create_future()
        draw = self.world.random.random()

        def fill() -> None:
            for key, view in zip(keys, views, strict=True):
                view[:] = self.world.block(key)

        def finish() -> None:
            places = tuple(range(len(keys)))
            if draw < 0.05:  # overdue: the bytes still land, later
                self.world.later(object(), lambda: (fill(), on_settled()))
                answer.set_result(ReadOutcome(ok=(), failed=(), late=places, bytes=0))
                return
            lost = tuple(p for p in places if keys[p] not in self.world.stored or (draw < 0.1 and p == 0))
            fill()
            on_settled()
            ok = tuple(p for p in places if p not in lost)
            answer.set_result(ReadOutcome(ok=ok, failed=lost, late=(), bytes=len(ok)))

        self.world.later(object(), finish)
        return await answer


class Writes:
    """Stands in for the write queue; what is written must be right."""

    def __init__(self, world: World) -> None:
        self.world = world

    def put(self, key: bytes, data: Sequence[memoryview], done: Callable[[bytes], None]) -> None:
        def write() -> None:
            if b"".join(data) != self.world.block(key):
                self.world.wrong.append(f"persisted wrong bytes for {key.hex()[:8]}")
            self.world.stored.add(key)
            done(key)

        self.world.later("writes", write)


class Runner:
    """Stands in for the model: new rows name their token; cached rows must be what they should be."""

    def __init__(self, world: World, pool: BlockPool) -> None:
        self.world, self.pool = world, pool
        self.live: Callable[[], Sequence[Any]] = tuple

    def run(self, batch: Sequence[ChunkWork], announce: Callable[[int], None]) -> torch.Tensor:
        for layer in range(LAYOUT.layers):
            for index, work in enumerate(batch):
                try:
                    work.arrivals.wait(layer, 30.0)
                except LayersLostError as lost:
                    raise ChunkLostError(index, str(lost)) from lost
                self._layer(work, layer)
            announce(layer)
        return torch.zeros(len(batch), 8)

    def _layer(self, work: ChunkWork, layer: int) -> None:
        owner = [a for a in self.live() if a.slots[: len(work.slots)] == list(work.slots)]
        if not owner:
            return  # aborted meanwhile
        tokens = owner[0].assign.tokens
        seen = b"".join(bytes(self.pool.layer_view(slot, layer).numpy()) for slot in list(work.slots))
        width = LAYOUT.row_bytes
        if seen[: work.cached * width] != rows(tokens, 0, work.cached, layer):
            self.world.wrong.append(f"computed on wrong KV in layer {layer}")
        for at in range(max(work.cached, work.store_from), work.cached + len(work.tokens)):
            view = self.pool.layer_view(list(work.slots)[at // BLOCK], layer)
            row = torch.frombuffer(bytearray(rows(tokens, at, at + 1, layer)), dtype=torch.uint8)
            view[(at % BLOCK) * width : (at % BLOCK + 1) * width] = row


class Generation:
    """Stands in for the decode loop: checks what it is given, and ends at once."""

    pages = free_pages = 1000
    used_pages = tokens = 0

    def __init__(self, world: World, pool: BlockPool) -> None:
        self.world, self.pool = world, pool
        self.waiting: set[tuple[str, int]] = set()

    def start(self, on_events: Callable[[Sequence[Any]], None]) -> None:
        self.tell = on_events

    def fill(self, fill: Fill) -> None:
        self.waiting.add(fill.name)

        def enter() -> None:
            if fill.name not in self.waiting:
                return
            self.waiting.discard(fill.name)
            tokens = fill.assign.tokens
            for layer in range(LAYOUT.layers):
                seen = b"".join(bytes(self.pool.layer_view(slot, layer).numpy()) for slot in fill.slots)
                if seen[: len(tokens) * LAYOUT.row_bytes] != rows(tokens, 0, len(tokens), layer):
                    self.world.wrong.append(f"decoded on wrong KV in layer {layer}")
            self.tell([Entered(fill.name)])
            self.world.later(object(), lambda: self.tell([Ended(fill.name)]))

        self.world.later("generation", enter)

    def abort(self, name: tuple[str, int], choice: int | None = None) -> None:
        if name in self.waiting:
            self.waiting.discard(name)
            self.tell([Unfilled(name)])


class Link:
    """Collects what an engine tells the scheduler."""

    def __init__(self) -> None:
        self.inbox: deque[wire.ToScheduler] = deque()

    def send(self, message: wire.ToScheduler) -> None:
        self.inbox.append(message)


def make_parts(world: World, engine: str, slots: int) -> Parts:
    """The parts of one engine, with the scripted outside."""
    pool = BlockPool(slots=slots, layers=LAYOUT.layers, layer_block_bytes=LAYOUT.layer_block_bytes)
    store: Any = SimpleNamespace(match_prefix=lambda keys: 0)
    agent: Any = Agent(world, engine, pool)
    reads: Any = Reads(world)
    link: Any = Link()
    return Parts(
        engine=engine,
        layout=LAYOUT,
        pool=pool,
        agent=agent,
        store=store,
        reads=reads,
        link=link,
        metrics=Metrics(),
        nics=None,
    )
