"""A cluster in which the rollout planner's steps happen late, in any order, or not at all."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from random import Random

from dualpath_api.wire import Role
from dualpath_operator.rollout import plan
from dualpath_operator.rollout_model import (
    Create,
    Delete,
    Drain,
    Plan,
    Replica,
    Resume,
    RoleWish,
    State,
    Strategy,
    Wish,
)

P, D = Role.PREFILL, Role.DECODE
SERVING = (State.PENDING, State.READY, State.UNREADY)


def wish(target: str, p: int, d: int, surge=(1, 1), unavailable=(0, 0), gpus=(1, 1), **more) -> Wish:
    """A wish in one line."""
    roles = [
        RoleWish(wanted=n, max_surge=s, max_unavailable=u, gpus=g)
        for n, s, u, g in zip((p, d), surge, unavailable, gpus, strict=True)
    ]
    return Wish(target=target, prefill=roles[0], decode=roles[1], **more)


def fleet(revision: str, p: int, d: int, state: State = State.READY) -> list[Replica]:
    """Replicas of one revision."""
    return [
        Replica(id=f"{role[0]}-{revision}-{i}", role=role, revision=revision, index=i, state=state)
        for role, n in ((P, p), (D, d))
        for i in range(n)
    ]


@dataclass
class World:
    """Replicas by id, and all that must never happen."""

    replicas: dict[str, Replica]
    random: Random
    log: list[str] = field(default_factory=list)

    def count(self, wish: Wish, *states: State, role: Role, target: bool | None = None) -> int:
        return sum(
            r.role is role and r.state in states and (target is None or (r.revision == wish.target) is target)
            for r in self.replicas.values()
        )

    def step(self, wish: Wish) -> Plan:
        """One pass, of which a part is carried out; checks the plan and what it leads to."""
        answer = plan(tuple(self.replicas.values()), wish)
        cut = self.random.choice((len(answer.steps), self.random.randint(0, len(answer.steps))))
        before, even = dict(self.replicas), self.skew_at_most_one(wish)
        for step in answer.steps[:cut]:
            self._do(step, wish)
        self._check(before, wish)
        called_back = any(isinstance(step, Resume) for step in answer.steps[:cut])
        assert not even or called_back or self.skew_at_most_one(wish), "one role is more than a step ahead"
        return answer

    def _do(self, step: object, wish: Wish) -> None:
        self.log.append(f"{step}")
        match step:
            case Create(role=role, revision=revision, index=index):
                name = f"{role[0]}-{revision}-{index}"
                assert name not in self.replicas, "an index was used twice"
                assert revision == wish.target, "an old revision grew"
                self.replicas[name] = Replica(
                    id=name, role=role, revision=revision, index=index, state=State.PENDING
                )
            case Drain(id=name):
                assert self.replicas[name].state in (State.READY, State.UNREADY)
                self._set(name, State.DRAINING)
            case Resume(id=name):
                assert self.replicas[name].state in (State.DRAINING, State.DRAINED)
                self._set(name, State.READY)
            case Delete(id=name):
                assert self.replicas[name].state in (State.PENDING, State.DRAINED, State.BROKEN)
                self._set(name, State.TERMINATING)

    def _set(self, name: str, state: State) -> None:
        self.replicas[name] = replace(self.replicas[name], state=state)

    def let_time_pass(self, often: float = 0.5) -> None:
        """Some of what is under way comes to its end."""
        onward = {
            State.PENDING: State.READY,
            State.DRAINING: State.DRAINED,
            State.UNREADY: State.READY,
        }
        for name, found in list(self.replicas.items()):
            if self.random.random() >= often:
                continue
            if found.state is State.TERMINATING:
                del self.replicas[name]
            elif found.state in onward:
                self._set(name, onward[found.state])

    def trouble(self) -> None:
        """Something happens to a replica that nobody planned."""
        if self.replicas:
            name = self.random.choice(sorted(self.replicas))
            bad = {
                State.PENDING: (State.BROKEN, State.TERMINATING),
                State.READY: (State.UNREADY, State.TERMINATING, State.BROKEN),
                State.UNREADY: (State.TERMINATING, State.BROKEN),
                State.DRAINING: (State.TERMINATING,),
            }.get(self.replicas[name].state)
            if bad:
                self._set(name, self.random.choice(bad))

    # ------------------------------------------------------------ what must hold

    def _check(self, before: dict[str, Replica], wish: Wish) -> None:
        added = [r for name, r in self.replicas.items() if name not in before]
        if added and wish.gpu_budget is not None:
            held = sum(wish.of(r.role).gpus for r in self.replicas.values() if r.state is not State.LOST)
            assert held <= wish.gpu_budget, "more GPUs than the budget"
        for role in Role:
            knobs = wish.of(role)
            held = sum(r.role is role and r.state is not State.LOST for r in self.replicas.values())
            if any(r.role is role for r in added):
                assert held <= knobs.wanted + knobs.max_surge, "more replicas than wanted + maxSurge"
            self._check_going(before, wish, role)

    def _check_going(self, before: dict[str, Replica], wish: Wish, role: Role) -> None:
        gone = [
            old
            for name, old in before.items()
            if old.role is role and old.state in SERVING and self.replicas[name].state not in SERVING
        ]
        had = sum(
            r.role is role and r.revision == wish.target and r.state in SERVING for r in before.values()
        )
        if any(r.revision == wish.target for r in gone):
            assert had > wish.of(role).wanted, "a replica of the target revision goes although it is wanted"
        if wish.strategy is Strategy.COORDINATED and any(r.state is State.READY for r in gone):
            least = wish.of(role).wanted - wish.of(role).unavailable
            assert self.count(wish, State.READY, role=role) >= least, "too few are ready"

    def skew_at_most_one(self, wish: Wish) -> bool:
        """Both roles of the target revision lie between the same two neighbouring steps."""
        n = {role: self.count(wish, *SERVING, role=role, target=True) for role in Role}
        steps = max(wish.prefill.wanted, wish.decode.wanted)

        def after(role: Role, step: int) -> int:
            return -(-wish.of(role).wanted * min(step, steps) // steps) if steps else 0

        return any(all(after(r, k) <= n[r] <= after(r, k + 1) for r in Role) for k in range(steps + 1))

    def paired(self, role: Role) -> int:
        """Ready replicas of a role whose revision has a ready replica of the other role."""
        by = Counter((r.revision, r.role) for r in self.replicas.values() if r.state is State.READY)
        other = D if role is P else P
        return sum(n for (revision, r), n in by.items() if r is role and by[revision, other])

    def settled(self, wish: Wish) -> bool:
        """Exactly what is wanted exists."""
        return all(
            r.revision == wish.target and r.state is State.READY for r in self.replicas.values()
        ) and all(self.count(wish, State.READY, role=role) == wish.of(role).wanted for role in Role)


def run_until_settled(world: World, wish: Wish, most: int = 500) -> Plan:
    """Passes and time in turn until the planner says that it is done; fails when it does not come to an end."""
    for _ in range(most):
        answer = world.step(wish)
        if answer.complete:
            assert world.settled(wish)
            assert not answer.steps
            return answer
        world.let_time_pass(0.6)
    raise AssertionError(f"no end: {answer}\n{world.replicas.values()}")
