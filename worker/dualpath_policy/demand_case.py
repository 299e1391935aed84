"""What a decision on replica numbers depends on, and the pair that a load needs.

Units: utilisation is demand over capacity and may exceed 1; loads are in replicas, of storage NICs in nodes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil, isfinite

from dualpath_policy.bounds import PdBounds


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleScale:
    """One role as it is, and its limits."""

    wanted: int  # replicas asked for so far, ready or not
    ready: int
    min_replicas: int = 1
    max_replicas: int = 64
    gpus: int = 0  # of a replica
    nodes: Fraction | int = 1  # that a replica takes; a part, where several share one


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Utilisation of the stages by the ready replicas."""

    prefill: float
    decode: float
    storage: float
    waiting: int = 0  # requests without an engine
    idle_s: float = 0.0  # since the last request ended; 0 while there is one
    age_s: float = 0.0  # of the figures

    @property
    def known(self) -> bool:
        """False when a figure is no number: a division by nothing somewhere before."""
        return all(map(isfinite, (self.prefill, self.decode, self.storage)))


@dataclass(frozen=True, slots=True, kw_only=True)
class DemandKnobs:
    """Thresholds and limits of the pair."""

    up: float = 0.85  # above it a stage grows
    down: float = 0.6  # below it a stage shrinks
    gpu_budget: int | None = None
    gpus_held: int | None = None  # by all replicas, also those that drain or end; None: by those wanted
    bounds: PdBounds | None = None
    stale_after_s: float = 60.0
    down_after_s: float = 300.0  # nothing shrinks so soon after the last change
    idle_after_s: float = 600.0  # without requests for so long: to zero, if the minimum is 0

    @property
    def middle(self) -> float:
        """The utilisation that a change aims at."""
        return (self.up + self.down) / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Replicas of both roles."""

    prefill: int
    decode: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """All that a decision depends on."""

    load: Load | None
    prefill: RoleScale
    decode: RoleScale
    knobs: DemandKnobs

    @property
    def current(self) -> Pair:
        """What was asked for so far."""
        return Pair(prefill=self.prefill.wanted, decode=self.decode.wanted)

    @property
    def least(self) -> Pair:
        """The fewest replicas while anything runs: one role alone serves nothing."""
        return Pair(prefill=max(1, self.prefill.min_replicas), decode=max(1, self.decode.min_replicas))

    @property
    def may_be_off(self) -> bool:
        """True when neither role has a minimum."""
        return max(self.prefill.min_replicas, self.decode.min_replicas) == 0

    @property
    def loads(self) -> tuple[float, float]:
        """Load of both engine stages in replicas; as if what is wanted were right, where it is not known."""
        load = self.load
        if load is None or min(self.prefill.ready, self.decode.ready) == 0:
            return float(self.prefill.wanted), float(self.decode.wanted)
        return load.prefill * self.prefill.ready, load.decode * self.decode.ready

    @property
    def storage_load(self) -> float:
        """Load of the storage NICs in nodes."""
        ready = Pair(prefill=self.prefill.ready, decode=self.decode.ready)
        return self.load.storage * self.nodes(ready) if self.load else 0.0

    def inflated(self, factor: float) -> Case:
        """The same with more load."""
        assert self.load is not None
        load = self.load
        more = replace(
            load, prefill=load.prefill * factor, decode=load.decode * factor, storage=load.storage * factor
        )
        return replace(self, load=more)

    def nodes(self, pair: Pair) -> float:
        """Nodes of a pair."""
        return float(pair.prefill * self.prefill.nodes + pair.decode * self.decode.nodes)

    def cost(self, pair: Pair) -> int:
        """GPUs of a pair."""
        return pair.prefill * self.prefill.gpus + pair.decode * self.decode.gpus

    def fits(self, pair: Pair) -> bool:
        """True within the GPU budget."""
        return self.knobs.gpu_budget is None or self.cost(pair) <= self.knobs.gpu_budget

    def clamped(self, pair: Pair) -> Pair:
        """The nearest pair inside the limits of both roles."""
        least = self.least
        return Pair(
            prefill=max(least.prefill, min(self.prefill.max_replicas, pair.prefill)),
            decode=max(least.decode, min(self.decode.max_replicas, pair.decode)),
        )

    def in_range(self, pair: Pair) -> bool:
        """True inside the bottleneck-free range."""
        bounds = self.knobs.bounds
        return bounds is None or bounds.contains(
            pair.prefill * Fraction(self.prefill.nodes), pair.decode * Fraction(self.decode.nodes)
        )


def larger_of(one: Pair, other: Pair) -> Pair:
    """The larger number of each role."""
    return Pair(prefill=max(one.prefill, other.prefill), decode=max(one.decode, other.decode))


# ---------------------------------------------------------------- the target


def target_of(case: Case) -> Pair:
    """The smallest pair that brings every stage to the middle."""
    stages = stages_of(case)
    if not case.fits(stages):
        return shared(case, stages)
    return into_range(case, _with_nodes(case, stages, case.storage_load / case.knobs.middle))


def stages_of(case: Case) -> Pair:
    """What both engine stages need, without regard to the budget."""
    (load_p, load_d), middle = case.loads, case.knobs.middle
    return case.clamped(Pair(prefill=_ceil(load_p / middle), decode=_ceil(load_d / middle)))


def _ceil(replicas: float) -> int:
    return ceil(replicas - 1e-9)


def _with_nodes(case: Case, pair: Pair, nodes: float) -> Pair:
    """More of the busier role until there are so many nodes, as far as limits and budget allow."""
    while case.nodes(pair) < nodes - 1e-9:
        larger = one_more(
            case, pair, Pair(prefill=case.prefill.max_replicas, decode=case.decode.max_replicas)
        )
        if larger is None:
            break
        pair = larger
    return pair


def shared(case: Case, most: Pair) -> Pair:
    """The smallest pair, then more of the busier role, as far as `most` and the budget allow."""
    pair = case.least
    while (larger := one_more(case, pair, most)) is not None:
        pair = larger
    return pair


def one_more(case: Case, pair: Pair, most: Pair) -> Pair | None:
    """One more of the role with more load a replica, else of the other one; None: neither may grow."""
    load_p, load_d = case.loads
    more_p = Pair(prefill=pair.prefill + 1, decode=pair.decode)
    more_d = Pair(prefill=pair.prefill, decode=pair.decode + 1)
    order = [more_p, more_d] if load_p / pair.prefill >= load_d / pair.decode else [more_d, more_p]
    return next((p for p in order if larger_of(p, most) == most and case.fits(p)), None)


def into_range(case: Case, pair: Pair) -> Pair:
    """More of the scarcer role where P/D leaves the bottleneck-free range, if limits and budget allow it."""
    bounds = case.knobs.bounds
    if bounds is None or case.in_range(pair):
        return pair
    p, d = pair.prefill * Fraction(case.prefill.nodes), pair.decode * Fraction(case.decode.nodes)
    if p < bounds.lower * d:
        wider = Pair(prefill=ceil(bounds.lower * d / case.prefill.nodes), decode=pair.decode)
    else:
        wider = Pair(prefill=pair.prefill, decode=ceil(p / bounds.upper / case.decode.nodes))
    return wider if case.clamped(wider) == wider and case.fits(wider) else pair
