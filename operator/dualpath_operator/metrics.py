"""The operator's own metrics, and one set of gauges per cluster. No label has a value per Pod."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REGISTRY = CollectorRegistry()

RECONCILE_SECONDS = Histogram(
    "dualpath_operator_reconcile_duration_seconds",
    "Time of one pass.",
    ["kind", "result"],
    registry=REGISTRY,
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30),
)
RECONCILE_ERRORS = Counter(
    "dualpath_operator_reconcile_errors", "Passes that failed.", ["kind", "class"], registry=REGISTRY
)
APPLIES = Counter(
    "dualpath_operator_apply", "Writes to the API server.", ["kind", "outcome"], registry=REGISTRY
)
DRIFT = Counter(
    "dualpath_operator_drift_corrected",
    "Objects put right after others changed them.",
    ["kind"],
    registry=REGISTRY,
)
DRAIN_SECONDS = Histogram(
    "dualpath_operator_drain_duration_seconds",
    "Time from asking an engine group to drain until it may go.",
    ["role", "outcome"],
    registry=REGISTRY,
    buckets=(0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600),
)
LEADER = Gauge("dualpath_operator_leader", "1 on the replica that acts.", registry=REGISTRY)
HEARTBEAT_AGE = Gauge(
    "dualpath_operator_watch_heartbeat_age_seconds",
    "Time since the watches were last proven to tell what the API server holds.",
    registry=REGISTRY,
)
DENIALS = Counter(
    "dualpath_operator_webhook_denials", "Objects refused at admission.", ["reason"], registry=REGISTRY
)
QUEUE = Gauge("dualpath_operator_queue_length", "Clusters that wait for a pass.", registry=REGISTRY)

_CLUSTER = ["namespace", "cluster"]
CONDITION = Gauge(
    "dualpath_cluster_condition", "1 for the status that a condition has.", [*_CLUSTER, "type", "status"],
    registry=REGISTRY,
)  # fmt: skip
DECODE_SHARE = Gauge(
    "dualpath_decode_share_ratio",
    "Decode side's share of the bytes read.",
    [*_CLUSTER, "kind"],
    registry=REGISTRY,
)
NIC_UTILIZATION = Gauge(
    "dualpath_nic_utilization_ratio", "Utilisation of NICs over the nodes of a role.",
    [*_CLUSTER, "role", "nic_class", "quantile"], registry=REGISTRY,
)  # fmt: skip
READ_QUEUE = Gauge(
    "dualpath_read_queue_seconds", "Time to read what is queued, at the measured rate.", [*_CLUSTER, "role"],
    registry=REGISTRY,
)  # fmt: skip
HIT_RATIO = Gauge("dualpath_kv_hit_ratio", "Prompt tokens found in storage.", _CLUSTER, registry=REGISTRY)
TELEMETRY_AGE = Gauge(
    "dualpath_telemetry_age_seconds", "Age of the newest report of a cluster.", _CLUSTER, registry=REGISTRY
)
REPLICAS = Gauge("dualpath_replicas", "Engine groups.", [*_CLUSTER, "role", "state"], registry=REGISTRY)
PD_RATIO = Gauge(
    "dualpath_pd_ratio", "Prefill over decode groups, and the bounds of its free range.", [*_CLUSTER, "kind"],
    registry=REGISTRY,
)  # fmt: skip

_OF_CLUSTERS = (
    CONDITION, DECODE_SHARE, NIC_UTILIZATION, READ_QUEUE, HIT_RATIO, TELEMETRY_AGE, REPLICAS, PD_RATIO,
)  # fmt: skip


def forget_cluster(namespace: str, name: str) -> None:
    """Drop the series of a cluster that is gone."""
    for gauge in _OF_CLUSTERS:
        gauge.remove_by_labels({"namespace": namespace, "cluster": name})
