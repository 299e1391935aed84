"""The scheduler with a clock, sockets and client streams: does what the state machine wants done."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Protocol

from dualpath_api.keys import KvLayout
from dualpath_api.wire import Drawn, Register, Sampling, ToScheduler, encode
from dualpath_gateway.log import event, warn
from dualpath_gateway.scheduler.core import Scheduler
from dualpath_gateway.scheduler.effects import Emit, Ended, Failure, Note, Observe, Send
from dualpath_policy.model import Tuning

log = logging.getLogger("dualpath.scheduler")

Observer = Callable[[str, float, dict[str, str]], None]


class Outbox(Protocol):
    """The sending half of an engine's connection."""

    def post(self, frame: bytes) -> None:
        """Queue one frame; never blocks."""


class StreamFailed(Exception):  # noqa: N818  the failure is the content, as with StopIteration
    """The request ended without all of its tokens."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class TokenStream:
    """The tokens of one request, in order, for one reader."""

    def __init__(self, request: str) -> None:
        self.request = request
        self._ready: list[Drawn] = []
        self._arrived = asyncio.Event()
        self._ended = False
        self._failure: Failure | None = None

    def put(self, drawn: Drawn) -> None:
        """One more token."""
        self._ready.append(drawn)
        self._arrived.set()

    def end(self, failure: Failure | None) -> None:
        """No more tokens."""
        self._ended, self._failure = True, failure
        self._arrived.set()

    async def batch(self) -> list[Drawn]:
        """All tokens since the last call, at least one; empty at the end. Raises StreamFailed."""
        await self._arrived.wait()
        ready, self._ready = self._ready, []
        if ready:
            if not self._ended:
                self._arrived.clear()
            return ready
        if self._failure is not None:
            raise StreamFailed(self._failure)
        return []


class SchedulerService:
    """One scheduler in one event loop."""

    def __init__(self, scheduler: Scheduler, observe: Observer) -> None:
        self.scheduler = scheduler
        self._observe = observe
        self._outboxes: dict[str, Outbox] = {}
        self._streams: dict[str, TokenStream] = {}
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.Handle | None = None
        self._due: float | None = None
        self._idle = asyncio.Event()
        self._idle.set()

    def now(self) -> float:
        """The scheduler's clock: the loop's."""
        return self._loop.time()

    # ------------------------------------------------------------ requests

    def submit(
        self,
        request: str,
        tokens: tuple[int, ...],
        keys: Mapping[KvLayout, tuple[bytes, ...]],
        sampling: Sampling,
        n: int,
    ) -> TokenStream:
        """Queue a request. Raises NoEnginesError or QueueFullError."""
        self.scheduler.submit(request, tokens, keys, sampling, n, self.now())
        stream = self._streams[request] = TokenStream(request)
        self._idle.clear()
        self._flush()
        return stream

    def cancel(self, request: str) -> None:
        """The reader is gone, or has all it wants. Without effect once the stream has ended."""
        if self._streams.pop(request, None) is not None:
            self.scheduler.cancel(request, self.now())
            self._flush()

    def cancel_choice(self, request: str, choice: int) -> None:
        """The reader needs no more of one choice."""
        self.scheduler.cancel_choice(request, choice, self.now())
        self._flush()

    def cached_tokens(self, request: str) -> int:
        """Prompt tokens of a request whose KV came from storage."""
        record = self.scheduler.world.records.get(request)
        turn = self.scheduler.world.turns.get(request)
        return turn.cached_tokens if turn else record.cached_tokens if record else 0

    async def drained(self) -> None:
        """Wait until no request is open."""
        await self._idle.wait()

    def fail_all(self, message: str) -> None:
        """End every open request with an error."""
        self.scheduler.fail_all(message, self.now())
        self._flush()

    # ------------------------------------------------------------ engines

    def connect(self, register: Register, outbox: Outbox) -> None:
        """An engine has registered."""
        if register.engine in self._outboxes:
            self.scheduler.engine_lost(register.engine, "it registered again", self.now())
            self._flush()
        self._outboxes[register.engine] = outbox
        self.scheduler.engine_up(register, self.now())
        self._flush()

    def disconnect(self, engine: str, outbox: Outbox, reason: str) -> None:
        """A connection is gone; ignored when the engine has a newer one."""
        if self._outboxes.get(engine) is outbox:
            del self._outboxes[engine]
            self.scheduler.engine_lost(engine, reason, self.now())
            self._flush()

    def receive(self, engine: str, outbox: Outbox, message: ToScheduler) -> None:
        """One message of an engine; ignored when the engine has a newer connection."""
        if self._outboxes.get(engine) is outbox:
            self.scheduler.message(engine, message, self.now())
            self._flush()

    def drain(self, engine: str, *, accept_new: bool, serve_reads: bool) -> None:
        """What an engine should do from now on."""
        self.scheduler.drain(engine, accept_new=accept_new, serve_reads=serve_reads, now=self.now())
        self._flush()

    def tune(self, tuning: Tuning) -> None:
        """Use other settings from the next decision on."""
        self.scheduler.tune(tuning, self.now())
        self._flush()

    # ------------------------------------------------------------ effects and time

    def _flush(self) -> None:
        """Do what the state machine wants, then set the timer to what it waits for."""
        for effect in self.scheduler.take():
            match effect:
                case Send():
                    if outbox := self._outboxes.get(effect.engine):
                        outbox.post(encode(effect.message))
                case Emit():
                    if stream := self._streams.get(effect.request):
                        stream.put(effect.drawn)
                case Ended():
                    if stream := self._streams.pop(effect.request, None):
                        stream.end(effect.failure)
                case Observe():
                    self._observe(effect.metric, effect.value, effect.labels)
                case Note():
                    (warn if effect.warning else event)(log, effect.event, **effect.fields)
        if not self._streams:
            self._idle.set()
        self._set_timer()

    def _set_timer(self) -> None:
        at = self.scheduler.next_wakeup()
        if self._timer is not None:
            if at is not None and not self._timer.cancelled() and self._due == at:
                return
            self._timer.cancel()
            self._timer = None
        if at is not None:
            # uvloop gives no TimerHandle for what is due at once, and so nothing to ask for its time
            self._timer, self._due = self._loop.call_at(at, self._tick), at

    def _tick(self) -> None:
        self._timer = None
        self.scheduler.tick(self.now())
        self._flush()

    def stop(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
