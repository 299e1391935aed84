"""The objects around the engines: order, owners, hashes, names, and what each part of the spec adds."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.operator.desired_world import (
    AROUND,
    LOCAL,
    MANAGED,
    MULTUS,
    NODES,
    UID,
    changed,
    cluster_of,
    found,
    rendered,
    revision,
)

from dualpath_api.loading import build_cluster
from dualpath_operator.desired import kept, objects, secret, wanted_kinds
from dualpath_operator.desired.common import shares
from dualpath_operator.drift import differences
from dualpath_operator.model import (
    HTTP_ROUTE,
    INFERENCE_POOL,
    INTENT,
    POD_MONITOR,
    Key,
    Surroundings,
    key_of,
)

SPECS = {"local": LOCAL, "managed": MANAGED, "nodes": NODES}


def kinds(items) -> list[str]:
    return [item["kind"] for item in items]


def made(spec: dict, around: Surroundings = AROUND, replicas=None) -> tuple[dict, ...]:
    cluster = cluster_of(spec)
    counts = {"prefill": 1, "decode": 2} if replicas is None else replicas
    return objects(cluster, around, revision(cluster), counts)


def test_a_small_cluster_is_these_objects_in_this_order():
    rev = revision(cluster_of(LOCAL))
    assert [f"{item['kind']} {item['metadata']['name']}" for item in made(LOCAL)] == [
        "ServiceAccount qwen",
        f"ConfigMap qwen-{rev}",
        "ConfigMap qwen-gateway",
        "Service qwen",
        "PersistentVolumeClaim qwen-store",
        "DualPathEngineGroup qwen-prefill",
        "DualPathEngineGroup qwen-decode",
        "Deployment qwen-gateway",
        "PodDisruptionBudget qwen-engines",
        "NetworkPolicy qwen",
        "PodMonitor qwen",
    ]


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_the_same_spec_gives_the_same_bytes(spec):
    assert json.dumps(rendered(cluster_of(spec))) == json.dumps(rendered(cluster_of(spec)))


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_every_object_is_named_once_labelled_owned_and_hashed(spec):
    items = rendered(cluster_of(spec))
    assert len({key_of(item) for item in items}) == len(items)
    for item in items:
        head = item["metadata"]
        assert head["namespace"] == "team-a"
        assert head["labels"]["dualpath.io/cluster"] == head["labels"]["app.kubernetes.io/instance"] == "qwen"
        assert head["labels"]["app.kubernetes.io/managed-by"] == "dualpath-operator"
        assert len(bytes.fromhex(head["annotations"][INTENT])) == 8
        if key_of(item) != Key(kind="PersistentVolumeClaim", name="qwen-store"):
            (owner,) = head["ownerReferences"]
            assert owner["controller"]
            assert owner["uid"] == UID or item["kind"] == "Pod"


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_nothing_rendered_is_something_that_an_api_server_drops(spec):
    def check(value: object, path: str) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                check(inner, f"{path}.{key}")
        elif isinstance(value, list):
            assert value, path
            for inner in value:
                check(inner, path)
        else:
            group = path.endswith(
                "endpointPickerRef.group"
            )  # "" is the core group there, and required to be said
            assert group or value not in (None, ""), path
            assert not isinstance(value, float), path

    for item in rendered(cluster_of(spec)):
        check(item, f"{item['kind']}/{item['metadata']['name']}")
        assert differences(item, item) == []


def test_a_changed_object_has_another_hash_and_an_unchanged_one_the_same():
    before = {key_of(item): item["metadata"]["annotations"][INTENT] for item in made(LOCAL)}
    after = {
        key_of(item): item["metadata"]["annotations"][INTENT]
        for item in made(changed(LOCAL, "spec.disruption.maxUnavailable", 2))
    }
    assert {key.name for key in before if before[key] != after[key]} == {"qwen-engines"}


def test_replicas_of_an_autoscaler_are_left_out_and_zero_is_said():
    items = made(LOCAL, replicas={"prefill": None, "decode": 0})
    assert "replicas" not in found(items, "DualPathEngineGroup", "qwen-prefill")["spec"]
    assert found(items, "DualPathEngineGroup", "qwen-decode")["spec"]["replicas"] == 0


def test_scaling_touches_the_groups_and_nothing_else():
    few, many = (
        made(LOCAL, replicas={"prefill": 1, "decode": 1}),
        made(LOCAL, replicas={"prefill": 4, "decode": 9}),
    )
    assert {a["kind"] for a, b in zip(few, many, strict=True) if a != b} == {"DualPathEngineGroup"}


def test_configs_are_specs_and_the_engines_own_is_immutable():
    for spec in SPECS.values():
        for item in made(spec):
            if item["kind"] == "ConfigMap":
                build_cluster(json.loads(item["data"]["cluster.json"]), source=item["metadata"]["name"])
                assert item.get("immutable", False) is (item["metadata"]["name"] != "qwen-gateway")


def test_a_rollout_does_not_touch_the_gateway():
    def about_gateway(spec):
        return [item for item in made(spec) if item["metadata"]["name"] in {"qwen-gateway", "qwen"}]

    assert about_gateway(LOCAL) == about_gateway(changed(LOCAL, "spec.image", "worker:2"))


def test_the_gateway_is_one_pod_that_is_ready_before_there_are_engines():
    spec = found(made(LOCAL), "Deployment", "qwen-gateway")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    (container,) = spec["template"]["spec"]["containers"]
    assert container["readinessProbe"]["httpGet"]["path"] == "/healthz"
    assert (
        found(made(changed(LOCAL, "spec.suspend", True)), "Deployment", "qwen-gateway")["spec"]["replicas"]
        == 0
    )


def test_the_gateway_fetches_no_weights():
    init = found(made(MANAGED), "Deployment", "qwen-gateway")["spec"]["template"]["spec"]["initContainers"]
    assert [step["name"] for step in init] == ["model"]
    assert "--no-weights" in init[0]["command"]


def test_budgets_cover_one_pod_of_each_replica():
    names = [item["metadata"]["name"] for item in made(NODES) if item["kind"] == "PodDisruptionBudget"]
    assert names == ["qwen-engines", "qwen-engines-1"]
    for node, name in enumerate(names):
        labels = found(made(NODES), "PodDisruptionBudget", name)["spec"]["selector"]["matchLabels"]
        assert labels == {"dualpath.io/cluster": "qwen", "dualpath.io/node": str(node)}
    service = found(made(NODES), "Service", "qwen-prefill")["spec"]
    assert (service["clusterIP"], service["publishNotReadyAddresses"]) == ("None", True)


def test_optional_kinds_are_made_where_the_api_server_knows_them():
    spec = MANAGED | {
        "ingress": {
            "httpRoute": {"parentRefs": [{"name": "gw"}]},
            "inferencePool": {"enabled": True, "endpointPicker": "picker"},
        }
    }
    assert {"PodMonitor", "HTTPRoute", "InferencePool"} & set(kinds(made(spec, Surroundings()))) == set()
    assert {"PodMonitor", "HTTPRoute", "InferencePool"} <= set(kinds(made(spec)))
    route = found(made(spec), "HTTPRoute", "qwen")["spec"]["rules"][0]["backendRefs"][0]
    assert route["kind"] == "InferencePool"
    without = Surroundings(kinds=frozenset({HTTP_ROUTE}))
    assert found(made(spec, without), "HTTPRoute", "qwen")["spec"]["rules"][0]["backendRefs"] == [
        {"name": "qwen", "port": 8000}
    ]


def test_kinds_that_the_spec_insists_on_are_told():
    assert wanted_kinds(cluster_of(LOCAL)) == frozenset()
    assert wanted_kinds(cluster_of(changed(LOCAL, "spec.observability.podMonitor", "Always"))) == {
        POD_MONITOR
    }
    assert wanted_kinds(cluster_of(MANAGED)) == {HTTP_ROUTE}
    pool = {"ingress": {"inferencePool": {"enabled": True, "endpointPicker": "p"}}}
    assert wanted_kinds(cluster_of(LOCAL | pool)) == {INFERENCE_POOL}


def test_others_reach_the_api_and_metrics_and_no_engine_or_store():
    managed = LOCAL | {"storage": {"managed": {"size": "1Gi"}}}
    inside, outside = found(made(managed), "NetworkPolicy", "qwen")["spec"]["ingress"]
    assert inside == {"from": [{"podSelector": {"matchLabels": {"dualpath.io/cluster": "qwen"}}}]}
    assert [port["port"] for port in outside["ports"]] == ["http", "metrics"]
    on_host = managed | {"fabric": {"mode": "HostNetwork"}}
    _, outside = found(made(on_host), "NetworkPolicy", "qwen")["spec"]["ingress"]
    assert {port["port"] for port in outside["ports"]} >= {"rpc", "data", "client"}


@pytest.mark.parametrize("retention", ["Retain", "Delete"])
def test_what_the_store_keeps_outlives_the_cluster_if_it_should(retention):
    claim = found(
        made(changed(LOCAL, "spec.storage.retention", retention)), "PersistentVolumeClaim", "qwen-store"
    )
    assert ("ownerReferences" in claim["metadata"]) is (retention == "Delete")
    nvme = LOCAL | {"storage": {"managed": {"size": "1Gi", "medium": "NVMe"}, "retention": retention}}
    policy = found(made(nvme), "StatefulSet", "qwen-store")["spec"]["persistentVolumeClaimRetentionPolicy"]
    assert policy == {"whenDeleted": retention, "whenScaled": "Retain"}


def test_a_claim_of_the_user_is_left_alone():
    assert "PersistentVolumeClaim" not in kinds(made(changed(LOCAL, "spec.storage.files.claimName", "mine")))


def test_a_managed_store_has_masters_nodes_etcd_and_a_budget_for_each():
    items = made(LOCAL | {"storage": {"managed": {"size": "10Gi", "replicas": 4}}})
    sets = {i["metadata"]["name"]: i["spec"] for i in items if i["kind"] == "StatefulSet"}
    assert {name: spec["replicas"] for name, spec in sets.items()} == {
        "qwen-etcd": 3,
        "qwen-master": 2,
        "qwen-store": 4,
    }
    for name in sets:
        assert found(items, "Service", name)["spec"]["clusterIP"] == "None"
        assert found(items, "PodDisruptionBudget", name)["spec"]["maxUnavailable"] == 1
    command = sets["qwen-store"]["template"]["spec"]["containers"][0]["command"]
    etcd = command[command.index("--etcd") + 1]
    assert etcd.split(",")[0] == "qwen-etcd-0.qwen-etcd.team-a.svc:2379"
    assert "qwen-etcd" not in str(
        made(LOCAL | {"storage": {"managed": {"size": "1Gi", "etcd": {"endpoints": ["e:1"]}}}})
    )


def test_an_external_store_has_no_objects():
    items = made(LOCAL | {"storage": {"external": {"endpoints": ["a:1"]}}, "fabric": MULTUS})
    assert {"StatefulSet", "PersistentVolumeClaim"} & set(kinds(items)) == set()


def test_the_token_is_in_the_secret_and_nowhere_else():
    item = secret(cluster_of(LOCAL), "s3cret")
    assert base64.b64decode(item["data"]["token"]) == b"s3cret"
    other = secret(cluster_of(LOCAL), "another")
    assert item["metadata"] == other["metadata"]  # so no hash of it stands in an annotation
    assert item["metadata"]["name"] == "qwen-control"


def test_what_older_revisions_start_from_is_kept():
    one = kept(cluster_of(LOCAL), frozenset({"0a1b2c3d"}))
    assert one == {
        Key(kind="ConfigMap", name="qwen-0a1b2c3d"),
        Key(kind="PersistentVolumeClaim", name="qwen-store"),
    }
    two = kept(cluster_of(LOCAL), frozenset({"0a1b2c3d", "4e5f6a7b"}))
    assert Key(kind="ConfigMap", name="qwen-4e5f6a7b") in two
    assert {
        key_of(item) for item in made(NODES) if item["kind"] in {"Service", "PodDisruptionBudget"}
    } - two == {
        Key(kind="Service", name="qwen"),
        Key(kind="PodDisruptionBudget", name="qwen-engines"),  # always desired
    }


@given(total=st.integers(0, 10**9), parts=st.integers(1, 8), unit=st.sampled_from([1, 1 << 20]))
def test_shares_add_up_and_differ_by_less_than_a_unit_a_part(total, parts, unit):
    split = shares(total, parts, unit)
    assert sum(split) == total
    assert max(split) - min(split) < unit * parts
    assert len(set(split[1:])) <= 1
