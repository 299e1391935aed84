"""Decisions only: pure functions over frozen dataclasses; no I/O, clock, log or random inside."""

from dualpath_policy.batching import AttentionTime, Chunk, ReadyRequest, next_batch
from dualpath_policy.bounds import BestShare, Link, NodeShape, PdBounds, best_share, pd_bounds
from dualpath_policy.demand import Demand, DemandKnobs, DemandReason, Load, Pair, RoleScale, replicas_for
from dualpath_policy.model import (
    EngineLoad,
    GroupChoice,
    Limits,
    ModeChoice,
    Placement,
    SideChoice,
    Tuning,
    Waiting,
)
from dualpath_policy.paths import choose_mode, shorter_queue
from dualpath_policy.placement import (
    after,
    choose_decode,
    choose_group,
    choose_prefill,
    fair_level,
    place_decode,
    place_prefill,
    spread_over_groups,
)
from dualpath_policy.reads import ReadList
from dualpath_policy.retune import Retuned, RetuneKnobs, SideTraffic, Traffic, TuneReason, next_tuning

__all__ = [
    "AttentionTime",
    "BestShare",
    "Chunk",
    "Demand",
    "DemandKnobs",
    "DemandReason",
    "EngineLoad",
    "GroupChoice",
    "Limits",
    "Link",
    "Load",
    "ModeChoice",
    "NodeShape",
    "Pair",
    "PdBounds",
    "Placement",
    "ReadList",
    "ReadyRequest",
    "RetuneKnobs",
    "Retuned",
    "RoleScale",
    "SideChoice",
    "SideTraffic",
    "Traffic",
    "TuneReason",
    "Tuning",
    "Waiting",
    "after",
    "best_share",
    "choose_decode",
    "choose_group",
    "choose_mode",
    "choose_prefill",
    "fair_level",
    "next_batch",
    "next_tuning",
    "pd_bounds",
    "place_decode",
    "place_prefill",
    "replicas_for",
    "shorter_queue",
    "spread_over_groups",
]
