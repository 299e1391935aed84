"""What the operator's chart makes of values, as rendered by the real helm without a cluster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import kube_tools
import pytest
import yaml
from charts_bed import (
    CHARTS,
    CLUSTER_WIDE,
    CRDS,
    KUBERNETES,
    MONITORING,
    OPERATOR,
    SCENARIOS,
    installed,
    of_kind,
    only,
    pod_specs,
    render,
    settings_file,
)
from kube_api import Object

from dualpath_operator.settings import Settings, read_settings

OPERATOR_SCENARIOS = [path for path in SCENARIOS if OPERATOR in path.parents]


def label(path: Path) -> str:
    return f"{path.parents[1].name}-{path.stem}"


def settings_of(values: Any, tmp_path: Path) -> Settings:
    """The settings that the operator itself reads from what the chart writes."""
    file = tmp_path / "operator.yaml"
    file.write_text(settings_file(render(OPERATOR, values)))
    return read_settings(file)


@pytest.mark.parametrize("chart", sorted({path.parents[1] for path in SCENARIOS}), ids=lambda path: path.name)
def test_every_chart_has_a_lint_free_default(chart: Path) -> None:
    said = kube_tools.run("helm", "lint", "--strict", "--kube-version", KUBERNETES, chart)
    assert "1 chart(s) linted, 0 chart(s) failed" in said


@pytest.mark.parametrize("scenario", SCENARIOS, ids=label)
def test_every_scenario_lints_strictly(scenario: Path) -> None:
    command = ("helm", "lint", "--strict", "--kube-version", KUBERNETES, "--values", scenario)
    assert "1 chart(s) linted, 0 chart(s) failed" in kube_tools.run(*command, scenario.parents[1])


@pytest.mark.parametrize("scenario", SCENARIOS, ids=label)
def test_every_object_is_labelled_and_in_a_namespace_or_none(scenario: Path) -> None:
    objects = render(scenario.parents[1], scenario, apis=MONITORING)
    assert objects
    names = [(body["kind"], body["metadata"].get("namespace"), body["metadata"]["name"]) for body in objects]
    assert len(set(names)) == len(names)
    for body in objects:
        metadata = body["metadata"]
        assert ("namespace" in metadata) == (body["kind"] not in CLUSTER_WIDE), metadata["name"]
        if body["kind"] != "CustomResourceDefinition":
            assert metadata["labels"]["app.kubernetes.io/managed-by"] == "Helm"
            assert metadata["labels"]["app.kubernetes.io/instance"] == "r"


def test_two_processes_run_the_operator_with_its_settings_and_probes() -> None:
    deployment = only(render(OPERATOR), "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert deployment["spec"]["replicas"] == 2
    assert container["image"] == "dualpath/operator:0.1.0"
    assert container["command"] == ["python", "-P", "-m", "dualpath_operator"]
    assert container["args"] == ["--config", "/etc/dualpath/operator.yaml"]
    assert [container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("liveness", "readiness")] == [
        "/healthz",
        "/readyz",
    ]
    assert {port["name"]: port["containerPort"] for port in container["ports"]} == {
        "http": 8080,
        "webhook": 9443,
    }
    assert {mount["mountPath"] for mount in container["volumeMounts"]} == {
        "/etc/dualpath",
        "/tmp",
        "/var/run/dualpath/webhook",
    }


@pytest.mark.parametrize("scenario", OPERATOR_SCENARIOS, ids=label)
def test_all_pods_pass_pod_security_restricted_and_cannot_write_their_image(scenario: Path) -> None:
    for spec in pod_specs(render(OPERATOR, scenario)):
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


@pytest.mark.parametrize("scenario", OPERATOR_SCENARIOS, ids=label)
def test_the_operator_reads_the_settings_that_the_chart_writes(scenario: Path, tmp_path: Path) -> None:
    settings = settings_of(scenario, tmp_path)
    assert settings.lease_namespace() == "ns"
    assert settings.leader_election.name in ("r-dualpath-operator", "dp")
    assert settings.images.worker.startswith(("dualpath/worker:", "mirror/"))


def test_without_values_the_settings_are_the_operators_own_defaults(tmp_path: Path) -> None:
    settings, own = settings_of({}, tmp_path), Settings()
    chosen = {"leader_election", "webhook", "log"}
    for name in Settings.model_fields.keys() - chosen:
        assert getattr(settings, name) == getattr(own, name), name
    assert settings.leader_election.lease_duration == own.leader_election.lease_duration
    assert settings.leader_election.renew_deadline == own.leader_election.renew_deadline
    assert settings.webhook.enabled
    assert settings.webhook.certificate_dir == own.webhook.certificate_dir


def test_every_value_of_the_settings_reaches_the_operator(tmp_path: Path) -> None:
    settings = settings_of(OPERATOR / "ci" / "everything-values.yaml", tmp_path)
    assert settings.watch_namespaces == ("team-a",)
    assert (settings.images.worker, settings.images.etcd) == ("mirror/worker:1", "mirror/etcd:3.6.6")
    assert (settings.workers, settings.resync, settings.status_interval) == (16, 120, 5)
    assert (settings.log.level, settings.log.format) == ("DEBUG", "text")
    assert settings.leader_election.retry_period == 5


def test_changed_settings_start_new_processes_and_unchanged_ones_do_not() -> None:
    def annotations(values: Object) -> Any:
        return only(render(OPERATOR, values), "Deployment")["spec"]["template"]["metadata"]["annotations"]

    assert annotations({}) == annotations({"replicaCount": 3})
    assert annotations({}) != annotations({"log": {"level": "DEBUG"}})


def test_a_digest_is_stronger_than_a_tag_for_the_operator_and_its_guard() -> None:
    digest = "sha256:" + 64 * "a"
    images = {
        spec["containers"][0]["image"]
        for spec in pod_specs(render(OPERATOR, {"image": {"tag": "1", "digest": digest}}))
    }
    assert images == {f"dualpath/operator@{digest}"}


@pytest.mark.parametrize(
    ("enabled", "known", "made"),
    [(None, False, False), (None, True, True), (True, False, True), (False, True, False)],
)
def test_monitoring_kinds_are_made_where_they_exist_or_as_told(
    enabled: bool | None, known: bool, made: bool
) -> None:
    values = {"metrics": {name: {"enabled": enabled} for name in ("serviceMonitor", "prometheusRule")}}
    kinds = {body["kind"] for body in render(OPERATOR, values, apis=MONITORING if known else ())}
    assert ({"ServiceMonitor", "PrometheusRule"} <= kinds) == made


def test_the_service_monitor_finds_the_metrics_service_and_keeps_the_clusters_namespace() -> None:
    objects = render(OPERATOR, apis=MONITORING)
    monitor = only(objects, "ServiceMonitor")["spec"]
    wanted = monitor["selector"]["matchLabels"].items()
    found = [
        body["metadata"]["name"]
        for body in of_kind(objects, "Service")
        if wanted <= body["metadata"]["labels"].items()
    ]
    assert found == ["r-dualpath-operator-metrics"]
    assert monitor["endpoints"][0]["honorLabels"] is True


def test_alerts_are_those_of_the_rules_file_but_for_what_is_left_out() -> None:
    source = yaml.safe_load((OPERATOR / "rules" / "alerts.yaml").read_text())["groups"]
    rule = {"enabled": True, "disabled": ["DualPathNoLeader"], "runbooks": "https://docs.example.com"}
    groups = only(render(OPERATOR, {"metrics": {"prometheusRule": rule}}), "PrometheusRule")["spec"]["groups"]
    made = {rule["alert"]: rule for group in groups for rule in group["rules"]}
    known = {rule["alert"]: rule for group in source for rule in group["rules"]}
    assert known.keys() - made.keys() == {"DualPathNoLeader"}
    for name, alert in made.items():
        assert (alert["expr"], alert.get("for")) == (known[name]["expr"], known[name].get("for"))
        assert alert["annotations"]["summary"] == known[name]["annotations"]["summary"]
        page = f"https://docs.example.com/operations.md#{name.lower()}"
        assert alert["annotations"]["runbook_url"] == page


def test_dashboards_come_as_they_are() -> None:
    made = only(render(OPERATOR), "ConfigMap", suffix="-dashboards")
    assert made["metadata"]["labels"]["grafana_dashboard"] == "1"
    files = {path.name: json.loads(path.read_text()) for path in OPERATOR.glob("dashboards/*.json")}
    assert {name: json.loads(text) for name, text in made["data"].items()} == files
    assert len(files) == 2


def test_the_network_policy_lets_in_webhooks_and_metrics_and_out_what_the_operator_calls() -> None:
    assert not of_kind(render(OPERATOR), "NetworkPolicy")
    policy = only(render(OPERATOR, OPERATOR / "ci" / "everything-values.yaml"), "NetworkPolicy")["spec"]
    inside = {port["port"]: "from" in rule for rule in policy["ingress"] for port in rule["ports"]}
    assert inside == {9443: False, 8080: True}
    assert {port["port"] for rule in policy["egress"] for port in rule["ports"]} == {53, 6443, 8000}
    without = render(OPERATOR, {"networkPolicy": {"enabled": True}, "webhook": {"enabled": False}})
    ports = [
        port["port"] for rule in only(without, "NetworkPolicy")["spec"]["ingress"] for port in rule["ports"]
    ]
    assert ports == [8080]


def test_processes_spread_over_hosts_or_as_told() -> None:
    def spread(values: Object) -> Any:
        spec = only(render(OPERATOR, values), "Deployment")["spec"]
        constraints = spec["template"]["spec"].get("topologySpreadConstraints", [])
        for constraint in constraints:
            assert (
                constraint.pop("labelSelector")["matchLabels"].items()
                <= spec["selector"]["matchLabels"].items()
            )
        return constraints

    assert spread({}) == [
        {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}
    ]
    zones = {"maxSkew": 2, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
    assert spread({"topologySpreadConstraints": [zones]}) == [zones]
    assert spread({"topologySpreadConstraints": []}) == []


def test_everything_that_values_say_of_the_pod_is_in_the_pod() -> None:
    objects = render(OPERATOR, OPERATOR / "ci" / "everything-values.yaml")
    deployment = only(objects, "Deployment")
    template = deployment["spec"]["template"]
    spec, container = template["spec"], template["spec"]["containers"][0]
    assert deployment["metadata"]["name"] == "dp"
    assert template["metadata"]["labels"]["mesh"] == "off"
    assert template["metadata"]["annotations"]["example.com/scrape"] == "true"
    assert (
        spec["serviceAccountName"]
        == only(installed(objects), "ServiceAccount")["metadata"]["name"]
        == "dp-operator"
    )
    assert spec["imagePullSecrets"] == [{"name": "pull"}]
    assert spec["priorityClassName"] == "system-cluster-critical"
    assert spec["nodeSelector"] == {"kubernetes.io/os": "linux"}
    assert spec["tolerations"] == [{"key": "control-plane", "operator": "Exists"}]
    assert "nodeAffinity" in spec["affinity"]
    assert {"name": "HTTPS_PROXY", "value": "http://proxy:3128"} in container["env"]
    assert {"name": "extra", "emptyDir": {}} in spec["volumes"]
    assert {"name": "extra", "mountPath": "/extra"} in container["volumeMounts"]
    assert all(body["metadata"]["labels"]["team"] == "inference" for body in objects)


def test_names_stay_legal_for_the_longest_release_name() -> None:
    objects = render(OPERATOR, release="r" * 53, namespace="n" * 63, apis=MONITORING)
    for body in objects:
        name = body["metadata"]["name"]
        assert len(name) <= (63 if body["kind"] in ("Deployment", "Service", "Job") else 253), name
        assert all(len(value) <= 63 for value in body["metadata"].get("labels", {}).values())


def test_definitions_are_kept_and_are_those_of_the_models() -> None:
    made = {body["metadata"]["name"]: body for body in of_kind(render(CRDS), "CustomResourceDefinition")}
    for body in made.values():
        assert body["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
    files = [yaml.safe_load(path.read_text()) for path in (CHARTS.parent / "crds").glob("*.yaml")]
    assert made == {body["metadata"]["name"]: body for body in files}
