"""What an engine's Pod has: names, environment, resources, volumes, and security in every fabric mode."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.operator.desired_world import (
    AROUND,
    FABRICS,
    GROUP_UID,
    HUB,
    LOCAL,
    MANAGED,
    MULTUS,
    NODES,
    changed,
    cluster_of,
    found,
    pod_of,
    rendered,
    revision,
)

from dualpath_api.loading import build_cluster
from dualpath_operator.desired import engine_pod
from dualpath_operator.desired.commands import host_port
from dualpath_operator.desired.common import cpu_millis, cpu_quantity


def containers(pod: dict) -> list[dict]:
    return pod["spec"].get("initContainers", []) + pod["spec"]["containers"]


def env(container: dict) -> dict[str, object]:
    return {item["name"]: item.get("value") or item["valueFrom"] for item in container["env"]}


def volumes(pod: dict) -> dict[str, dict]:
    return {volume["name"]: volume for volume in pod["spec"]["volumes"]}


def flags(container: dict) -> dict[str, str]:
    words = container["command"]
    return {word: words[at + 1] for at, word in enumerate(words) if word.startswith("--")}


def test_a_pod_is_named_by_its_place_and_belongs_to_its_group():
    pod = pod_of(LOCAL, "prefill", index=3)
    rev = revision(cluster_of(LOCAL))
    assert pod["metadata"]["name"] == f"qwen-prefill-{rev}-3"
    (owner,) = pod["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"]) == ("DualPathEngineGroup", "qwen-prefill", GROUP_UID)
    labels = pod["metadata"]["labels"]
    assert labels["dualpath.io/replica"] == "3"
    assert (labels["dualpath.io/role"], labels["dualpath.io/revision"]) == ("prefill", rev)


def test_the_longest_name_fits_a_host_name():
    cluster = cluster_of(changed(NODES, "spec.decode.parallelism", {"nodes": 16}), name="a" * 40)
    pod = engine_pod(cluster, AROUND, "prefill", revision(cluster), 99, 15, GROUP_UID)
    assert len(pod["spec"]["hostname"]) <= 63


def test_an_engine_waits_for_admission_and_drains_before_it_ends():
    pod = pod_of(changed(LOCAL, "spec.drain.deadline", "90.5s"))
    assert pod["spec"]["readinessGates"] == [{"conditionType": "dualpath.io/Admitted"}]
    assert pod["spec"]["terminationGracePeriodSeconds"] == 91 + 30
    (engine,) = pod["spec"]["containers"]
    assert engine["lifecycle"]["preStop"]["exec"]["command"][-3:] == [
        "dualpath_worker.prestop",
        "--deadline",
        "91",
    ]


def test_an_engine_is_told_who_it_is_and_where_its_scheduler_and_token_are():
    (engine,) = pod_of(LOCAL, index=2)["spec"]["containers"]
    told = env(engine)
    assert told["DUALPATH_POD_UID"]["fieldRef"]["fieldPath"] == "metadata.uid"
    assert told["DUALPATH_REVISION"] == revision(cluster_of(LOCAL))
    assert told["DUALPATH_CONTROL_TOKEN_FILE"] == "/var/run/dualpath/control/token"
    asked = flags(engine)
    assert asked["--scheduler"] == "ws://qwen.team-a.svc:8000/engines"
    assert (asked["--role"], asked["--group"], asked["--rank"]) == ("decode", "2", "0")
    assert asked["--host"] == "0.0.0.0"
    assert asked["--metrics-port"] == "9100"


def test_only_its_own_group_can_read_the_token():
    pod = pod_of(LOCAL)
    assert volumes(pod)["control"]["secret"]["defaultMode"] == 0o400
    assert pod["spec"]["securityContext"]["fsGroup"] == pod["spec"]["securityContext"]["runAsUser"] == 10001


def test_ranks_share_a_pods_resources_without_rest():
    spec = changed(LOCAL, "spec.decode.parallelism.data", 3)
    spec = changed(
        spec,
        "spec.decode.resources",
        {**LOCAL["decode"]["resources"], "cpu": "10", "memory": "1Gi", "gpus": 6},
    )
    ranks = pod_of(spec)["spec"]["containers"]
    assert [rank["name"] for rank in ranks] == ["engine", "engine-1", "engine-2"]
    assert [rank["resources"]["limits"]["nvidia.com/gpu"] for rank in ranks] == ["2", "2", "2"]
    assert [rank["resources"]["requests"]["cpu"] for rank in ranks] == ["3334m", "3333m", "3333m"]
    assert [rank["resources"]["limits"]["memory"] for rank in ranks] == ["342Mi", "341Mi", "341Mi"]
    assert [rank["ports"][0]["containerPort"] for rank in ranks] == [9100, 9101, 9102]


@given(millis=st.integers(1, 10**6))
def test_cpus_are_written_as_the_api_server_writes_them(millis):
    written = cpu_quantity(millis)
    assert cpu_millis(written) == millis
    assert not written.endswith("000m")


@pytest.mark.parametrize(
    ("text", "millis"), [("4", 4000), ("0.5", 500), ("1.25", 1250), ("500m", 500), ("0.001", 1)]
)
def test_cpus_are_read(text, millis):
    assert cpu_millis(text) == millis


def test_without_a_limit_an_engine_requests_what_its_buffers_take():
    (engine,) = pod_of(LOCAL)["spec"]["containers"]
    assert engine["resources"] == {"requests": {"memory": "512Mi"}}
    (engine,) = pod_of(changed(LOCAL, "spec.decode.resources.gpus", 1))["spec"]["containers"]
    assert engine["resources"]["requests"]["memory"] == "256Mi"  # pages are in GPU memory then


@pytest.mark.parametrize(
    ("model", "path", "volume", "fetched"),
    [
        ({"uri": "file:///models/q"}, "/models/q", None, False),
        ({"uri": "pvc://ckpt/a/b"}, "/var/lib/dualpath/models/a/b", "persistentVolumeClaim", False),
        ({"uri": "pvc://ckpt"}, "/var/lib/dualpath/models", "persistentVolumeClaim", False),
        ({"uri": "hf://org/name"}, "/var/lib/dualpath/models/org--name", "emptyDir", True),
        (
            {"uri": "hf://org/name", "revision": "a/b", "cache": {"claimName": "models"}},
            "/var/lib/dualpath/models/org--name--a-b",
            "persistentVolumeClaim",
            True,
        ),
        (
            {"uri": "hf://org/name", "cache": {"hostPath": "/srv"}},
            "/var/lib/dualpath/models/org--name",
            "hostPath",
            True,
        ),
    ],
)
def test_the_model_is_where_the_config_says(model, path, volume, fetched):
    items = rendered(cluster_of(LOCAL | {"model": {**model, "servedName": "q"}}))
    rev = revision(cluster_of(LOCAL | {"model": {**model, "servedName": "q"}}))
    pod = found(items, "Pod", f"qwen-decode-{rev}-0")
    for name in (f"qwen-{rev}", "qwen-gateway"):
        config = json.loads(found(items, "ConfigMap", name)["data"]["cluster.json"])
        assert build_cluster(config, source=name).spec.model.uri == f"file://{path}"
    assert ("models" in volumes(pod)) is (volume is not None)
    if volume:
        assert volume in volumes(pod)["models"]
    steps = pod["spec"].get("initContainers", [])
    assert [step["name"] for step in steps] == (["model"] if fetched else [])
    if fetched:
        assert flags(steps[0])["--into"] == path


def test_a_hub_token_reaches_only_the_container_that_fetches():
    pod = pod_of(LOCAL | {"model": {**HUB, "secretRef": {"name": "hf", "key": "t"}}})
    with_token = [c["name"] for c in containers(pod) if "HF_TOKEN" in env(c)]
    assert with_token == ["model"]


def store_path(spec):
    """Where engines are told that the store is; their claim is mounted as a whole."""
    cluster = cluster_of(spec)
    config = found(rendered(cluster), "ConfigMap", f"qwen-{revision(cluster)}")["data"]["cluster.json"]
    (engine,) = pod_of(spec)["spec"]["containers"]
    mount = next(mount for mount in engine["volumeMounts"] if mount["name"] == "store")
    assert mount == {"name": "store", "mountPath": "/var/lib/dualpath/store"}
    return json.loads(config)["spec"]["storage"]["files"]["path"]


def test_in_kubernetes_a_store_is_where_it_is_mounted_whatever_its_path():
    assert (
        store_path(changed(LOCAL, "spec.storage.files.path", "/mine"))
        == "/var/lib/dualpath/store/team-a/qwen"
    )


@pytest.mark.parametrize(("domain", "path"), [("a/b", "a/b"), ("a//b/", "a/b"), ("a/../b", "a/%2E%2E/b")])
def test_a_domain_is_a_directory_that_leads_nowhere_else(domain, path):
    assert store_path(changed(LOCAL, "spec.storage.domain", domain)) == f"/var/lib/dualpath/store/{path}"


def test_nodes_of_a_replica_find_its_leader_and_keep_apart():
    pods = [pod_of(NODES, "prefill", index=1, node=node) for node in (0, 1)]
    rev = revision(cluster_of(NODES))
    leader = f"qwen-prefill-{rev}-1-0"
    for node, pod in enumerate(pods):
        assert (pod["spec"]["hostname"], pod["spec"]["subdomain"]) == (
            f"qwen-prefill-{rev}-1-{node}",
            "qwen-prefill",
        )
        told = [env(container) for container in pod["spec"]["containers"]]
        assert {t["DUALPATH_LEADER_ADDRESS"] for t in told} == {f"{leader}.qwen-prefill.team-a.svc"}
        assert {(t["DUALPATH_NODE_INDEX"], t["DUALPATH_NODES"]) for t in told} == {(str(node), "2")}
        assert [t["DUALPATH_RANK"] for t in told] == [str(2 * node), str(2 * node + 1)]
        (apart,) = pod["spec"]["affinity"]["podAntiAffinity"][
            "requiredDuringSchedulingIgnoredDuringExecution"
        ]
        assert apart["labelSelector"]["matchLabels"]["dualpath.io/replica"] == "1"
    assert "DUALPATH_LEADER_ADDRESS" not in env(pod_of(NODES, "decode")["spec"]["containers"][0])


@given(
    places=st.sets(
        st.tuples(st.sampled_from(["prefill", "decode"]), st.integers(0, 63), st.integers(0, 7)), min_size=2
    ),
    rev=st.integers(0, 2**32 - 1).map("{:08x}".format),
)
def test_no_two_ranks_of_a_revision_share_a_port_of_the_node(places, rev):
    ports = {host_port(role, rev, index, rank) for role, index, rank in places}
    assert len(ports) == len(places)
    assert all(20000 <= port < 30000 for port in ports)  # below the ports of Services


# ---------------------------------------------------------------- Pod Security, level `restricted`


def violations(pod: dict) -> list[str]:
    """What the `restricted` level of the Pod Security Standards would refuse."""
    spec, told = pod["spec"], []
    told += [key for key in ("hostNetwork", "hostPID", "hostIPC") if spec.get(key)]
    allowed = {
        "configMap",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
    told += [volume["name"] for volume in spec.get("volumes", []) if not allowed & volume.keys()]
    for container in containers(pod):
        context, name = container["securityContext"], container["name"]
        if context.get("allowPrivilegeEscalation") is not False or context.get("privileged"):
            told.append(f"{name}: privilege")
        if context["capabilities"]["drop"] != ["ALL"] or set(context["capabilities"].get("add", [])) - {
            "NET_BIND_SERVICE"
        }:
            told.append(f"{name}: capabilities")
        told += [f"{name}: host port" for port in container.get("ports", []) if port.get("hostPort")]
    context = spec["securityContext"]
    if (
        not (context["runAsNonRoot"] and context["runAsUser"])
        or context["seccompProfile"]["type"] != "RuntimeDefault"
    ):
        told.append("user or seccomp")
    return told


@pytest.mark.parametrize("mode", ["None", "Multus", "DevicePlugin", "DRA"])
def test_without_rdma_all_pods_are_restricted(mode):
    fabric = FABRICS[mode] | ({"rdma": False} if mode != "None" else {})
    cluster = cluster_of(MANAGED | {"fabric": fabric})
    pods = [item for item in rendered(cluster) if item["kind"] == "Pod"]
    templates = [item["spec"]["template"] for item in rendered(cluster) if "template" in item.get("spec", {})]
    assert len(pods) == 2
    assert len(templates) == 4  # gateway, store, masters, etcd
    for pod in pods + templates:
        assert violations(pod) == []


@pytest.mark.parametrize("mode", ["Multus", "DevicePlugin", "DRA"])
def test_rdma_adds_memory_locking_and_nothing_else(mode):
    pod = pod_of(LOCAL | {"fabric": FABRICS[mode] | {"rdma": True}})
    assert violations(pod) == ["fabric: capabilities", "engine: capabilities"]
    assert {tuple(c["securityContext"]["capabilities"]["add"]) for c in containers(pod)} == {("IPC_LOCK",)}


def test_the_network_of_the_node_is_a_privilege():
    told = violations(pod_of(LOCAL | {"fabric": {"mode": "HostNetwork"}}))
    assert told == ["hostNetwork", "engine: host port"]


def test_no_pod_has_a_way_to_the_api_server():
    for item in rendered(cluster_of(MANAGED | {"fabric": MULTUS})):
        pod = item if item["kind"] == "Pod" else item.get("spec", {}).get("template", {})
        if "spec" in pod:
            assert pod["spec"]["automountServiceAccountToken"] is False
            assert pod["spec"]["enableServiceLinks"] is False
            assert all(c["securityContext"]["readOnlyRootFilesystem"] for c in containers(pod))
