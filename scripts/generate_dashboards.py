"""Grafana dashboards of the operator's chart, made by code. `--check` only tells what is out of date.

Series of a cluster come from the operator (labels namespace and cluster) and from its Pods, whose names start
with the cluster's.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from dashboard_model import Dashboard, Panel, Query, model, one, quantiles, rate_by

FOLDER = Path(__file__).resolve().parents[1] / "charts" / "dualpath-operator" / "dashboards"

CLUSTER = 'namespace="$namespace",cluster="$cluster"'
GATEWAY = 'namespace="$namespace",pod=~"$cluster-gateway-.*"'
ENGINES = 'namespace="$namespace",pod=~"$cluster-(prefill|decode)-.*"'
OPERATOR = 'namespace="$namespace"'


def nic_panel(nic_class: str, about: str) -> Panel:
    """Utilisation of the NICs of one class on both sides."""
    return Panel(
        title=f"{nic_class.capitalize()} NICs",
        about=about,
        unit="percentunit",
        highest=1,
        queries=one(
            f'dualpath_nic_utilization_ratio{{{CLUSTER},nic_class="{nic_class}"}}',
            "{{role}} quantile {{quantile}}",
        ),
    )


HEALTH = (
    Panel(
        title="Conditions",
        about="1: the condition is True. Stalled and Reconciling should be 0, all others 1.",
        unit="none",
        kind="state-timeline",
        width=16,
        queries=one(f'max by (type) (dualpath_cluster_condition{{{CLUSTER},status="True"}})', "{{type}}"),
    ),
    Panel(
        title="Age of the newest report",
        about="From here on old reports are not trusted, and shares and planned sizes stay as they are.",
        unit="s",
        queries=one(f"dualpath_telemetry_age_seconds{{{CLUSTER}}}", "age"),
    ),
    Panel(
        title="Prefill groups",
        about="Desired, ready, admitted by the scheduler, and draining.",
        unit="short",
        queries=one(f'dualpath_replicas{{{CLUSTER},role="prefill"}}', "{{state}}"),
    ),
    Panel(
        title="Decode groups",
        about="Desired, ready, admitted by the scheduler, and draining.",
        unit="short",
        queries=one(f'dualpath_replicas{{{CLUSTER},role="decode"}}', "{{state}}"),
    ),
    Panel(
        title="P/D and its bottleneck-free range",
        about="Outside lower and upper, compute NICs or memory saturate before the storage NICs.",
        unit="none",
        queries=one(f"dualpath_pd_ratio{{{CLUSTER}}}", "{{kind}}"),
    ),
)

PATHS = (
    Panel(
        title="Decode side's share of reads",
        about="What tuning aims at, and what was read.",
        unit="percentunit",
        highest=1,
        queries=one(f"dualpath_decode_share_ratio{{{CLUSTER}}}", "{{kind}}"),
    ),
    Panel(
        title="Reads waiting, in seconds of reading",
        about="How long each side's storage NICs need for what is queued.",
        unit="s",
        queries=one(f"dualpath_read_queue_seconds{{{CLUSTER}}}", "{{role}}"),
    ),
    Panel(
        title="KV hit ratio",
        about="Prompt tokens whose KV came from storage.",
        unit="percentunit",
        highest=1,
        queries=one(f"dualpath_kv_hit_ratio{{{CLUSTER}}}", "hit ratio"),
    ),
    nic_panel("storage", "Both sides near 100 %: the store or its NICs are the limit, not the engines."),
    nic_panel("compute", "Transfers between engines, beside the engines' own collectives."),
    Panel(
        title="Busiest NICs",
        about="Single NICs, as engines report them.",
        unit="percentunit",
        highest=1,
        queries=one(
            f'topk(10, dualpath_nic_utilization_ratio{{{ENGINES},nic!=""}})', "{{pod}} {{nic}} {{role}}"
        ),
    ),
    Panel(
        title="Bytes read from storage",
        about="By engine side.",
        unit="Bps",
        queries=rate_by("dualpath_path_read_bytes_total", ENGINES, "path"),
    ),
    Panel(
        title="Bytes pulled from other engines",
        about="By the role of the engine that pulls.",
        unit="Bps",
        queries=rate_by("dualpath_transfer_bytes_total", ENGINES, "role"),
    ),
    Panel(
        title="Assignments by read mode",
        about="Which side reads for new requests.",
        unit="reqps",
        queries=rate_by("dualpath_assignments_total", GATEWAY, "mode"),
    ),
)

LATENCY = (
    Panel(
        title="Time to first token",
        about="From a request's arrival.",
        unit="s",
        queries=quantiles("dualpath_ttft_seconds", GATEWAY),
    ),
    Panel(
        title="Time between tokens",
        about="Of requests with one choice.",
        unit="s",
        queries=quantiles("dualpath_itl_seconds", GATEWAY),
    ),
    Panel(
        title="Time in the queue",
        about="Until a request has engines.",
        unit="s",
        queries=quantiles("dualpath_queue_seconds", GATEWAY),
    ),
    Panel(
        title="Requests that ended",
        about="By outcome.",
        unit="reqps",
        queries=rate_by("dualpath_requests_total", GATEWAY, "outcome"),
    ),
    Panel(
        title="Requests inside",
        about="Running by state, and waiting for engines.",
        unit="short",
        queries=(
            Query(expr=f"sum by (state) (dualpath_requests_running{{{GATEWAY}}})", legend="{{state}}"),
            Query(expr=f"sum(dualpath_queue_depth{{{GATEWAY}}})", legend="queued"),
        ),
    ),
    Panel(
        title="Tokens",
        about="Prompt tokens, those of them that were hit, and generated tokens.",
        unit="short",
        queries=(
            Query(expr=rate_by("dualpath_prompt_tokens_total", GATEWAY)[0].expr, legend="prompt/s"),
            Query(expr=rate_by("dualpath_kv_hit_tokens_total", GATEWAY)[0].expr, legend="hit/s"),
            Query(expr=rate_by("dualpath_generated_tokens_total", GATEWAY)[0].expr, legend="generated/s"),
        ),
    ),
)

STORE = (
    Panel(
        title="Store",
        about="Bytes used, and how many it may take.",
        unit="bytes",
        queries=(
            Query(expr=f"max(dualpath_storage_used_bytes{{{ENGINES}}})", legend="used"),
            Query(expr=f"max(dualpath_storage_limit_bytes{{{ENGINES}}})", legend="limit"),
        ),
    ),
    Panel(
        title="Blocks that could not be stored or read",
        about="Storage errors by kind, blocks dropped from full write queues, blocks given up.",
        unit="cps",
        queries=(
            *rate_by("dualpath_storage_errors_total", ENGINES, "kind"),
            Query(expr=rate_by("dualpath_storage_dropped_blocks_total", ENGINES)[0].expr, legend="dropped"),
            Query(expr=rate_by("dualpath_lost_blocks_total", GATEWAY)[0].expr, legend="lost"),
        ),
    ),
    Panel(
        title="Transfers that failed",
        about="Between engines, by kind.",
        unit="cps",
        queries=rate_by("dualpath_transfer_errors_total", ENGINES, "kind"),
    ),
)

LEADER = (
    Panel(
        title="Leader by Pod",
        about="1: this process reconciles. Exactly one should.",
        unit="none",
        kind="state-timeline",
        width=12,
        queries=one(f"max by (pod) (dualpath_operator_leader{{{OPERATOR}}})", "{{pod}}"),
    ),
    Panel(
        title="Age of the watch heartbeat",
        about="How long ago the watches were proven; every 120 s is usual, after 600 s the process ends.",
        unit="s",
        width=12,
        queries=one(f"max by (pod) (dualpath_operator_watch_heartbeat_age_seconds{{{OPERATOR}}})", "{{pod}}"),
    ),
)

WORK = (
    Panel(
        title="Reconcile duration",
        about="By kind.",
        unit="s",
        queries=quantiles("dualpath_operator_reconcile_duration_seconds", OPERATOR, "kind"),
    ),
    Panel(
        title="Reconciles",
        about="By kind and result.",
        unit="ops",
        queries=rate_by("dualpath_operator_reconcile_duration_seconds_count", OPERATOR, "kind", "result"),
    ),
    Panel(
        title="Reconcile errors",
        about="By kind and class of the error.",
        unit="ops",
        queries=rate_by("dualpath_operator_reconcile_errors_total", OPERATOR, "kind", "class"),
    ),
    Panel(
        title="Writes",
        about="Applied objects by kind and outcome. While nothing changes there are none.",
        unit="wps",
        queries=rate_by("dualpath_operator_apply_total", OPERATOR, "kind", "outcome"),
    ),
    Panel(
        title="Drift corrected",
        about="Objects that somebody else had changed or deleted, by kind.",
        unit="ops",
        queries=rate_by("dualpath_operator_drift_corrected_total", OPERATOR, "kind"),
    ),
    Panel(
        title="Clusters that wait for a pass",
        about="Grows when there is more to do than workers can.",
        unit="short",
        queries=one(f"max by (pod) (dualpath_operator_queue_length{{{OPERATOR}}})", "{{pod}}"),
    ),
    Panel(
        title="Specs refused by webhooks",
        about="By reason.",
        unit="ops",
        queries=rate_by("dualpath_operator_webhook_denials_total", OPERATOR, "reason"),
    ),
)

DRAINS = (
    Panel(
        title="Drain duration",
        about="From the order to drain to the proof that nothing runs, by role.",
        unit="s",
        width=12,
        queries=quantiles("dualpath_operator_drain_duration_seconds", OPERATOR, "role"),
    ),
    Panel(
        title="Drains",
        about="By role and outcome.",
        unit="ops",
        width=12,
        queries=rate_by("dualpath_operator_drain_duration_seconds_count", OPERATOR, "role", "outcome"),
    ),
)

ALL_CLUSTERS = (
    Panel(
        title="Clusters by readiness",
        about="Of all namespaces.",
        unit="short",
        width=12,
        queries=one('sum by (status) (dualpath_cluster_condition{type="Ready"})', "Ready={{status}}"),
    ),
    Panel(
        title="Clusters that are not ready",
        about="Of all namespaces.",
        unit="none",
        kind="table",
        width=12,
        queries=one(
            'max by (namespace, cluster) (dualpath_cluster_condition{type="Ready",status!="True"} == 1)',
            "{{namespace}}/{{cluster}}",
        ),
    ),
)

DASHBOARDS = (
    Dashboard(
        uid="dualpath-cluster",
        title="DualPath cluster",
        about="One DualPathCluster: health, both read paths, latency, store.",
        variables=(
            ("namespace", "label_values(dualpath_cluster_condition, namespace)"),
            ("cluster", 'label_values(dualpath_cluster_condition{namespace="$namespace"}, cluster)'),
        ),
        sections=(("Health", HEALTH), ("Paths", PATHS), ("Latency", LATENCY), ("Store and transfers", STORE)),
    ),
    Dashboard(
        uid="dualpath-operator",
        title="DualPath operator",
        about="The operator's own work, and which clusters are not ready.",
        variables=(("namespace", "label_values(dualpath_operator_leader, namespace)"),),
        sections=(
            ("Leader", LEADER),
            ("Work", WORK),
            ("Engines that stop", DRAINS),
            ("Clusters", ALL_CLUSTERS),
        ),
    ),
)


def wanted() -> dict[Path, str]:
    """All files and their text."""
    return {FOLDER / f"{one.uid}.json": json.dumps(model(one), indent=1) + "\n" for one in DASHBOARDS}


def stale() -> list[str]:
    """Files that differ from what the code says."""
    return [path.name for path, text in wanted().items() if not path.exists() or path.read_text() != text]


def main(arguments: Sequence[str]) -> int:
    """Write the files, or tell which are out of date."""
    if "--check" in arguments:
        old = stale()
        sys.stdout.write("".join(f"dashboards/{name}: out of date, run `make docs`\n" for name in old))
        return bool(old)
    FOLDER.mkdir(parents=True, exist_ok=True)
    for path, text in wanted().items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
