"""A cluster's newest report as metrics of the operator, for dashboards and alerts that watch all clusters."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import Gauge

from dualpath_api.report import ControlReport, SideReport
from dualpath_operator import metrics
from dualpath_operator.names import ROLES
from dualpath_operator.tuner import Told
from dualpath_operator.views import ClusterKey


def set_gauges(key: ClusterKey, report: ControlReport, told: Told) -> None:
    """Set what the report knows, and drop what it does not know any more."""
    share = told.paths.decode_share_permille
    for kind, permille in (("target", share.target), ("observed", share.observed)):
        set_or_drop(metrics.DECODE_SHARE, (*key, kind), None if permille is None else permille / 1000)
    hit = told.paths.kv_hit_permille
    set_or_drop(metrics.HIT_RATIO, key, None if hit is None else hit / 1000)
    for role in ROLES:
        side: SideReport = getattr(report.sides, role)
        set_or_drop(metrics.READ_QUEUE, (*key, role), side.read_queue_s)
        for nic_class in ("storage", "compute"):
            quantiles = getattr(side.nics, nic_class)
            for quantile, permille in (("0.5", quantiles.p50_permille), ("0.95", quantiles.p95_permille)):
                value = None if permille is None else permille / 1000
                set_or_drop(metrics.NIC_UTILIZATION, (*key, role, nic_class, quantile), value)


def set_age(key: ClusterKey, age_s: Callable[[], float]) -> None:
    """Have the age of the newest report computed whenever it is read: it grows between visits."""
    metrics.TELEMETRY_AGE.labels(*key).set_function(age_s)


def forget_age(key: ClusterKey) -> None:
    """A cluster without a gateway has no telemetry that could be late."""
    metrics.TELEMETRY_AGE.remove(*key)


def set_or_drop(gauge: Gauge, labels: tuple[str, ...], value: float | None) -> None:
    """Set a series, or remove it: what is not known any more must not stand there for ever."""
    if value is None:
        gauge.remove(*labels)
    else:
        gauge.labels(*labels).set(value)
