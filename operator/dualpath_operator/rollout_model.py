"""What the rollout planner is told, and what it answers.

Units: replicas (one engine group, however many Pods) and GPUs. Every step carries its reason in a sentence.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from dualpath_api.wire import Role


class State(StrEnum):
    """Where a replica is in its life; `state_of` decides where several would fit."""

    PENDING = "Pending"  # never admitted: nothing can be lost with it
    READY = "Ready"  # all its Pods are ready and the scheduler gives it work
    UNREADY = "Unready"  # was ready before: may come back, may hold work
    DRAINING = "Draining"  # takes nothing new, still finishes work
    DRAINED = "Drained"  # proven to hold no work, or its deadline is over
    BROKEN = "Broken"  # failed for good: holds no work and never will
    TERMINATING = "Terminating"  # deleted, but its Pods still hold their GPUs
    LOST = "Lost"  # deleted, its node is gone: only its name is still taken


def state_of(
    *,
    ready: bool,
    admitted_before: bool,
    draining: bool = False,
    drained: bool = False,
    terminating: bool = False,
    broken: bool = False,
    node_gone: bool = False,
) -> State:
    """The state that counts, from what is observed: the furthest on the way out wins."""
    ways_out = (
        (terminating and node_gone, State.LOST),
        (terminating, State.TERMINATING),
        (broken, State.BROKEN),
        (drained, State.DRAINED),
        (draining and (ready or admitted_before), State.DRAINING),
        (ready, State.READY),
        (admitted_before, State.UNREADY),
    )
    return next((state for holds, state in ways_out if holds), State.PENDING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """An observed replica."""

    id: str
    role: Role
    revision: str
    index: int
    state: State
    gpus: int | None = None  # that it holds; None: as many as a replica of the role gets now
    dismissed: bool = False  # it is to go, however many are wanted: another one takes its place


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleWish:
    """How many replicas of a role are wanted, and how far a rollout may deviate."""

    wanted: int
    max_surge: int = 1
    max_unavailable: int = 0
    gpus: int = 0  # of one replica

    @property
    def unavailable(self) -> int:
        """Replicas that may be missing: one where neither knob allows any, or nothing could be replaced."""
        return self.max_unavailable if self.max_surge + self.max_unavailable > 0 else 1


class Strategy(StrEnum):
    """How a new revision replaces the old one."""

    COORDINATED = "Coordinated"
    RECREATE = "Recreate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is wanted of a cluster's engines."""

    target: str  # revision
    prefill: RoleWish
    decode: RoleWish
    gpu_budget: int | None = None  # over both roles and all revisions; None: no limit
    paused: bool = False
    strategy: Strategy = Strategy.COORDINATED

    def of(self, role: Role) -> RoleWish:
        """The wish for one role."""
        return self.prefill if role is Role.PREFILL else self.decode


@dataclass(frozen=True, slots=True, kw_only=True)
class Create:
    """Make a replica. Its name follows from role, revision and index, so making it twice is harmless."""

    role: Role
    revision: str
    index: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """Let a replica finish its work and take nothing new."""

    id: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume:
    """Let a replica that was asked to drain take work again."""

    id: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete:
    """Delete a replica's Pods: it holds no work."""

    id: str
    why: str


Step = Create | Drain | Resume | Delete


class Outcome(StrEnum):
    """The rollout in one word; reason of the condition RolloutComplete."""

    COMPLETE = "RolloutComplete"
    ROLLING = "RollingOut"
    SCALING = "Scaling"
    PAUSED = "Paused"
    NO_GPUS = "InsufficientGpus"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do now, in this order, and how far the rollout is."""

    steps: tuple[Step, ...]
    outcome: Outcome
    message: str
    blocked: str | None = None  # what is lacking, when nothing can go on without someone's help

    @property
    def complete(self) -> bool:
        """True when just the wanted replicas exist and all are ready."""
        return self.outcome is Outcome.COMPLETE


def indices(taken: Iterable[int]) -> Iterator[int]:
    """Free indices from 0 upwards."""
    used = set(taken)
    index = 0
    while True:
        if index not in used:
            yield index
        index += 1
