"""What a pass found out about a cluster: the input of its status. Pure data."""

from __future__ import annotations

from dataclasses import dataclass, field

from dualpath_api.status import BalanceStatus, LastScale, NicsStatus, Pair, PathsStatus
from dualpath_operator.model import Cluster
from dualpath_operator.observe import ReplicaView
from dualpath_operator.rollout_model import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """One condition without its times."""

    status: bool | None  # None: Unknown
    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """All of it. `problems` are reasons for Stalled, worst first; `missing` are kinds asked for in vain."""

    cluster: Cluster
    revision: str
    wanted: dict[str, int]
    replicas: tuple[ReplicaView, ...]
    plan: Plan | None
    gateway_ready: bool
    storage: Judgement
    tuned: Judgement
    balanced: Judgement
    scaling: Judgement
    problems: tuple[Judgement, ...] = ()
    missing: tuple[str, ...] = ()
    paths: PathsStatus = field(default_factory=PathsStatus)
    nics: NicsStatus = field(default_factory=NicsStatus)
    balance: BalanceStatus = field(default_factory=BalanceStatus)
    planned: Pair | None = None
    last_scale: LastScale | None = None
    endpoint: str = ""
