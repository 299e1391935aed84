"""Engines of the scripted world and a scheduler of a few lines: assigns, starts, aborts, loses engines."""

from __future__ import annotations

import asyncio
from typing import Any

from network import BLOCK, Generation, Runner, World, Writes, make_parts

from dualpath_api import wire
from dualpath_api.wire import ReadMode
from dualpath_policy.batching import AttentionTime
from dualpath_worker.engine.decode import DecodeEngine
from dualpath_worker.engine.prefill import PrefillEngine

SLOTS = 24
READ_BATCH = 2
PATIENCE = 20_000
ATTEMPTS = 300


class Node:
    """One engine process, and what the scheduler thinks of it."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.parts = make_parts(world, name, SLOTS)
        self.agent: Any = self.parts.agent
        self.inbox = self.parts.link.inbox  # type: ignore[attr-defined]
        self.incarnation = f"{self.agent.number}.0"
        self.known = True  # to the scheduler
        self.linked = True  # as the engine sees it
        self.compute: asyncio.Task[None] | None = None
        self.runner = Runner(world, self.parts.pool)
        self.engine: Any = self._prefill() if name.startswith("prefill") else self._decode()
        self.engine.read_batch = READ_BATCH

    def _prefill(self) -> PrefillEngine:
        runner: Any = self.runner
        limits = {"quota_s": 1.0, "max_tokens": self.world.random.choice([3, 1000])}
        engine = PrefillEngine(self.parts, runner, attention=AttentionTime(), **limits)
        runner.live = lambda: list(engine.attempts.live.values())
        self.compute = asyncio.create_task(engine.compute_forever())
        return engine

    def _decode(self) -> DecodeEngine:
        generation: Any = Generation(self.world, self.parts.pool)
        writes: Any = Writes(self.world)
        return DecodeEngine(self.parts, generation, writes)

    @property
    def peer(self) -> wire.Peer:
        """How the others reach it."""
        metadata = str(self.agent.number).encode()
        return wire.Peer(engine=self.name, incarnation=self.incarnation, agent=metadata, pool=b"")

    def tell(self, message: wire.ToEngine) -> None:
        """From the scheduler, in order; what is under way when the connection breaks is lost."""
        incarnation = self.incarnation

        def arrive() -> None:
            if self.linked and self.incarnation == incarnation and not self.agent.dead:
                self.engine.on_message(message)

        self.world.later(("scheduler", self), arrive)

    def reconnect(self, number: int) -> None:
        """The same process with a new connection."""
        self.incarnation = f"{self.agent.number}.{number}"
        self.known = self.linked = True
        self.tell(wire.Drain(accept_new=True, serve_reads=True))

    async def close(self) -> None:
        """After the test."""
        if self.compute:
            assert not self.compute.done(), self.compute.exception()
            self.compute.cancel()
        await self.engine.close() if self.compute else None


class Session:
    """Requests, engines and what is known of both."""

    def __init__(self, world: World, *, prefills: int, decodes: int, aborts: float, faults: float) -> None:
        self.world, self.aborts, self.faults = world, aborts, faults
        names = [f"prefill-{n}-0" for n in range(prefills)] + [f"decode-{n}-0" for n in range(decodes)]
        self.nodes = {name: Node(world, name) for name in names}
        self.buried: list[Node] = []
        self.requests: dict[str, wire.Assign] = {}
        self.queue: list[tuple[str, int]] = []
        self.placed: dict[tuple[str, int], tuple[Node, Node]] = {}  # running attempts
        self.done: set[str] = set()
        self.number = self.connections = 0

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
            hit_blocks=0,
            mode=mode,
            sampling=wire.Sampling(max_tokens=3),
            peer=self.nodes["prefill-0-0"].peer,
        )
        self.queue.append((name, 0))

    # ------------------------------------------------------------ assigning

    def assign_next(self) -> bool:
        """The decode engine first; false: nothing to assign, or nobody to assign it to."""
        sides = [
            [n for n in self.nodes.values() if n.known and n.name.startswith(r)]
            for r in ("prefill", "decode")
        ]
        if not self.queue or not all(sides):
            return False
        name, attempt = self.queue.pop(self.world.random.randrange(len(self.queue)))
        prefill, decode = (self.world.random.choice(side) for side in sides)
        keys = self.requests[name].keys
        hit = next((n for n, key in enumerate(keys) if key not in self.world.stored), len(keys))
        assign = {f: getattr(self.requests[name], f) for f in self.requests[name].__struct_fields__}
        self.requests[name] = wire.Assign(**{**assign, "hit_blocks": hit, "attempt": attempt})
        self.placed[name, attempt] = prefill, decode
        decode.tell(self._assignment(name, prefill))
        return True

    def _assignment(self, name: str, other: Node) -> wire.Assign:
        self.number += 1
        fields = {f: getattr(self.requests[name], f) for f in self.requests[name].__struct_fields__}
        return wire.Assign(**{**fields, "number": self.number, "peer": other.peer})

    # ------------------------------------------------------------ listening

    def listen(self) -> bool:
        """Handle one message of an engine; false: there is none."""
        talking = [node for node in self.nodes.values() if node.inbox]
        if not talking:
            return False
        node = self.world.random.choice(talking)
        message = node.inbox.popleft()
        if node.known and node.linked:
            self._handle(node, message)
        return True

    def _handle(self, node: Node, message: wire.ToScheduler) -> None:
        match message:
            case wire.Accepted(request=name, attempt=attempt) if (name, attempt) in self.placed:
                prefill, decode = self.placed[name, attempt]
                if node is decode:
                    prefill.tell(self._assignment(name, decode))
                if self.world.random.random() < self.aborts:
                    self.world.later(object(), lambda: self.give_up(name, attempt))
            case wire.Tokens(drawn=drawn) if node.compute:
                for one in drawn:
                    self._first_token(node, one)
            case wire.Filled(request=name, attempt=attempt) if self.placed.pop((name, attempt), None):
                self.done.add(name)
            case wire.Failed(request=name, attempt=attempt) | wire.Refused(request=name, attempt=attempt):
                self.give_up(name, attempt)

    def _first_token(self, node: Node, one: wire.Drawn) -> None:
        name = (one.request, one.attempt)
        if name not in self.placed or self.placed[name][0] is not node:
            return
        if name in node.runner.tainted:
            self.world.wrong.append("a token that was computed on wrong KV")
        first = ((0, one.token),) if self.world.random.random() < 0.7 else ()
        self.placed[name][1].tell(wire.Start(request=one.request, attempt=one.attempt, first=first))

    def give_up(self, name: str, attempt: int) -> None:
        """Abort on both sides; try again."""
        for node in self.placed.pop((name, attempt), ()):
            node.tell(wire.Abort(request=name, attempt=attempt))
            if (name, attempt + 1) not in self.queue and attempt < ATTEMPTS:
                self.queue.append((name, attempt + 1))

    # ------------------------------------------------------------ losing engines

    def fault(self) -> bool:
        """An engine dies, or loses its connection; false: not now."""
        if self.faults < self.world.random.random() or not all(n.known for n in self.nodes.values()):
            return False
        node = self.world.random.choice(list(self.nodes.values()))
        kind = self.world.random.random()
        if kind < 0.35:
            self._kill(node)
        elif kind < 0.7:
            self._disconnect(node)
        else:
            self._cut(node)
        self.faults *= 0.6
        return True

    def _kill(self, node: Node) -> None:
        node.agent.dead = True
        if node.compute:
            node.compute.cancel()
        self.buried.append(node)
        self._lost(node)

        def restart() -> None:
            self.nodes[node.name] = Node(self.world, node.name)

        self.world.later(object(), restart)

    def _cut(self, node: Node) -> None:
        """The connections between two engines break; one of them may not notice."""
        other = self.world.random.choice([n for n in self.nodes.values() if n is not node])
        sides = [(node.agent, other.agent), (other.agent, node.agent)]
        self.world.random.shuffle(sides)
        sides[0][0].break_connection(sides[0][1])
        if self.world.random.random() < 0.7:
            sides[1][0].break_connection(sides[1][1])
        else:
            self.world.channels.pop(sides[1], None)

    def _disconnect(self, node: Node) -> None:
        """Both ends notice, in any order; then the engine registers again."""
        self.connections += 1
        number, left = self.connections, {"engine", "scheduler"}

        def notice(side: str) -> None:
            left.discard(side)
            if side == "scheduler":
                self._lost(node)
            else:
                node.linked = False
                node.engine.on_lost_link()
            if not left:
                node.inbox.clear()
                self.world.later(object(), lambda: node.reconnect(number))

        for side in tuple(left):
            self.world.later(object(), lambda side=side: notice(side))

    def _lost(self, node: Node) -> None:
        node.known = False
        gone = wire.PeerGone(engine=node.name, incarnation=node.incarnation)
        for other in self.nodes.values():
            if other is not node:
                other.tell(gone)
        for name, pair in list(self.placed.items()):
            if node in pair:
                self.give_up(*name)


async def play(session: Session) -> None:
    """Let things happen in random order until nothing is left to happen."""
    idle = 0
    while idle < PATIENCE:
        choice = session.world.random.random()
        if choice < 0.3:
            progressed = session.listen()
        elif choice < 0.9:
            progressed = session.world.happen()
        elif choice < 0.91:
            progressed = session.fault()
        else:
            progressed = session.assign_next()
        for _ in range(3):
            await asyncio.sleep(0)
        idle = 0 if progressed else idle + 1
        if idle > 50:
            for node in session.nodes.values():
                node.engine.remind()
        nodes = session.nodes.values()
        busy = session.queue or any(node.engine.attempts.live or node.inbox for node in nodes)
        if idle > 50 and not busy and not session.world.channels:
            break
        if idle > 50:
            await asyncio.sleep(0.001)  # a compute thread is at work
    assert idle < PATIENCE, "it never ends"
    for node in session.nodes.values():
        await node.close()


def random_requests(session: Session) -> None:
    """Prompts that share prefixes, some of them stored."""
    random = session.world.random
    shared = tuple(random.randrange(1000) for _ in range(8 * BLOCK))
    for number in range(random.randint(1, 6)):
        own = tuple(random.randrange(1000) for _ in range(random.randint(1, 3 * BLOCK)))
        tokens = shared[: random.randint(0, 8) * BLOCK] + own
        stored = random.randint(0, len(tokens) // BLOCK)
        session.submit(f"r{number}", tokens, stored, random.choice(list(ReadMode)))
