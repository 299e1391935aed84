"""What the operator makes of a spec beside objects: the rollout it plans, the tuning it sets, the status it tells."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime, timedelta

from dualpath_api.report import ControlReport, SideReport, SidesReport
from dualpath_api.status import Pair, PathsStatus, ShareStatus
from dualpath_operator.judgements import balance_of, progress_overdue
from dualpath_operator.model import Cluster
from dualpath_operator.names import ROLES
from dualpath_operator.rollout_model import Outcome, Plan
from dualpath_operator.tuner import Moment, Told, step
from dualpath_operator.wanted import wanted_replicas, wish_for

PLANNED = Pair(prefill=5, decode=5)
SINCE = datetime(2026, 1, 1, tzinfo=UTC)


def wanted_by(cluster: Cluster) -> dict[str, int]:
    return wanted_replicas(cluster, dict.fromkeys(ROLES), PLANNED)


def readings(cluster: Cluster) -> dict[str, dict]:
    wanted = wanted_by(cluster)
    balance, _ = balance_of(cluster.spec, {"prefill": 1, "decode": 1})
    status = {"balance": balance.model_dump(), "overdueAfterHours": _overdue(cluster)}
    return {
        "RolloutPlan": {"wish": asdict(wish_for(cluster, "REV", wanted))},
        "Tuning": {name: _tuning(cluster, **scene) for name, scene in SCENES.items()},
        "Status": status,
    }


SCENES = {
    "atFirst": {"target": None},
    "prefillHot": {"prefill": 800, "decode": 200},
    "prefillWarm": {"prefill": 530, "decode": 470},
    "reportOld": {"prefill": 800, "decode": 200, "age_s": 90.0},
    "enginesNew": {"changed_s": 60.0},
    "wayUp": {"target": 980},
    "wayDown": {"target": 20},
}
"""Traffic in which one field of pathPolicy after the other makes a difference; NICs carry 1000 bytes/s."""


def _tuning(
    cluster: Cluster,
    *,
    prefill: float = 500,
    decode: float = 500,
    target: int | None = 500,
    age_s: float = 0.0,
    changed_s: float = 10.0**6,
) -> dict:
    prefill_side, decode_side = (
        SideReport(
            read_bytes_per_s=500.0,
            sample_age_s=0.0,
            storage_link_bytes_per_s=1000.0,
            storage_busy_bytes_per_s=float(busy),
        )
        for busy in (prefill, decode)
    )
    report = ControlReport(sides=SidesReport(prefill=prefill_side, decode=decode_side))
    paths = PathsStatus(decode_share_permille=ShareStatus(target=target))
    before = Told(paths=paths, changed_at=10.0**6 - changed_s)
    told = step(cluster, report, before, Moment(age_s=age_s, clock=10.0**6, iso="now"))
    return {"target": told.paths.decode_share_permille.target, "reason": told.tuned.reason, **_tuned(told)}


def _tuned(told: Told) -> dict:
    assert told.tuning is not None
    tuning = told.tuning
    low, high = tuning.decode_min_permille, tuning.decode_max_permille
    return {"mode": tuning.path_policy, "bias": tuning.bias_tokens, "bounds": [low, high]}


def _overdue(cluster: Cluster) -> dict[str, bool]:
    """Whether a rollout without progress is overdue, after so many hours."""
    plan = Plan(steps=(), outcome=Outcome.ROLLING, message="")
    status = {"progressTime": SINCE.isoformat()}
    return {
        str(hours): progress_overdue(cluster, plan, status, SINCE + timedelta(hours=hours))
        for hours in (1, 3)
    }
