"""What both engines share: attempts, peers, storage reads, reports, draining.

Everything here runs on the event loop. Three kinds of threads work for it and answer through
`call_soon_threadsafe`: the transfer agent's, the storage I/O pools', and the compute thread.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Generic

import msgspec
import numpy as np
import numpy.typing as npt

from dualpath_api import wire
from dualpath_api.errors import DualPathError
from dualpath_api.keys import KvLayout
from dualpath_policy.reads import first_grant
from dualpath_worker.blocks import BlockPool
from dualpath_worker.engine.attempts import A, Attempts
from dualpath_worker.link import SchedulerLink
from dualpath_worker.metrics import Metrics
from dualpath_worker.nics import NicSampler
from dualpath_worker.storage.base import BlockStore
from dualpath_worker.storage.io import ReadQueue
from dualpath_worker.transfer.agent import TransferAgent
from dualpath_worker.transfer.results import Outcome, TransferResult

log = logging.getLogger(__name__)

READ_BATCH_BYTES = 4 << 20
READS_OUTSTANDING = 2
PULL_BYTES = 4 << 20
PEER_DEADLINE_S = 10.0
BUSY_REPORT_S = 0.1
REMIND_S = 5.0
"""After so long without a `Released`, and then each time, it is asked for."""
IDLE_REPORT_S = 2.0


@dataclass(kw_only=True)
class Parts:
    """What `__main__` builds once for an engine process."""

    engine: str
    layout: KvLayout
    pool: BlockPool
    agent: TransferAgent
    store: BlockStore
    reads: ReadQueue
    link: SchedulerLink
    metrics: Metrics
    nics: NicSampler | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BlocksRead:
    """Blocks of the hit, by what became of reading them; late ones have fresh slots already."""

    ok: tuple[int, ...]
    failed: tuple[int, ...]  # missing, corrupt, unreadable
    late: tuple[int, ...]
    bytes: int


class Engine(ABC, Generic[A]):
    """Base of the prefill and the decode engine."""

    role: wire.Role

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.pool = parts.pool
        self.layout = parts.layout
        self.metrics = parts.metrics
        self.attempts: Attempts[A] = Attempts(parts.pool, self.notify)
        self.accept_new = True
        self.serve_reads = True
        self.bytes_read = 0
        self._seen = 0
        self._returned = False  # the connection was lost, and the new one has not been used yet
        self._incarnations: dict[str, str] = {}
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        if parts.nics:
            parts.nics.watch(lambda: parts.reads.queued_bytes > 0)
        parts.agent.on_notification(lambda engine, data: self.call(self._on_notification, engine, data))
        parts.agent.on_lost(lambda engine, incarnation: self.call(self.connection_lost, engine, incarnation))
        self.read_batch = max(1, READ_BATCH_BYTES // self.layout.full_block_bytes)

    # ------------------------------------------------------------ plumbing

    def call(self, function: Callable[..., None], *args: Any) -> None:
        """From any thread: run on the event loop."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *args)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run as a task; an unexpected error is logged, never lost."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("task failed", exc_info=error)

    def notify(self, peer: wire.Peer, message: wire.ToPeer) -> None:
        """Send a small message to another engine; a lost one is covered by deadlines."""
        self.parts.agent.notify(peer.engine, wire.encode(message))

    def send(self, message: wire.ToScheduler) -> None:
        """Tell the scheduler."""
        self.parts.link.send(message)

    def changed(self) -> None:
        """The load has changed: report soon."""
        self._changed.set()

    # ------------------------------------------------------------ messages

    def on_message(self, message: wire.ToEngine) -> None:
        """One message of the scheduler."""
        if self._returned:
            # It knows this incarnation, so it has given up all of the one before; a peer that has done so, or
            # has died meanwhile, tells an incarnation that is gone nothing.
            self._returned = False
            self.attempts.forgive()
        match message:
            case wire.Assign():
                self._assign(message)
            case wire.Abort():
                self.on_abort(message)
            case wire.Start():
                self.on_start(message)
            case wire.Match():
                self.spawn(self._match(message))
            case wire.PeerGone():
                self.peer_gone(message.engine, message.incarnation)
            case wire.Drain():
                self.accept_new, self.serve_reads = message.accept_new, message.serve_reads
                self.changed()

    async def _match(self, message: wire.Match) -> None:
        try:
            blocks = await asyncio.to_thread(self.parts.store.match_prefix, message.keys)
        except OSError as error:
            log.warning("storage match failed, counted as a miss: %s", error)
            self.metrics.storage_errors.labels("match").inc()
            blocks = 0
        self.send(wire.Matched(query=message.query, blocks=blocks))

    def _assign(self, message: wire.Assign) -> None:
        self._seen = max(self._seen, message.number)
        reason = self._take(message)
        if reason is not None:
            self.send(wire.Refused(request=message.request, attempt=message.attempt, reason=reason))
        self.changed()

    def _take(self, message: wire.Assign) -> str | None:
        """None, or why the attempt is refused."""
        if not self.accept_new:
            return f"{self.parts.engine} is draining"
        peer = message.peer
        known = self._incarnations.get(peer.engine)
        if known not in (None, peer.incarnation):
            self.peer_gone(peer.engine, known)
        self._incarnations[peer.engine] = peer.incarnation
        try:
            self.parts.agent.add_peer(peer)
        except DualPathError as error:
            return f"{error.what}: {error.cause}"
        blocks = -(-len(message.tokens) // self.layout.block_tokens)
        slots = self.pool.reserve(blocks)
        if slots is None:
            return f"{self.parts.engine} has {self.pool.available} free block slots, {blocks} are needed"
        attempt = self.new_attempt(message, slots)
        self.attempts.open(attempt)
        self.parts.agent.expect(1)
        self.send(wire.Accepted(request=message.request, attempt=message.attempt))
        self.begin(attempt)
        return None

    def _on_notification(self, engine: str, data: bytes) -> None:
        try:
            message = wire.decode_to_peer(data)
        except msgspec.DecodeError as error:
            log.error("ignored a notification of %s: %s", engine, error)
            return
        if isinstance(message, wire.Holding):
            self._release_again(engine, message)
        else:
            self.on_peer_message(engine, message)

    def connection_lost(self, engine: str, incarnation: str) -> None:
        """Give up what waits for messages of this peer: those that were under way are lost."""
        for attempt in self.attempts:
            if (attempt.peer.engine, attempt.peer.incarnation) != (engine, incarnation):
                continue
            if self.needs_peer(attempt):
                self.fail(attempt, f"the connection to {engine} is lost", peer=engine)

    def _release_again(self, engine: str, message: wire.Holding) -> None:
        attempt = self.attempts.get(message.request, message.attempt)
        if attempt is None or attempt.told:
            released = wire.Released(request=message.request, attempt=message.attempt)
            self.parts.agent.notify(engine, wire.encode(released))

    def remind(self) -> None:
        """Ask for each `Released` that is overdue, on a new connection if the old one broke."""
        for peer, (request, number) in self.attempts.overdue(REMIND_S):
            self.parts.agent.add_peer(peer)
            self.notify(peer, wire.Holding(request=request, attempt=number))

    def peer_gone(self, engine: str, incarnation: str) -> None:
        """Stop what needs this incarnation, and free what only waited for it."""
        for attempt in self.attempts.peer_gone(engine, incarnation):
            if self.needs_peer(attempt):
                self.drop(attempt, f"{engine} is gone")
        self.parts.agent.remove_peer(engine, incarnation)

    def on_abort(self, message: wire.Abort) -> None:
        """The scheduler gives an attempt, or one choice of it, up."""
        if attempt := self.attempts.get(message.request, message.attempt):
            self.drop(attempt, "aborted by the scheduler")

    def on_lost_link(self) -> None:
        """Without a scheduler nobody waits for any of this."""
        for attempt in self.attempts:
            self.drop(attempt, "the scheduler is gone")
        self._returned = True
        self._seen = 0

    def on_start(self, message: wire.Start) -> None:
        """Only decode engines are started."""
        log.error("unexpected start of %s", message.request)

    def fail(self, attempt: A, reason: str, *, excuse: bool = False, peer: str = "") -> None:
        """Give an attempt up and say so; `peer` could not be reached."""
        if not attempt.closed:
            log.warning("request %s attempt %d: %s", *attempt.name, reason)
            request, number = attempt.name
            self.send(wire.Failed(request=request, attempt=number, reason=reason, excuse=excuse, peer=peer))
            self.drop(attempt, reason)

    def drop(self, attempt: A, reason: str) -> None:
        """Free everything of an attempt as soon as nothing touches it any more."""
        self.forget(attempt, reason)
        self.calm(attempt)
        self.attempts.close(attempt)
        self.changed()

    def calm(self, attempt: A) -> None:
        """No more notifications of the peer, nor reads by it, are due for this attempt."""
        if attempt.expecting:
            attempt.expecting = False
            self.parts.agent.expect(-1)

    # ------------------------------------------------------------ what the roles do

    def needs_peer(self, attempt: A) -> bool:
        """Whether the attempt cannot go on without its peer."""
        return True

    @abstractmethod
    def new_attempt(self, message: wire.Assign, slots: list[int]) -> A:
        """The role's own record of an attempt."""

    @abstractmethod
    def begin(self, attempt: A) -> None:
        """The attempt is accepted: start reading."""

    @abstractmethod
    def forget(self, attempt: A, reason: str) -> None:
        """The attempt is about to be closed: stop what waits for it."""

    @abstractmethod
    def on_peer_message(self, engine: str, message: wire.ToPeer) -> None:
        """A notification of another engine."""

    @abstractmethod
    def on_read(self, attempt: A, read: BlocksRead) -> None:
        """What became of blocks that were to be read for a live attempt."""

    @abstractmethod
    def load(self) -> dict[str, int]:
        """The role's part of a report: seq_e, tok_e, read_q."""

    # ------------------------------------------------------------ storage and transfers

    def first_grant(self, assign: wire.Assign) -> int:
        """Blocks from the back of the hit that the decode side reads without asking; alike on both sides."""
        most = READS_OUTSTANDING * self.read_batch
        return first_grant(assign.hit_blocks, assign.mode, assign.decode_min, assign.decode_max, most)

    def read(self, attempt: A, blocks: Sequence[int]) -> None:
        """Read hit blocks from storage into the attempt's slots; `on_read` gets the outcome."""
        slots = [attempt.slots[block] for block in blocks]
        self.pool.begin(slots)
        attempt.reading += 1
        attempt.landing.update(blocks)
        self.spawn(self._read(attempt, blocks, slots))

    async def _read(self, attempt: A, blocks: Sequence[int], slots: Sequence[int]) -> None:
        outcome = await self.parts.reads.read(
            [attempt.assign.keys[block] for block in blocks],
            [self.pool.slot_view(slot) for slot in slots],
            on_settled=lambda: self.call(self.pool.end, slots),
        )
        attempt.reading -= 1
        self.bytes_read += outcome.bytes
        self.metrics.path_read_bytes.labels(self.role.value).inc(outcome.bytes)
        if attempt.closed:
            return

        def wanted(places: Sequence[int]) -> tuple[int, ...]:
            return tuple(blocks[place] for place in places if blocks[place] in attempt.landing)

        read = BlocksRead(
            ok=wanted(outcome.ok),
            failed=wanted(outcome.failed),
            late=wanted(outcome.late),
            bytes=outcome.bytes,
        )
        vacated = self.vacate(attempt, read.late)
        attempt.landing.difference_update(blocks)
        if vacated:
            self.on_read(attempt, read)

    def vacate(self, attempt: A, blocks: Sequence[int]) -> bool:
        """Give blocks fresh slots, as reads may still write the old ones; False: the attempt has failed."""
        if all(self.attempts.replace_slot(attempt, block) for block in blocks):
            attempt.landing.difference_update(blocks)
            return True
        self.fail(attempt, "storage reads are overdue and no block slot is free", excuse=True)
        return False

    def indices(self, slots: Sequence[int], layers: range) -> npt.NDArray[np.int32]:
        """Descriptor indices of (slot, layer), layer by layer."""
        rows = np.asarray(slots, np.int32) * self.layout.layers
        return (rows[None, :] + np.arange(layers.start, layers.stop, dtype=np.int32)[:, None]).ravel()

    def pull(
        self,
        attempts: Sequence[tuple[A, list[int]]],
        local: npt.NDArray[np.int32],
        remote: npt.NDArray[np.int32],
        done: Callable[[TransferResult], None],
    ) -> None:
        """Pull Layer Blocks of the peer into ours; the local slots are held until the transfer has ended."""
        peer = attempts[0][0].peer.engine
        for attempt, slots in attempts:
            self.attempts.pull_began(attempt, slots)

        def ended(result: TransferResult) -> None:
            if result.outcome is Outcome.DONE:
                self.metrics.transfer_bytes.labels(self.role.value).inc(result.bytes)
            else:
                self.metrics.transfer_errors.labels(result.outcome.value).inc()
            done(result)
            if result.outcome is not Outcome.OVERDUE:
                settled(result)

        def settled(_: TransferResult) -> None:
            for attempt, slots in attempts:
                self.attempts.pull_ended(attempt, slots)

        self.parts.agent.pull(
            peer,
            local,
            remote,
            deadline_s=PEER_DEADLINE_S,
            on_done=lambda result: self.call(ended, result),
            on_settled=lambda result: self.call(settled, result),
        )

    # ------------------------------------------------------------ reports

    async def report_forever(self) -> None:
        """Send the load at each change (at most every 20 ms), each 100 ms while busy, each 2 s while idle."""
        while True:
            busy = bool(self.attempts.live)
            try:
                await asyncio.wait_for(self._changed.wait(), BUSY_REPORT_S if busy else IDLE_REPORT_S)
                await asyncio.sleep(0.02)
            except TimeoutError:
                pass
            self._changed.clear()
            self.send(self.report())
            self.remind()

    def measure(self) -> None:
        """Bring the gauges up to date."""
        self.metrics.pool("buffer", self.pool.used, self.pool.quarantined, self.pool.total)
        self.metrics.storage(self.parts.store.stats())
        if self.parts.nics:
            self.metrics.nics(self.parts.nics.latest)

    async def close(self) -> None:
        """Stop the threads, after what is still worth doing."""
        self.parts.agent.close()

    def report(self) -> wire.Report:
        """The load now."""
        sampler = self.parts.nics
        return wire.Report(
            seen=self._seen,
            read_bytes_queued=self.parts.reads.queued_bytes,
            read_bytes_total=self.bytes_read,
            free_slots=self.pool.available,
            quarantined=self.pool.quarantined,
            accept_new=self.accept_new,
            serve_reads=self.serve_reads,
            busy_s=self.metrics.busy_s,
            serving_reads=sum(attempt.shared for attempt in self.attempts) + len(self.attempts.lingering),
            nics=sampler.latest if sampler else (),
            **self.load(),
        )
