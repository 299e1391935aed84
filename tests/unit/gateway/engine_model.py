"""Engines without sockets or clock, for random interleavings: each step of theirs is taken when told to."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from scripted_engine import BLOCK, LAYOUT, register, replaced, token_at

from dualpath_api import wire
from dualpath_api.keys import block_keys
from dualpath_gateway.scheduler.core import Scheduler
from dualpath_gateway.scheduler.effects import Emit, Ended, Send
from dualpath_gateway.scheduler.model import Patience
from dualpath_policy.model import Tuning

Name = tuple[str, int]
LAYOUTS = {"": LAYOUT, "other": replaced(LAYOUT, fingerprint="01", block_tokens=32)}
"""By revision."""


class ModelEngine:
    """Obeys wire.py, one step at a time. `inbox` and `outbox` are the two directions of its socket."""

    def __init__(self, name: str, role: wire.Role, incarnation: int, revision: str) -> None:
        self.name, self.role = name, role
        self.layout = LAYOUTS[revision]
        self.registration = register(
            name,
            role,
            incarnation=str(incarnation),
            slots=12 * BLOCK // self.layout.block_tokens,
            pages=40 * BLOCK // self.layout.block_tokens,
            layout=self.layout,
            revision=revision,
        )
        self.inbox: deque[Any] = deque()
        self.outbox: deque[Any] = deque()
        self.live: dict[Name, list[Any]] = {}  # (request, attempt) -> [assign, steps done, sequences]
        self.seen = 0
        self.stored: set[bytes] = set()

    def busy(self) -> bool:
        return bool(self.inbox or self.outbox or any(self._can_step(n) for n in self.live))

    def _can_step(self, name: Name) -> bool:
        _, steps, sequences = self.live[name]
        return self.role is wire.Role.PREFILL or sequences is not None or steps == 0

    def take_message(self) -> None:
        """Read one message of the scheduler."""
        message = self.inbox.popleft()
        match message:
            case wire.Match():
                blocks = 0
                while blocks < len(message.keys) and message.keys[blocks] in self.stored:
                    blocks += 1
                self.outbox.append(wire.Matched(query=message.query, blocks=blocks))
            case wire.Assign():
                self.seen = message.number
                self.live[message.request, message.attempt] = [message, 0, None]
            case wire.Start():
                if entry := self.live.get((message.request, message.attempt)):
                    entry[2] = {c: [*entry[0].tokens, t] for c, t in message.first}
            case wire.Abort():
                name = (message.request, message.attempt)
                if message.choice is None:
                    self.live.pop(name, None)
                elif (entry := self.live.get(name)) and entry[2]:
                    entry[2].pop(message.choice, None)
        self.report()

    def step(self, which: int, answer: str) -> None:
        """Go on with one live request; `answer`: ok, refuse, fail or excuse."""
        names = [name for name in self.live if self._can_step(name)]
        if not names:
            return
        name = names[which % len(names)]
        about = {"request": name[0], "attempt": name[1]}
        if answer in ("fail", "excuse"):
            del self.live[name]
            self.outbox.append(wire.Failed(**about, reason="scripted", excuse=answer == "excuse"))
        elif self.live[name][1] == 0:
            self.live[name][1] = 1
            if answer == "refuse":
                del self.live[name]
                self.outbox.append(wire.Refused(**about, reason="scripted"))
            else:
                self.outbox.append(wire.Accepted(**about))
        elif self.role is wire.Role.PREFILL:
            self._prefill(name, about)
        else:
            self._decode(name, about)
        self.report()

    def _prefill(self, name: Name, about: dict[str, Any]) -> None:
        assign, steps, _ = self.live[name]
        self.live[name][1] += 1
        if steps == 1:
            hit = min(assign.hit_blocks * self.layout.block_tokens, len(assign.tokens) - 1)
            done = wire.ReadDone(
                **about, hit_tokens=hit, prefill_blocks=0, decode_blocks=0, prefill_bytes=0, decode_bytes=0
            )
            self.outbox.append(done)
            return
        choice = assign.choices[steps - 2]
        self._draw(assign, choice, len(assign.tokens))
        if steps - 1 == len(assign.choices):
            del self.live[name]

    def _decode(self, name: Name, about: dict[str, Any]) -> None:
        assign, steps, sequences = self.live[name]
        self.live[name][1] += 1
        if steps == 1:
            self.outbox.append(wire.Filled(**about))
        else:
            for choice, sequence in list(sequences.items()):
                if self._draw(assign, choice, len(sequence)):
                    del sequences[choice]
                sequence.append(token_at(choice, len(sequence)))
                self._store(sequence[:-1])
        if not sequences and steps >= 1:
            self._store(list(assign.tokens))
            del self.live[name]

    def _draw(self, assign: wire.Assign, choice: int, position: int) -> bool:
        finished = position - assign.prompt_tokens + 1 >= assign.sampling.max_tokens
        drawn = wire.Drawn(
            request=assign.request,
            attempt=assign.attempt,
            choice=choice,
            token=token_at(choice, position),
            finish="length" if finished else None,
        )
        self.outbox.append(wire.Tokens(drawn=(drawn,)))
        return finished

    def _store(self, tokens: list[int]) -> None:
        keys = block_keys(self.layout.root(), tokens, self.layout.block_tokens)
        self.stored.update(keys)
        self.outbox.append(wire.Stored(keys=tuple(keys)))

    def report(self) -> None:
        used = sum(-(-len(entry[0].tokens) // BLOCK) + 1 for entry in self.live.values())
        self.outbox.append(
            wire.Report(
                seen=self.seen,
                seq_e=len(self.live),
                tok_e=sum(len(entry[0].tokens) for entry in self.live.values()),
                read_q=0,
                free_slots=self.registration.buffer_slots - used,
                free_pages=self.registration.cache_pages,
            )
        )


class Network:
    """A scheduler and its engines; every message waits until it is delivered. Checks streams as they grow."""

    NAMES = ("prefill-0-0", "prefill-1-0", "decode-0-0", "decode-1-0")

    def __init__(self, revisions: Mapping[str, str] | None = None) -> None:
        """`revisions` of engines by name; the others have none."""
        self.revisions = revisions or {}
        self.now = 0.0
        self.scheduler = Scheduler(Patience(attempts=3, request=60.0), Tuning())
        self.engines: dict[str, ModelEngine] = {}
        self.incarnations = 0
        self.prompts: dict[str, tuple[tuple[int, ...], int, int]] = {}
        self.streams: dict[str, dict[int, list[int]]] = {}
        self.ended: dict[str, object] = {}
        self.cancelled: set[str] = set()
        self.stopped: set[tuple[str, int]] = set()
        for name in self.NAMES:
            self.revive(name)

    # ------------------------------------------------------------ actions

    def submit(self, length: int, max_tokens: int, n: int) -> None:
        name = f"r{len(self.prompts)}"
        tokens = tuple(token_at(0, i) for i in range(length))
        self.prompts[name] = (tokens, max_tokens, n)
        self.streams[name] = {i: [] for i in range(n)}
        if not self.scheduler.world.engines.can_serve():
            self.cancelled.add(name)
            return
        sampling = wire.Sampling(max_tokens=max_tokens)
        self.scheduler.submit(name, tokens, {}, sampling, n, self.now)
        self.settle()

    def revive(self, name: str) -> None:
        if name not in self.engines:
            self.incarnations += 1
            engine = ModelEngine(
                name, wire.Role(name.partition("-")[0]), self.incarnations, self.revisions.get(name, "")
            )
            self.engines[name] = engine
            self.scheduler.engine_up(engine.registration, self.now)
            self.settle()

    def kill(self, name: str) -> None:
        if self.engines.pop(name, None):
            self.scheduler.engine_lost(name, "killed", self.now)
            self.settle()

    def deliver(self, name: str) -> None:
        """One message of an engine reaches the scheduler."""
        engine = self.engines.get(name)
        if engine and engine.outbox:
            self.scheduler.message(name, engine.outbox.popleft(), self.now)
            self.settle()

    def cancel(self, which: int) -> None:
        if running := [r for r in self.prompts if r not in self.ended and r not in self.cancelled]:
            name = running[which % len(running)]
            self.cancelled.add(name)
            self.scheduler.cancel(name, self.now)
            self.settle()

    def stop_choice(self, which: int) -> None:
        """As a stop string would."""
        choices = [
            (name, choice)
            for name, stream in self.streams.items()
            for choice, tokens in stream.items()
            if tokens and name not in self.ended and name not in self.cancelled
        ]
        if choices:
            name, choice = choices[which % len(choices)]
            self.stopped.add((name, choice))
            self.scheduler.cancel_choice(name, choice, self.now)
            self.settle()

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.scheduler.tick(self.now)
        self.settle()

    # ------------------------------------------------------------ effects and checks

    def settle(self) -> None:
        for effect in self.scheduler.take():
            match effect:
                case Send():
                    if isinstance(effect.message, wire.Assign):
                        self._check_pair(effect.engine, effect.message)
                    self.engines[effect.engine].inbox.append(effect.message)
                case Emit():
                    self._emit(effect)
                case Ended():
                    assert effect.request not in self.ended, "ended twice"
                    assert effect.request not in self.cancelled
                    self.ended[effect.request] = effect.failure
        for engine in self.scheduler.world.engines:
            load = engine.load(engine.read_queue())
            assert min(load.seq_e, load.tok_e, load.read_q, load.free_slots, load.free_tokens) >= 0

    def _check_pair(self, name: str, assign: wire.Assign) -> None:
        """Both sides are of one revision, and the keys are of its layout."""
        one, other = self.engines[name], self.engines.get(assign.peer.engine)
        if other is not None:
            assert one.registration.revision == other.registration.revision
        keys = block_keys(one.layout.root(), assign.tokens, one.layout.block_tokens)
        assert assign.keys == tuple(keys)
        assert assign.hit_blocks <= len(keys)

    def _emit(self, effect: Emit) -> None:
        name, drawn = effect.request, effect.drawn
        assert name not in self.ended
        assert name not in self.cancelled
        assert (name, drawn.choice) not in self.stopped
        stream = self.streams[name][drawn.choice]
        assert drawn.token == token_at(drawn.choice, len(self.prompts[name][0]) + len(stream))
        stream.append(drawn.token)

    def run_to_the_end(self) -> None:
        """No more faults: all engines up, all messages delivered, time passes."""
        for name in self.NAMES:
            self.revive(name)
        for _ in range(5000):
            for name, engine in list(self.engines.items()):
                while engine.inbox:
                    engine.take_message()
                engine.step(0, "ok")
                while engine.outbox:
                    self.deliver(name)
            if not self.scheduler.world.jobs and not any(e.busy() for e in self.engines.values()):
                return
            self.wait(0.5)
        raise AssertionError("the network does not come to rest")
