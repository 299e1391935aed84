"""The prefill engine: settles the hit, pulls what the decode side has read, computes in layerwise chunks.

An attempt's way: reading (the ReadList hands blocks to both sides) -> ready (hit settled, pulls under way)
-> computing (chunk by chunk, FIFO) -> streaming (the decode engine still pulls) -> closed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count

import torch

from dualpath_api import wire
from dualpath_api.wire import ReadMode, Role
from dualpath_policy.batching import AttentionTime, Chunk, ReadyRequest, next_batch
from dualpath_policy.reads import ReadList, batch_blocks
from dualpath_worker.engine.arrivals import LayerArrivals
from dualpath_worker.engine.attempts import Attempt
from dualpath_worker.engine.base import (
    PEER_DEADLINE_S,
    PULL_BYTES,
    READS_OUTSTANDING,
    BlocksRead,
    Engine,
    Parts,
)
from dualpath_worker.engine.finish import finish_of
from dualpath_worker.engine.layerwise import ChunkLostError, ChunkWork, LayerwisePrefill
from dualpath_worker.sampling import Row, sample
from dualpath_worker.transfer.results import Outcome, TransferResult

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False, kw_only=True)
class PrefillAttempt(Attempt):
    """One attempt at the prefill engine."""

    reads: ReadList
    arrivals: LayerArrivals = field(default_factory=LayerArrivals)
    wants: int = 0  # of the decode side, not yet granted
    peer_slots: dict[int, int] = field(default_factory=dict)  # block -> the decode engine's slot
    unpulled: list[int] = field(default_factory=list)  # blocks in them that are not here yet
    early: list[int] = field(default_factory=list)  # those under way before the hit is settled
    bytes_by: dict[Role, int] = field(default_factory=lambda: {Role.PREFILL: 0, Role.DECODE: 0})
    began: float = field(default_factory=time.monotonic)
    hit_blocks: int | None = None  # None: not settled
    computed: int = 0  # tokens, hit included
    sent_blocks: int = 0  # blocks that earlier chunks have announced
    last_planned: bool = False  # the decode engine knows all blocks that it is to pull
    peer_done: bool = False  # it has pulled them
    finished: bool = False  # first tokens are drawn

    @property
    def id(self) -> str:
        """Its name in the batches: an attempt may still be here when the next one of its request comes."""
        return f"{self.name[0]}/{self.name[1]}"


class PrefillEngine(Engine[PrefillAttempt]):
    """Reads, pulls and computes prompts; samples each choice's first token."""

    role = Role.PREFILL

    def __init__(
        self,
        parts: Parts,
        runner: LayerwisePrefill,
        *,
        attention: AttentionTime,
        quota_s: float,
        max_tokens: int,
    ) -> None:
        super().__init__(parts)
        self._runner = runner
        self._attention = attention
        self._quota_s = quota_s
        self._max_tokens = max_tokens
        self._compute = ThreadPoolExecutor(1, thread_name_prefix="compute")
        self._ready: dict[str, PrefillAttempt] = {}
        self._work = asyncio.Event()
        self._batches = count(1)

    # ------------------------------------------------------------ reading

    def new_attempt(self, message: wire.Assign, slots: list[int]) -> PrefillAttempt:
        """Slots hold the whole prompt: hits of either side, and new KV."""
        reads = ReadList(message.hit_blocks, message.mode, message.decode_min, message.decode_max)
        return PrefillAttempt(assign=message, slots=slots, reads=reads)

    def begin(self, attempt: PrefillAttempt) -> None:
        """Start reading. The decode side knows its first grant; this one tells it that we are here."""
        if first := self.first_grant(attempt.assign):
            self._grant(attempt, attempt.reads.take(Role.DECODE, first))
        self._advance(attempt)

    def _grant(self, attempt: PrefillAttempt, blocks: tuple[int, ...]) -> None:
        self.notify(attempt.peer, wire.Grant(request=attempt.name[0], attempt=attempt.name[1], blocks=blocks))
        self._loop.call_later(PEER_DEADLINE_S, self._grant_overdue, attempt, blocks)

    def _advance(self, attempt: PrefillAttempt) -> None:
        """Hand out blocks to whoever can read now; settle when nothing is open."""
        if attempt.closed or attempt.hit_blocks is not None:
            return
        while attempt.wants and (blocks := self._next_blocks(attempt, Role.DECODE)):
            attempt.wants -= 1
            self._grant(attempt, blocks)
        while attempt.reading < READS_OUTSTANDING:
            blocks = self._next_blocks(attempt, Role.PREFILL)
            if not blocks:
                break
            self.read(attempt, blocks)
        beyond = max(attempt.early, default=-1) >= attempt.reads.hit
        if attempt.reads.settled and not attempt.landing and not beyond:  # nothing writes where new KV goes
            self._settle(attempt)

    def _next_blocks(self, attempt: PrefillAttempt, side: Role) -> tuple[int, ...]:
        most = self.read_batch
        if attempt.assign.mode is ReadMode.SPLIT:
            most = batch_blocks(attempt.reads.offers(side), most)
        return attempt.reads.take(side, most)

    def on_read(self, attempt: PrefillAttempt, read: BlocksRead) -> None:
        """Blocks that came too late are offered to the decode side without its asking."""
        attempt.bytes_by[Role.PREFILL] += read.bytes
        for block in read.ok:
            attempt.reads.done(Role.PREFILL, block)
        for block in read.failed:
            attempt.reads.failed(Role.PREFILL, block)
        if read.late:
            attempt.reads.give_back(Role.PREFILL, read.late)
            attempt.wants += 1
        self._advance(attempt)

    def _grant_overdue(self, attempt: PrefillAttempt, blocks: Sequence[int]) -> None:
        if attempt.closed or attempt.hit_blocks is not None:
            return
        if not set(blocks).isdisjoint(attempt.reads.held(Role.DECODE)):
            attempt.reads.close(Role.DECODE)
            self._advance(attempt)

    def on_peer_message(self, engine: str, message: wire.ToPeer) -> None:
        """Wants, Haves and Releases of decode engines."""
        if isinstance(message, wire.Ready):
            return
        attempt = self.attempts.get(message.request, message.attempt)
        match message:
            case wire.Want() if attempt:
                attempt.wants += 1
                self._advance(attempt)
            case wire.Have() if attempt is None:
                released = wire.Released(request=message.request, attempt=message.attempt)
                self.parts.agent.notify(engine, wire.encode(released))
            case wire.Have() if attempt:
                self._have(attempt, message)
            case wire.Released():
                self._released(engine, message)

    def _have(self, attempt: PrefillAttempt, message: wire.Have) -> None:
        attempt.bytes_by[Role.DECODE] += message.bytes_read
        for block, slot in message.blocks:
            if attempt.reads.done(Role.DECODE, block):
                attempt.peer_slots[block] = slot
                attempt.unpulled.append(block)
        for block in message.failed:
            attempt.reads.failed(Role.DECODE, block)
        if message.late:  # it asks for no more: what it has in hand, or was left for it, goes elsewhere
            attempt.reads.close(Role.DECODE)
        self._advance(attempt)
        self._pull_early(attempt)

    def _released(self, engine: str, message: wire.Released) -> None:
        attempt = self.attempts.get(message.request, message.attempt)
        held = attempt is not None and attempt.shared
        self.attempts.released(message.request, message.attempt)
        if attempt is None:
            return
        if not attempt.last_planned:  # the decode engine has given up; the scheduler will abort
            self.drop(attempt, "released by the decode engine")
        if not held or attempt.closed:
            return
        confirmed = wire.Confirmed(request=message.request, attempt=message.attempt)
        self.parts.agent.notify(engine, wire.encode(confirmed))
        attempt.peer_done = True
        if attempt.finished:
            self.drop(attempt, "done")

    def _settle(self, attempt: PrefillAttempt) -> None:
        blocks = attempt.reads.hit
        attempt.hit_blocks = blocks
        attempt.computed = min(blocks * self.layout.block_tokens, attempt.length - 1)
        by_decode = [b for b in range(blocks) if attempt.reads.side_of(b) is Role.DECODE]
        self.send(
            wire.ReadDone(
                request=attempt.name[0],
                attempt=attempt.name[1],
                hit_tokens=attempt.computed,
                prefill_blocks=blocks - len(by_decode),
                decode_blocks=len(by_decode),
                prefill_bytes=attempt.bytes_by[Role.PREFILL],
                decode_bytes=attempt.bytes_by[Role.DECODE],
                lost_blocks=attempt.assign.hit_blocks - blocks,
                seconds=time.monotonic() - attempt.began,
            )
        )
        if not attempt.early:
            self._pull_rest(attempt)
        self._ready[attempt.id] = attempt
        self._work.set()
        self.changed()

    def _pull_early(self, attempt: PrefillAttempt) -> None:
        """While the hit is being read, pull what the decode side has of it: little is left in the end."""
        if attempt.closed or attempt.early or not attempt.unpulled or attempt.hit_blocks is not None:
            return
        most = max(1, PULL_BYTES // self.layout.full_block_bytes)
        attempt.early, attempt.unpulled = attempt.unpulled[:most], attempt.unpulled[most:]

        def done() -> None:
            attempt.early = []
            if attempt.hit_blocks is None:
                self._advance(attempt)
                self._pull_early(attempt)
            else:
                self._pull_rest(attempt)

        self._pull_hit(attempt, attempt.early, range(self.layout.layers), done)

    def _pull_rest(self, attempt: PrefillAttempt) -> None:
        """The hit is settled: pull what is left of it, some layers at a time, as compute needs them."""
        rest = [block for block in attempt.unpulled if block < (attempt.hit_blocks or 0)]
        if rest:
            group = max(1, PULL_BYTES // (len(rest) * self.layout.layer_block_bytes))
            self._pull_layers(attempt, rest, 0, group)
        else:
            attempt.arrivals.advance(self.layout.layers)
            self.attempts.all_pulled(attempt)

    def _pull_layers(self, attempt: PrefillAttempt, blocks: Sequence[int], first: int, group: int) -> None:
        layers = range(first, min(first + group, self.layout.layers))

        def done() -> None:
            attempt.arrivals.advance(layers.stop)
            if layers.stop == self.layout.layers:
                self.attempts.all_pulled(attempt)
            else:
                self._pull_layers(attempt, blocks, layers.stop, group)

        self._pull_hit(attempt, blocks, layers, done)

    def _pull_hit(
        self, attempt: PrefillAttempt, blocks: Sequence[int], layers: range, done: Callable[[], None]
    ) -> None:
        """Pull some layers of blocks that the decode side has read; `done` comes only to a live attempt."""
        slots = [attempt.slots[block] for block in blocks]
        local = self.indices(slots, layers)
        remote = self.indices([attempt.peer_slots[block] for block in blocks], layers)

        def ended(result: TransferResult) -> None:
            if result.outcome is not Outcome.DONE:
                peer = attempt.peer.engine
                attempt.arrivals.lose(f"pull from {peer} {result.outcome.value}")
                self.attempts.all_pulled(attempt)
                self.fail(attempt, f"pulling hit blocks from {peer}: {result.outcome.value}", peer=peer)
            elif attempt.closed:
                self.attempts.all_pulled(attempt)
            else:
                done()

        self.pull([(attempt, slots)], local, remote, ended)

    # ------------------------------------------------------------ computing

    async def compute_forever(self) -> None:
        """Form the next batch under the compute quota and run it, as long as there is work."""
        while True:
            await self._work.wait()
            requests = [
                ReadyRequest(request=name, cached=a.computed, remaining=a.length - a.computed)
                for name, a in self._ready.items()
            ]
            chunks = next_batch(
                requests, self._quota_s, self._max_tokens, self._attention, self.layout.block_tokens
            )
            if not chunks:
                self._work.clear()
                continue
            await self._run(chunks)

    async def _run(self, chunks: Sequence[Chunk]) -> None:
        batch = next(self._batches)
        members = [(self._ready[chunk.request], chunk.tokens) for chunk in chunks]
        work = [self._chunk(attempt, tokens) for attempt, tokens in members]
        peers = self._plan(batch, members)

        def announce(layer: int) -> None:
            ready = wire.encode(wire.Ready(batch=batch, layer=layer))
            for peer in peers:
                self.parts.agent.notify(peer, ready)

        held = [slot for attempt, _ in members for slot in attempt.slots]
        self.pool.begin(held)
        began = time.perf_counter()
        try:
            logits = await self._loop.run_in_executor(self._compute, self._runner.run, work, announce)
        except ChunkLostError as lost:
            attempt = members[lost.index][0]
            self.fail(attempt, f"layers did not arrive: {lost}")
            return
        except Exception as error:
            log.exception("a prefill batch failed")
            for attempt, _ in members:
                self.fail(attempt, f"compute failed: {error}")
            return
        finally:
            self.pool.end(held)
        self.metrics.computed("prefill", time.perf_counter() - began)
        predicted = self._attention.predict([(one.cached, len(one.tokens)) for one in work])
        self._attention = self._attention.corrected(predicted, self._runner.attention_s)
        await self._finish(members, logits)

    def _chunk(self, attempt: PrefillAttempt, tokens: int) -> ChunkWork:
        end = attempt.computed + tokens
        blocks = -(-end // self.layout.block_tokens)
        return ChunkWork(
            tokens=attempt.assign.tokens[attempt.computed : end],
            cached=attempt.computed,
            slots=tuple(attempt.slots[:blocks]),
            store_from=(attempt.hit_blocks or 0) * self.layout.block_tokens,
            arrivals=attempt.arrivals,
            deadline_s=2 * PEER_DEADLINE_S,
        )

    def _plan(self, batch: int, members: Sequence[tuple[PrefillAttempt, int]]) -> set[str]:
        """Tell each decode engine which blocks this batch completes; returns those that await `Ready`."""
        peers = set()
        for attempt, tokens in members:
            end = attempt.computed + tokens
            last = end == attempt.length
            blocks = self._completed(attempt, end, last)
            attempt.last_planned = last
            if attempt.peer_done:  # the batch before this one was given up; it had nothing left to pull
                continue
            self.attempts.share(attempt)
            self.notify(
                attempt.peer,
                wire.Plan(
                    batch=batch,
                    request=attempt.name[0],
                    attempt=attempt.name[1],
                    blocks=tuple((block, attempt.slots[block]) for block in blocks),
                    hit_blocks=attempt.hit_blocks or 0,
                    last=last,
                ),
            )
            if blocks:
                peers.add(attempt.peer.engine)
        return peers

    def _completed(self, attempt: PrefillAttempt, end: int, last: bool) -> list[int]:
        """Blocks that are complete once the chunk that ends at token `end` is computed."""
        stop = -(-end // self.layout.block_tokens) if last else end // self.layout.block_tokens
        hit = attempt.hit_blocks or 0
        return [
            block
            for block in range(attempt.sent_blocks, stop)
            if not (block < hit and attempt.reads.side_of(block) is Role.DECODE)
        ]

    async def _finish(self, members: Sequence[tuple[PrefillAttempt, int]], logits: torch.Tensor) -> None:
        drawn: list[wire.Drawn] = []
        for index, (attempt, tokens) in enumerate(members):
            if attempt.closed:
                continue
            end = attempt.computed + tokens
            attempt.computed = end
            attempt.sent_blocks = end // self.layout.block_tokens
            if end == attempt.length:
                self._ready.pop(attempt.id, None)
                drawn += await self._first_tokens(attempt, logits[index])
                attempt.finished = True
        if drawn:
            self.send(wire.Tokens(drawn=tuple(drawn)))
        for attempt, _ in members:
            if attempt.finished and attempt.peer_done and not attempt.closed:
                self.drop(attempt, "done")
        self.changed()

    async def _first_tokens(self, attempt: PrefillAttempt, logits: torch.Tensor) -> list[wire.Drawn]:
        """In the compute thread: the default ones may all wait for a storage that hangs."""
        try:
            return await self._loop.run_in_executor(self._compute, first_tokens, attempt.assign, logits)
        except Exception as error:
            log.exception("drawing the first tokens failed")
            self.fail(attempt, f"drawing the first tokens failed: {error}")
            return []

    # ------------------------------------------------------------ ending, load

    def forget(self, attempt: PrefillAttempt, reason: str) -> None:
        """Wake whoever waits for its layers."""
        attempt.arrivals.lose(reason)
        self._ready.pop(attempt.id, None)

    async def close(self) -> None:
        """Stop computing."""
        self._compute.shutdown(wait=False, cancel_futures=True)
        await super().close()

    def load(self) -> dict[str, int]:
        """Prompt tokens to compute or stream, and hit tokens that this side's NIC still has to read."""
        unread = 0
        for attempt in self.attempts:
            if attempt.hit_blocks is None:
                held = len(attempt.reads.held(Role.PREFILL))
                share = {ReadMode.PREFILL: 1.0, ReadMode.SPLIT: 0.5, ReadMode.DECODE: 0.0}[
                    attempt.assign.mode
                ]
                unread += held + int(share * attempt.reads.offers(Role.PREFILL))
        return {
            "seq_e": len(self.attempts.live),
            "tok_e": sum(a.length - a.computed for a in self.attempts),
            "read_q": unread * self.layout.block_tokens,
        }


def first_tokens(assign: wire.Assign, logits: torch.Tensor) -> list[wire.Drawn]:
    """The first token of each choice. logits: [vocabulary] float32 of the last prompt token."""
    rows = [
        Row(
            sampling=assign.sampling,
            choice=choice,
            position=len(assign.tokens),
            prompt=assign.tokens[: assign.prompt_tokens],
            generated=assign.tokens[assign.prompt_tokens :],
        )
        for choice in assign.choices
    ]
    draws = sample(logits.expand(len(rows), -1), rows)
    generated = len(assign.tokens) - assign.prompt_tokens + 1
    return [
        wire.Drawn(
            request=assign.request,
            attempt=assign.attempt,
            choice=row.choice,
            token=draw.token,
            finish=finish_of(assign.sampling, draw.token, generated),
            logprob=draw.logprob,
            top=draw.top,
        )
        for row, draw in zip(rows, draws, strict=True)
    ]
