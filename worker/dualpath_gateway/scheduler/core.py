"""The scheduler: a state machine without I/O or clock.

Every method takes the time (seconds of any steady clock); what is to be done then lies in `take()`, in order.
"""

from __future__ import annotations

from collections.abc import Mapping

from dualpath_api.keys import KvLayout
from dualpath_api.wire import (
    Accepted,
    Drain,
    Failed,
    Filled,
    Matched,
    PeerGone,
    ReadDone,
    Refused,
    Register,
    Report,
    Sampling,
    Stored,
    Tokens,
    ToScheduler,
)
from dualpath_gateway.scheduler import flow, matching, placing, recovery
from dualpath_gateway.scheduler.effects import Effect, FailureKind
from dualpath_gateway.scheduler.engine import Engine
from dualpath_gateway.scheduler.model import Choice, Job, Patience, State, Turn
from dualpath_gateway.scheduler.nics import forget_nics, tell_of_nics
from dualpath_gateway.scheduler.record import Record
from dualpath_gateway.scheduler.world import World
from dualpath_policy.model import Tuning


class QueueFullError(Exception):
    """No more requests are taken for now."""


class NoEnginesError(Exception):
    """No live engine of some role takes requests."""


class Scheduler:
    """Takes requests and engine messages; decides with `dualpath_policy`; yields effects."""

    def __init__(self, patience: Patience, tuning: Tuning) -> None:
        self.world = World(patience=patience, tuning=tuning)

    def take(self) -> list[Effect]:
        """The effects since the last call."""
        effects, self.world.out = self.world.out, []
        return effects

    # ------------------------------------------------------------ requests

    def admit(self) -> None:
        """Raises NoEnginesError or QueueFullError where a new request would have no chance."""
        if not self.world.engines.can_serve():
            self.world.totals.turned_away += 1
            raise NoEnginesError
        if len(self.world.queue) >= self.world.patience.queue_limit:
            raise QueueFullError

    def submit(
        self,
        name: str,
        tokens: tuple[int, ...],
        keys: Mapping[KvLayout, tuple[bytes, ...]],
        sampling: Sampling,
        n: int,
        now: float,
    ) -> None:
        """Queue a request; `keys` of its complete blocks may be known for some layouts. Raises as `admit`."""
        self.admit()
        world = self.world
        record = world.records.open(Record(name, now, len(tokens), n))
        turn = Turn(
            id=name,
            tokens=tokens,
            keys=dict(keys),
            sampling=sampling,
            arrived=now,
            choices=[Choice(index) for index in range(n)],
            record=record,
            give_up_at=now + world.patience.request,
            jobs={name},
        )
        world.orders += 1
        job = Job(
            id=name,
            turn=turn,
            choices=tuple(range(n)),
            order=world.orders,
            tokens=tokens,
            since=now,
        )
        world.turns[name], world.jobs[name] = turn, job
        world.note("request queued", request=name, prompt_tokens=len(tokens), choices=n)
        world.enqueue(job, now)
        placing.pump(world, now)

    def cancel(self, name: str, now: float, reason: str = "the client is gone") -> None:
        """Forget a request; unknown ones are ignored. It gets no `Ended`."""
        if turn := self.world.turns.get(name):
            recovery.cancel(self.world, turn, reason, now)
            placing.pump(self.world, now)

    def cancel_choice(self, name: str, choice: int, now: float) -> None:
        """No more tokens of this choice are wanted; it counts as finished."""
        if turn := self.world.turns.get(name):
            flow.cancel_choice(self.world, turn, choice, now)
            placing.pump(self.world, now)

    def fail_all(self, message: str, now: float) -> None:
        """End every request with an error: this process is about to end."""
        for turn in list(self.world.turns.values()):
            recovery.give_up(self.world, turn, FailureKind.SHUTDOWN, message, now)

    # ------------------------------------------------------------ engines

    def engine_up(self, register: Register, now: float) -> None:
        """A registered engine; an older connection of the same name is lost by it."""
        world = self.world
        if world.engines.get(register.engine):
            self.engine_lost(register.engine, "it registered again", now)
        engine = world.engines.add(register, now)
        world.note("engine up", engine=engine.name, role=engine.role.value, incarnation=register.incarnation)
        tell_of_nics(world, engine)
        self._tell_drain(engine)  # also says that it is registered
        placing.pump(world, now)

    def engine_lost(self, name: str, reason: str, now: float) -> None:
        """The connection is gone: its work is queued again, and its peers are told."""
        world = self.world
        engine = world.engines.remove(name)
        if engine is None:
            return
        world.warn("engine lost", engine=name, reason=reason, jobs=len(engine.jobs))
        for other in world.engines:
            world.send(other.name, PeerGone(engine=name, incarnation=engine.register.incarnation))
        world.pending.drop_engine(name)
        forget_nics(world, name)
        for number in [number for number, query in world.queries.items() if query.engine == name]:
            job = world.jobs.get(world.queries.pop(number).job)
            if job and job.query == number:
                job.query = None
        recovery.engine_lost(world, name, f"{name} is gone: {reason}", now)
        placing.pump(world, now)

    def message(self, name: str, message: ToScheduler, now: float) -> None:
        """One message of a connected engine."""
        world, engine = self.world, self.world.engines.get(name)
        if engine is None:
            return
        match message:
            case Report():
                engine.seen(message, now)
                world.changed = True
            case Matched():
                flow.matched(world, message, now)
            case Tokens():
                flow.tokens(world, engine, message, now)
            case Stored():
                flow.stored(world, engine, message)
            case Accepted() | Refused() | ReadDone() | Filled() | Failed():
                flow.of_attempt(world, engine, message, now)
            case Register():
                world.warn("second register ignored", engine=name)
        if world.changed:
            placing.pump(world, now)

    def drain(self, name: str, *, accept_new: bool, serve_reads: bool, now: float) -> None:
        """What a connected engine should do from now on."""
        self.world.engines.wish(name, accept_new, serve_reads)
        if engine := self.world.engines.get(name):
            self._tell_drain(engine)
        placing.pump(self.world, now)

    def _tell_drain(self, engine: Engine) -> None:
        self.world.send(engine.name, Drain(accept_new=engine.accept_new, serve_reads=engine.serve_reads))

    # ------------------------------------------------------------ time

    def tune(self, tuning: Tuning, now: float) -> None:
        """Use other settings from the next decision on."""
        other_policy = tuning.path_policy is not self.world.tuning.path_policy
        self.world.tuning = tuning
        for engine in self.world.engines if other_policy else ():
            tell_of_nics(self.world, engine)
        placing.pump(self.world, now)

    def next_wakeup(self) -> float | None:
        """When `tick` has something to do next."""
        return self.world.next_wakeup()

    def tick(self, now: float) -> None:
        """Act on what took too long."""
        for name in self.world.due(now):
            if job := self.world.jobs.get(name):
                self._overdue(job, now)
        placing.pump(self.world, now)

    def _overdue(self, job: Job, now: float) -> None:
        world, patience = self.world, self.world.patience
        if job.waiting and now >= job.turn.give_up_at:
            message = f"no engine could continue the request within {patience.request:.0f} s"
            recovery.give_up(world, job.turn, FailureKind.TIMEOUT, message, now)
        elif job.query is not None and now - job.asked_at >= patience.match:
            matching.no_answer(world, job, now)
        elif job.waiting:
            if now < job.turn.give_up_at:
                self._wake_again(job, now)
        elif (limit := world.allowed(job)) is not None:
            if now - job.progress_at < limit:
                world.wake(job.progress_at + limit, job)
                return
            slow = job.decode if self._decode_is_late(job) else job.prefill
            recovery.failed(world, job, slow, f"{job.state.value} took more than {limit:.0f} s", now)

    def _wake_again(self, job: Job, now: float) -> None:
        """A waiting job is looked at when its back-off ends and when its turn gives up."""
        if job.not_before > now:
            self.world.wake(job.not_before, job)

    def _decode_is_late(self, job: Job) -> bool:
        if job.state is State.ASSIGNED:
            return job.decode not in job.accepted
        return job.state in (State.FILLING, State.DECODING)
