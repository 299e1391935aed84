"""The decode loop: continuous batching over paged KV, on a thread of its own.

The event loop sends commands (fill, abort, release a page) and gets events back, once a step
(loop_messages.py). The thread owns the pages and the sequences; nobody else touches them.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from threading import Thread

import torch

from dualpath_api import wire
from dualpath_api.keys import KvLayout, block_keys
from dualpath_kernels import gather_layer_blocks
from dualpath_worker.blocks import BlockPool, PagePool
from dualpath_worker.engine.attempts import Name
from dualpath_worker.engine.finish import finish_of
from dualpath_worker.engine.loop_messages import (
    Abort,
    BlockComplete,
    Ended,
    Entered,
    Event,
    Evicted,
    Fill,
    ReleasePage,
    Stepped,
    Unfilled,
    without_choice,
)
from dualpath_worker.engine.stepping import Stepper
from dualpath_worker.metrics import Metrics
from dualpath_worker.models import Model
from dualpath_worker.sampling import Row, sample
from dualpath_worker.transfer.local import NicCopies

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Running:
    """One choice that is being generated. KV of tokens[:length] is in the pages."""

    fill: Fill
    choice: int
    generated: list[int]  # of this and earlier attempts; the last one has no KV yet
    pages: list[int]
    length: int
    parent: bytes  # key of the last complete block
    tail: list[int] = field(default_factory=list)  # tokens behind it that have KV

    @property
    def sampling(self) -> wire.Sampling:
        """The request's sampling parameters."""
        return self.fill.assign.sampling


class Generation:
    """Sequences, pages and the thread that steps them."""

    def __init__(
        self,
        model: Model,
        pool: BlockPool,
        layout: KvLayout,
        pages: int,
        metrics: Metrics,
        *,
        by_nic: Callable[[Sequence[torch.Tensor]], NicCopies] | None = None,
    ) -> None:
        """`by_nic` makes what copies prompts into these cache tensors; without it the device does."""
        self._pool = pool
        self._layout = layout
        self._metrics = metrics
        self._pages = PagePool(pages)
        self._stepper = Stepper(model, layout, pages)
        self._by_nic = by_nic(self._stepper.kv) if by_nic else None
        self._inbox: SimpleQueue[Fill | Abort | ReleasePage | None] = SimpleQueue()
        self._waiting: deque[Fill] = deque()
        self._running: list[Running] = []
        self._events: list[Event] = []
        self._on_events: Callable[[Sequence[Event]], None] = lambda events: None
        self._thread = Thread(target=self._run, name="generation", daemon=True)
        self.pages = pages
        self.free_pages = pages
        self.used_pages = 0
        self.tokens = 0  # in the cache

    # ------------------------------------------------------------ from the event loop

    def start(self, on_events: Callable[[Sequence[Event]], None]) -> None:
        """Start the thread; `on_events` is called on it."""
        self._on_events = on_events
        self._thread.start()

    def fill(self, fill: Fill) -> None:
        """Queue an attempt whose buffer is complete; FIFO."""
        self._inbox.put(fill)

    def abort(self, name: Name, choice: int | None = None) -> None:
        """Forget an attempt or one choice before the next step."""
        self._inbox.put(Abort(name, choice))

    def release_page(self, page: int) -> None:
        """The page of a `BlockComplete` has been written."""
        self._inbox.put(ReleasePage(page))

    def stop(self) -> None:
        """End the thread after the step under way."""
        self._inbox.put(None)
        self._thread.join(timeout=30)

    # ------------------------------------------------------------ the thread

    @torch.inference_mode()
    def _run(self) -> None:
        idle, going_on = True, True
        while going_on:
            try:
                going_on = self._commands(block=idle)
                self._admit()
                if self._running and going_on:
                    self._step()
                    self._admit()  # the step may have freed pages, and no command need follow
                idle = not self._running
            except Exception as error:
                log.exception("a decode step failed")
                for name in {one.fill.name for one in self._running}:
                    self._evict(name, f"decode step failed: {error}", excuse=False)
                idle = False  # who waits for pages has them now
            self._flush()

    def _commands(self, *, block: bool) -> bool:
        """Take all commands that wait; False: stop."""
        try:
            while True:
                command = self._inbox.get(block=block)
                block = False
                match command:
                    case Fill():
                        self._waiting.append(command)
                    case Abort(name=name, choice=choice):
                        self._abort(name, choice)
                    case ReleasePage(page=page):
                        self._pages.drop([page])
                    case None:
                        return False
        except Empty:
            return True

    def _flush(self) -> None:
        self.free_pages = self._pages.available
        self.used_pages = len({page for one in self._running for page in one.pages})
        self.tokens = sum(one.length for one in self._running)
        if self._events:
            events, self._events = self._events, []
            self._on_events(events)

    def _abort(self, name: Name, choice: int | None) -> None:
        if choice is None:
            for fill in [fill for fill in self._waiting if fill.name == name]:
                self._waiting.remove(fill)
                self._events.append(Unfilled(name))
        else:
            self._waiting = deque(
                without_choice(fill, choice) if fill.name == name else fill for fill in self._waiting
            )
        for one in [one for one in self._running if one.fill.name == name and choice in (None, one.choice)]:
            self._end(one)

    # ------------------------------------------------------------ admission

    def _admit(self) -> None:
        """Fill waiting attempts in order, as long as their prompt and one page a running choice fit."""
        while self._waiting:
            fill = self._waiting[0]
            prompt = len(fill.slots)
            own = 1 if len(fill.assign.tokens) % self._layout.block_tokens == 0 else 0
            needed = prompt + (len(fill.first) if own else max(0, len(fill.first) - 1))
            if needed > self._pages.total:
                reason = f"needs {needed} cache pages, the engine has {self._pages.total}"
                self._events.append(Unfilled(fill.name, reason))
            elif needed + len(self._running) > self._pages.available:
                return
            else:
                self._enter(fill)
            self._waiting.popleft()

    def _enter(self, fill: Fill) -> None:
        began = time.perf_counter()
        pages = self._pages.take(len(fill.slots))
        assert pages is not None
        try:
            self._copy_in(fill.slots, pages)
        except Exception as error:
            log.exception("copying a prompt into the cache failed")
            if self._by_nic is None or not self._by_nic.overdue:
                self._pages.drop(pages)  # else bytes may still land there: nobody gets these pages again
            self._events.append(Unfilled(fill.name, f"copying into the cache failed: {error}"))
            return
        assign = fill.assign
        length = len(assign.tokens)
        complete = len(assign.keys) * self._layout.block_tokens
        for index, (choice, token) in enumerate(fill.first):
            if index:
                self._pages.share(pages)
            self._running.append(
                Running(
                    fill=fill,
                    choice=choice,
                    generated=[*assign.tokens[assign.prompt_tokens :], token],
                    pages=list(pages),
                    length=length,
                    parent=assign.keys[-1] if assign.keys else self._layout.root(),
                    tail=list(assign.tokens[complete:]),
                )
            )
        self._events.append(Entered(fill.name))
        self._metrics.computed("fill", time.perf_counter() - began)
        if not fill.first:
            self._pages.drop(pages)
            self._events.append(Ended(fill.name))

    def _copy_in(self, slots: Sequence[int], pages: Sequence[int]) -> None:
        if self._by_nic is not None and not self._by_nic.overdue:
            self._by_nic.fill(slots, pages)
            return
        for layer, rows in enumerate(self._stepper.rows):
            gather_layer_blocks(self._pool.blocks, slots, layer, rows, pages=pages)

    # ------------------------------------------------------------ stepping

    def _step(self) -> None:
        began = time.perf_counter()
        for one in list(self._running):
            if one in self._running:
                self._room(one)
        if not self._running:
            return
        batch = list(self._running)
        logits = self._stepper.step(
            [one.generated[-1] for one in batch], [one.length for one in batch], [one.pages for one in batch]
        )
        draws = sample(logits, [self._row(one) for one in batch])
        drawn = []
        for one, draw in zip(batch, draws, strict=True):
            self._fed(one)
            one.generated.append(draw.token)
            finish = finish_of(one.sampling, draw.token, len(one.generated))
            drawn.append(
                wire.Drawn(
                    request=one.fill.name[0],
                    attempt=one.fill.name[1],
                    choice=one.choice,
                    token=draw.token,
                    finish=finish,
                    logprob=draw.logprob,
                    top=draw.top,
                )
            )
        self._events.append(Stepped(tuple(drawn)))
        for one, told in zip(batch, drawn, strict=True):
            if told.finish is not None:
                self._end(one)
        self._metrics.computed("decode", time.perf_counter() - began)
        self._metrics.batch_size.observe(len(batch))

    def _row(self, one: Running) -> Row:
        assign = one.fill.assign
        return Row(
            sampling=one.sampling,
            choice=one.choice,
            position=assign.prompt_tokens + len(one.generated),
            prompt=assign.tokens[: assign.prompt_tokens],
            generated=one.generated,
        )

    def _room(self, one: Running) -> None:
        """A page of its own for the token that is fed next; evicts the youngest if none is left."""
        index = one.length // self._layout.block_tokens
        while one in self._running:
            if index == len(one.pages):
                fresh = self._pages.take(1, after=one.pages[-1] if one.pages else None)
                if fresh is not None:
                    one.pages += fresh
                    return
            else:
                page = one.pages[index]
                own = self._pages.own(page)
                if own is not None:
                    if own != page:
                        one.pages[index] = own
                        for kv in self._stepper.kv:
                            kv[own].copy_(kv[page])
                    return
            self._evict(self._running[-1].fill.name, "no cache page is left", excuse=True)

    def _fed(self, one: Running) -> None:
        """The KV of the last generated token is in its page now."""
        one.tail.append(one.generated[-1])
        one.length += 1
        if len(one.tail) == self._layout.block_tokens:
            (one.parent,) = block_keys(one.parent, one.tail, self._layout.block_tokens)
            one.tail = []
            page = one.pages[one.length // self._layout.block_tokens - 1]
            self._pages.share([page])
            self._events.append(BlockComplete(one.parent, page, self._stepper.page_bytes(page)))

    def _end(self, one: Running) -> None:
        self._running.remove(one)
        self._pages.drop(one.pages)
        if not any(other.fill.name == one.fill.name for other in self._running):
            self._events.append(Ended(one.fill.name))

    def _evict(self, name: Name, reason: str, *, excuse: bool) -> None:
        for one in [one for one in self._running if one.fill.name == name]:
            self._running.remove(one)
            self._pages.drop(one.pages)
        self._events.append(Evicted(name, reason, excuse))
