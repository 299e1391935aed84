"""A scripted world for two engines: network, storage, compute and scheduler, in any order that the test picks.

What is scripted is what lies outside of the engines' own code: NIXL, the store's threads, the model. Every row of
KV names its token, position and layer, so a wrong or foreign byte shows wherever KV is used or persisted.
"""

from __future__ import annotations

import asyncio
import struct
import threading
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
from dualpath_worker.engine.layerwise import ChunkLostError, ChunkWork
from dualpath_worker.engine.loop_messages import Ended, Entered, Fill, Unfilled
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
        self.processes: list[Agent] = []
        self.contents: dict[bytes, tuple[tuple[int, ...], int]] = {}  # key -> (tokens, block)
        self.stored: set[bytes] = set()
        self.wrong: list[str] = []
        self._lock = threading.Lock()

    def later(self, channel: object, event: Callable[[], None]) -> None:
        """Let it happen at some time."""
        with self._lock:  # the compute threads announce layers
            self.channels.setdefault(channel, deque()).append(event)

    def happen(self) -> bool:
        """One event of a random channel; False: none is left."""
        with self._lock:
            if not self.channels:
                return False
            channel = self.random.choice(list(self.channels))
            event = self.channels[channel].popleft()
            if not self.channels[channel]:
                del self.channels[channel]
        event()
        return True

    def process(self, peer: wire.Peer) -> Agent:
        """Who has this NIXL metadata: a process, whatever its incarnation."""
        return self.processes[int(peer.agent)]

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
        # engine -> its incarnation, its process; None: the connection to it is broken
        self.current: dict[str, tuple[str, Agent | None]] = {}
        self.number = len(world.processes)
        world.processes.append(self)

    def on_notification(self, callback: Callable[[str, bytes], None]) -> None:
        self.deliver = callback

    def on_lost(self, callback: Callable[[str, str], None]) -> None:
        self.tell_lost = callback

    def add_peer(self, peer: wire.Peer) -> None:
        self.current[peer.engine] = (peer.incarnation, self.world.process(peer))

    def break_connection(self, other: Agent) -> None:
        """What is under way to the other is lost, and this side notices sometime."""
        self.world.channels.pop((self, other), None)
        for engine, (incarnation, process) in list(self.current.items()):
            if process is other:
                self.current[engine] = (incarnation, None)
                self.world.later(object(), lambda e=engine, i=incarnation: self.tell_lost(e, i))

    def remove_peer(self, engine: str, incarnation: str) -> None:
        if engine in self.current and self.current[engine][0] == incarnation:
            del self.current[engine]

    def close(self) -> None:
        pass

    def expect(self, change: int) -> None:
        self.expected += change

    def notify(self, peer: str, data: bytes) -> None:
        target = self.current.get(peer, ("", None))[1]
        if target is None:
            return

        def arrive() -> None:
            if not target.dead and not self.dead:
                target.deliver(self.engine, data)

        self.world.later((self, target), arrive)

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
        source = self.current.get(peer, ("", None))[1]
        size = LAYOUT.layer_block_bytes

        def result(outcome: Outcome) -> TransferResult:
            return TransferResult(outcome=outcome, bytes=len(local) * size, seconds=0.0)

        def land() -> TransferResult:
            if source is None or source.dead:
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
        damaged = {place for place in range(len(keys)) if self.world.random.random() < 0.1}

        def fill(lost: Sequence[int] = ()) -> None:
            for place, (key, view) in enumerate(zip(keys, views, strict=True)):
                view[:] = b"\xee" * len(view) if place in lost else self.world.block(key)

        def finish() -> None:
            places = tuple(range(len(keys)))
            if draw < 0.1:  # overdue: the bytes still land, later
                self.world.later(object(), lambda: (fill(tuple(damaged)), on_settled()))
                answer.set_result(ReadOutcome(ok=(), failed=(), late=places, bytes=0))
                return
            lost = tuple(p for p in places if keys[p] not in self.world.stored or p in damaged)
            self.world.stored.difference_update(keys[p] for p in lost)  # a damaged block is deleted
            fill(lost)
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

    attention_s = 0.001

    def __init__(self, world: World, pool: BlockPool) -> None:
        self.world, self.pool = world, pool
        self.live: Callable[[], Sequence[Any]] = tuple
        self.tainted: set[tuple[str, int]] = (
            set()
        )  # attempts computed on wrong KV: nobody may use their tokens

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
            self.tainted.add(owner[0].name)
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
