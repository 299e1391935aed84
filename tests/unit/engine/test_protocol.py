"""The protocol of two engines under every order of events: no wrong byte, no leaked slot."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from network import BLOCK, Generation, Runner, World, Writes, make_parts

from dualpath_api import wire
from dualpath_api.wire import ReadMode
from dualpath_policy.batching import AttentionTime
from dualpath_worker.engine.decode import DecodeEngine
from dualpath_worker.engine.prefill import PrefillEngine

SLOTS = 24
PATIENCE = 20_000


class Session:
    """A scheduler of a few lines: assigns, starts, aborts at random, and counts attempts."""

    def __init__(self, world: World, *, aborts: float) -> None:
        self.world, self.aborts = world, aborts
        prefill_parts, decode_parts = (
            make_parts(world, "prefill-0-0", SLOTS),
            make_parts(world, "decode-0-0", SLOTS),
        )
        runner: Any = Runner(world, prefill_parts.pool)
        generation: Any = Generation(world, decode_parts.pool)
        writes: Any = Writes(world)
        self.prefill = PrefillEngine(
            prefill_parts,
            runner,
            attention=AttentionTime(),
            quota_s=1.0,
            max_tokens=world.random.choice([3, 1000]),
        )
        self.decode = DecodeEngine(decode_parts, generation, writes)
        runner.live = lambda: list(self.prefill.attempts.live.values())
        self.requests: dict[str, wire.Assign] = {}
        self.queue: list[tuple[str, int]] = []
        self.done: set[str] = set()
        self.number = 0

    def submit(self, name: str, tokens: tuple[int, ...], stored: int, mode: ReadMode) -> None:
        """Queue a request of which `stored` leading blocks are in the store."""
        keys = self.world.learn(tokens)
        self.world.stored.update(keys[:stored])
        self.requests[name] = wire.Assign(
            request=name,
            attempt=0,
            number=0,
            tokens=tokens,
            prompt_tokens=len(tokens),
            keys=keys,
            hit_blocks=min(stored, len(keys)),
            mode=mode,
            sampling=wire.Sampling(max_tokens=3),
            peer=peer("prefill-0-0"),
        )
        self.queue.append((name, 0))

    def assign_next(self) -> None:
        """The decode engine first."""
        if self.queue:
            name, attempt = self.queue.pop(self.world.random.randrange(len(self.queue)))
            self.number += 1
            self.decode.on_message(self._assignment(name, attempt, "prefill-0-0"))

    def _assignment(self, name: str, attempt: int, other: str) -> wire.Assign:
        fields = {f: getattr(self.requests[name], f) for f in self.requests[name].__struct_fields__}
        return wire.Assign(**{**fields, "attempt": attempt, "number": self.number, "peer": peer(other)})

    def listen(self) -> bool:
        """Handle one message of an engine; False: there is none."""
        engines = [engine for engine in (self.prefill, self.decode) if engine.parts.link.inbox]
        if not engines:
            return False
        engine = self.world.random.choice(engines)
        match engine.parts.link.inbox.popleft():
            case wire.Accepted(request=name, attempt=attempt) if engine is self.decode:
                self.prefill.on_message(self._assignment(name, attempt, "decode-0-0"))
                if self.world.random.random() < self.aborts:
                    self.world.later(object(), lambda: self.give_up(name, attempt))
            case wire.Tokens(drawn=drawn) if engine is self.prefill:
                for one in drawn:
                    first = ((0, one.token),) if self.world.random.random() < 0.7 else ()
                    start = wire.Start(request=one.request, attempt=one.attempt, first=first)
                    self.decode.on_message(start)
            case wire.Filled(request=name):
                self.done.add(name)
            case wire.Failed(request=name, attempt=attempt) | wire.Refused(request=name, attempt=attempt):
                self.give_up(name, attempt)
        return True

    def give_up(self, name: str, attempt: int) -> None:
        """Abort on both sides; try again a few times."""
        if name in self.done or (name, attempt) in self.given_up:
            return
        self.given_up.add((name, attempt))
        for engine in (self.prefill, self.decode):
            self.world.later(("scheduler", id(engine)), lambda e=engine: e.on_message(abort(name, attempt)))
        if attempt < 200:
            self.queue.append((name, attempt + 1))

    given_up: set[tuple[str, int]]


def peer(engine: str) -> wire.Peer:
    return wire.Peer(engine=engine, incarnation="1", agent=b"", pool=b"")


def abort(name: str, attempt: int) -> wire.Abort:
    return wire.Abort(request=name, attempt=attempt)


async def play(session: Session) -> None:
    """Let things happen in random order until nothing is left to happen."""
    compute = asyncio.create_task(session.prefill.compute_forever())
    idle = 0
    while idle < PATIENCE:
        choice = session.world.random.random()
        if choice < 0.3:
            progressed = session.listen()
        elif choice < 0.9:
            progressed = session.world.happen()
        else:
            progressed = bool(session.queue)
            session.assign_next()
        for _ in range(3):
            await asyncio.sleep(0)
        idle = 0 if progressed else idle + 1
        busy = session.queue or session.prefill.attempts.live or session.decode.attempts.live
        if idle > 50 and not busy:
            break
        if idle > 50:
            await asyncio.sleep(0.001)  # the compute thread is at work
    assert idle < PATIENCE, "it never ends"
    assert not compute.done(), compute.exception()
    compute.cancel()
    await session.prefill.close()


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32), aborts=st.sampled_from([0.0, 0.0, 0.4]))
def test_no_wrong_byte_and_no_leaked_slot(seed: int, aborts: float) -> None:
    async def scenario() -> Session:
        random = Random(seed)
        session = Session(World(random), aborts=aborts)
        session.given_up = set()
        shared = tuple(random.randrange(1000) for _ in range(8 * BLOCK))
        for number in range(random.randint(1, 6)):
            own = tuple(random.randrange(1000) for _ in range(random.randint(1, 3 * BLOCK)))
            tokens = shared[: random.randint(0, 8) * BLOCK] + own
            stored = random.randint(0, len(tokens) // BLOCK)
            session.submit(f"r{number}", tokens, stored, random.choice(list(ReadMode)))
        await play(session)
        return session

    session = asyncio.run(scenario())
    assert session.world.wrong == []
    for engine in (session.prefill, session.decode):
        assert not engine.attempts.live
        assert not engine.attempts.lingering
        assert engine.pool.available == SLOTS
        assert engine.parts.agent.expected == 0
    if not aborts:
        assert session.done == set(session.requests)
