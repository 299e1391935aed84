"""The replicas of one cluster, counted as the rollout planner needs them.

A step is 1/N of the way, N being the larger wanted number: after step k a role has ceil(wanted * k / N)
replicas of the target revision. So a step adds at most one replica of a role, and the first adds one of both.

The board changes while a pass plans: what is planned counts at once, so that no pass contradicts itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from dualpath_api.wire import Role
from dualpath_operator.rollout_model import (
    Create,
    Delete,
    Drain,
    Replica,
    Resume,
    RoleWish,
    State,
    Step,
    Wish,
    indices,
)

OTHER = {Role.PREFILL: Role.DECODE, Role.DECODE: Role.PREFILL}
_ON_THE_WAY_OUT = (State.DRAINING, State.DRAINED, State.BROKEN, State.TERMINATING)


@dataclass(slots=True, eq=False)
class Side:
    """One role's counts."""

    role: Role
    wish: RoleWish
    new: list[Replica] = field(default_factory=list)  # of the target revision, pending, ready or unready
    old: list[Replica] = field(default_factory=list)  # of other revisions, ready or unready
    leaving: list[Replica] = field(default_factory=list)  # on their way out, still holding their GPUs
    planned: int = 0  # of the target revision, created in this pass
    promised: int = 0  # of the target revision, to be created once something is gone
    called_back: int = 0  # old replicas that stop draining; not yet sure to serve, so none goes for them
    held: int = 0  # replicas that hold GPUs
    ready_new: int = 0
    ready_old: int = 0

    @property
    def count(self) -> int:
        """Replicas of the target revision, with those planned and promised."""
        return len(self.new) + self.planned + self.promised

    def steps_of(self, count: int, steps: int) -> int:
        """The step that `count` replicas complete."""
        return min(steps, count * steps // self.wish.wanted) if self.wish.wanted else steps

    def after(self, step: int, steps: int) -> int:
        """Replicas of the target revision after a step."""
        return -(-self.wish.wanted * step // steps) if steps else 0


class Board:
    """All counts of a pass, and the steps planned so far."""

    def __init__(self, replicas: Sequence[Replica], wish: Wish) -> None:
        self.wish = wish
        self.steps: list[Step] = []
        self.sides = {role: Side(role, wish.of(role)) for role in Role}
        self.pairing = all(side.wish.wanted > 0 for side in self.sides.values())
        self.alive: Counter[tuple[str, Role]] = Counter()  # old replicas by revision
        self.ready: Counter[tuple[str, Role]] = Counter()  # those of them that are ready
        self.gpus_held = 0
        self._taken: dict[Role, list[int]] = {role: [] for role in Role}
        for replica in sorted(replicas, key=lambda r: (r.revision, r.index, r.id)):
            self._count(replica)
        self._free = {role: indices(taken) for role, taken in self._taken.items()}
        self.total_steps = max(side.wish.wanted for side in self.sides.values())
        self.ready_step = min(side.steps_of(side.ready_new, self.total_steps) for side in self.sides.values())

    def _count(self, replica: Replica) -> None:
        side, state = self.sides[replica.role], replica.state
        current = replica.revision == self.wish.target
        if current:
            self._taken[replica.role].append(replica.index)
        if state is State.LOST:
            return
        side.held += 1
        self.gpus_held += self.gpus_of(replica)
        if state in _ON_THE_WAY_OUT or (state is State.PENDING and not current):
            side.leaving.append(replica)
        elif current:
            side.new.append(replica)
            side.ready_new += state is State.READY
        else:
            self._enter_old(replica)

    def _enter_old(self, replica: Replica, sign: int = 1) -> None:
        side, key = self.sides[replica.role], (replica.revision, replica.role)
        self.alive[key] += sign
        if sign > 0:
            side.old.append(replica)
        else:
            side.old.remove(replica)
        if replica.state is State.READY:
            self.ready[key] += sign
            side.ready_old += sign

    # ------------------------------------------------------------ counts

    def gpus_of(self, replica: Replica) -> int:
        """GPUs that a replica holds."""
        return self.wish.of(replica.role).gpus if replica.gpus is None else replica.gpus

    @property
    def rolling(self) -> bool:
        """True while replicas of other revisions serve."""
        return any(side.old for side in self.sides.values())

    @property
    def planned_step(self) -> int:
        """The last step whose replicas exist or are planned."""
        return min(side.steps_of(side.count, self.total_steps) for side in self.sides.values())

    def missing(self, step: int) -> list[Side]:
        """The roles that need one replica more for this step."""
        return [s for s in self.sides.values() if s.count < s.after(step, self.total_steps)]

    def slots(self, side: Side) -> int:
        """Replicas that may be added once all that leave are gone."""
        return side.wish.wanted + self._surge(side) - side.count - len(side.old)

    def room(self, side: Side) -> int:
        """Replicas that may be added now."""
        return side.wish.wanted + self._surge(side) - side.held

    def _surge(self, side: Side) -> int:
        return 0 if self.wish.paused else side.wish.max_surge

    @property
    def free_gpus(self) -> float:
        """GPUs of the budget that nothing holds now."""
        return float("inf") if self.wish.gpu_budget is None else self.wish.gpu_budget - self.gpus_held

    @property
    def coming_gpus(self) -> float:
        """GPUs of the budget that are free, or will be when all that leave are gone, and are not promised."""
        coming = self.free_gpus
        for side in self.sides.values():
            coming += sum(map(self.gpus_of, side.leaving)) - side.promised * side.wish.gpus
        return coming

    @property
    def anything_old(self) -> bool:
        """True while a replica of another revision exists."""
        target = self.wish.target
        return any(r.revision != target for s in self.sides.values() for r in (*s.old, *s.leaving))

    @property
    def idle(self) -> bool:
        """True when nothing is planned or under way: waiting alone changes nothing."""
        return not self.steps and all(
            not side.leaving and side.ready_new == len(side.new) for side in self.sides.values()
        )

    def draining(self, side: Side, *, current: bool) -> list[Replica]:
        """Replicas on their way out that can still be called back, of the target revision or of others."""
        return [
            replica
            for replica in side.leaving
            if replica.state in (State.DRAINING, State.DRAINED)
            and not replica.dismissed
            and (replica.revision == self.wish.target) is current
        ]

    # ------------------------------------------------------------ old replicas

    def keep(self, side: Side, ahead: bool) -> int:
        """Old replicas that must stay; `ahead` uses what may be unavailable."""
        done = side.after(self.ready_step, self.total_steps)
        return side.wish.wanted - done - (side.wish.unavailable if ahead else 0)

    def may_go(self, replica: Replica, *, ahead: bool, whole_pairs: bool) -> bool:
        """True when the rest serves on without this old replica.

        `whole_pairs`: neither may replicas of the other role lose their last partner while they are needed.
        An unready replica counts as well: when the scheduler restarts, all are unready for a moment.
        """
        side = self.sides[replica.role]
        keep = self.keep(side, ahead)
        if len(side.old) - side.called_back - 1 < keep or (
            replica.state is State.READY and side.ready_old - 1 < keep
        ):
            return False
        if not (whole_pairs and self.pairing):
            return True
        return all(self._pairs_suffice(replica, other, ahead) for other in self.sides.values())

    def _pairs_suffice(self, replica: Replica, side: Side, ahead: bool) -> bool:
        """True when `side` does not fall below what must stay, counting only replicas that have a partner."""
        revision, role = replica.revision, side.role
        if not self.alive[revision, OTHER[role]]:
            return True
        if role is replica.role:
            lost = int(replica.state is State.READY)
        else:
            lost = self.ready[revision, role] if self.alive[revision, replica.role] == 1 else 0
        return not lost or self._paired(role) - lost >= self.keep(side, ahead)

    def _paired(self, role: Role) -> int:
        """Ready old replicas whose revision has the other role too."""
        return sum(n for (rev, r), n in self.ready.items() if r is role and self.alive[rev, OTHER[role]])

    def _in_order(self, side: Side) -> list[Replica]:
        """Old replicas in the order in which they go.

        Those without a partner first, then the smallest revision, so that the largest pool of pairs lasts
        longest; in it the unready ones first. None that has just been called back.
        """

        def order(replica: Replica) -> tuple[bool, int, str, bool, int]:
            both = [self.alive[replica.revision, role] for role in Role]
            return (all(both), sum(both), replica.revision, replica.state is State.READY, -replica.index)

        return sorted((r for r in side.old if r.state not in _ON_THE_WAY_OUT), key=order)

    def next_old(self, side: Side, *, ahead: bool, whole_pairs: bool) -> Replica | None:
        """The old replica that goes next; None: all must stay."""
        if len(side.old) - side.called_back <= max(0, self.keep(side, ahead)):
            return None
        fits = (r for r in self._in_order(side) if self.may_go(r, ahead=ahead, whole_pairs=whole_pairs))
        return next(fits, None)

    # ------------------------------------------------------------ steps

    def drain(self, replica: Replica, why: str) -> None:
        """Plan the drain of a replica."""
        side = self.sides[replica.role]
        if replica.revision == self.wish.target:
            side.new.remove(replica)
            side.ready_new -= replica.state is State.READY
        else:
            self._enter_old(replica, -1)
        side.leaving.append(replica)
        self.steps.append(Drain(id=replica.id, why=why))

    def undo_drain(self, replica: Replica) -> None:
        """Take back the newest planned drain, which was that of this old replica."""
        self.steps.pop()
        self.sides[replica.role].leaving.remove(replica)
        self._enter_old(replica)

    def cancel(self, replica: Replica, why: str) -> None:
        """Plan the deletion of a pending replica of the target revision."""
        side = self.sides[replica.role]
        side.new.remove(replica)
        side.leaving.append(replica)
        self.steps.append(Delete(id=replica.id, why=why))

    def resume(self, replica: Replica, why: str) -> None:
        """Plan that a replica takes work again; it counts as unready until it is seen ready."""
        side = self.sides[replica.role]
        side.leaving.remove(replica)
        if replica.revision == self.wish.target:
            side.new.append(replica)
        else:
            self._enter_old(replica)
            side.called_back += 1
        self.steps.append(Resume(id=replica.id, why=why))

    def create(self, side: Side, why: str) -> None:
        """Plan a new replica of the target revision."""
        side.planned += 1
        side.held += 1
        self.gpus_held += side.wish.gpus
        index = next(self._free[side.role])
        self.steps.append(Create(role=side.role, revision=self.wish.target, index=index, why=why))
