"""The command lines in Pods are understood by the processes that they start, with the config that they find."""

from __future__ import annotations

import subprocess
import sys

import pytest
from unit.operator.desired_world import (
    HUB,
    LOCAL,
    MULTUS,
    NODES,
    cluster_of,
    found,
    pod_of,
    rendered,
    revision,
)

from dualpath_cli.fetch import fetch
from dualpath_operator.desired.commands import CONFIG
from dualpath_worker import fabric, prestop
from dualpath_worker.settings import read_settings
from dualpath_worker.storage import node as store_node
from dualpath_worker.storage.__main__ import parser


@pytest.fixture
def config(tmp_path):
    """Writes the cluster.json that a Pod finds; tells where."""

    def write(spec: dict, name: str = "") -> str:
        cluster = cluster_of(spec)
        item = found(rendered(cluster), "ConfigMap", name or f"qwen-{revision(cluster)}")
        path = tmp_path / "cluster.json"
        path.write_text(item["data"]["cluster.json"])
        return str(path)

    return write


def words(container: dict, module: str, path: str = CONFIG) -> list[str]:
    """The arguments of a container's module, with the config where the test has it."""
    python, *options, found_module = container["command"][:4]
    assert (python, options, found_module) == ("python", ["-P", "-m"], module)
    return [path if word == CONFIG else word for word in container["command"][4:]]


def environment(container: dict) -> dict[str, str]:
    told = {item["name"]: item.get("value", "from-the-pod") for item in container["env"]}
    del told["DUALPATH_CONTROL_TOKEN_FILE"]  # a file of the Pod
    return told


def test_engines_understand_what_they_are_told(config):
    for spec in (LOCAL, NODES):
        engine = pod_of(spec, "prefill", index=3)["spec"]["containers"][-1]
        settings = read_settings(words(engine, "dualpath_worker", config(spec)), environment(engine))
        assert (settings.role, settings.group, settings.host) == ("prefill", 3, "0.0.0.0")
        assert settings.metrics_port == engine["ports"][0]["containerPort"]
        assert settings.scheduler == "ws://qwen.team-a.svc:8000/engines"
        assert settings.place.revision == revision(cluster_of(spec))
        assert settings.place.pod_uid == settings.place.node == "from-the-pod"
        assert settings.buffer_bytes == 256 << 20 >> (spec is NODES)  # two ranks share it there


def test_the_check_of_the_nics_understands_what_it_is_told(config, capsys):
    for mode, code in (("Fail", 1), ("Degrade", 0)):  # this machine has no such NIC
        spec = LOCAL | {"fabric": MULTUS | {"onMismatch": mode}}
        (check,) = pod_of(spec)["spec"]["initContainers"]
        assert fabric.main(words(check, "dualpath_worker.fabric", config(spec))) == code
        assert "no storage NIC matches 'snic*'" in capsys.readouterr().err


def test_the_drain_before_a_stop_understands_what_it_is_told(capsys):
    (engine,) = pod_of(LOCAL)["spec"]["containers"]
    hook = engine["lifecycle"]["preStop"]["exec"]
    told = {key: value for key, value in environment(engine).items() if "_POD_" not in key}
    assert prestop.main(words(hook, "dualpath_worker.prestop"), told) == 0
    assert "it is not known whose engines to drain" in capsys.readouterr().err  # so all else was understood


@pytest.mark.parametrize("role", ["engine", "gateway"])
def test_a_hub_model_is_fetched_where_the_config_says(role):
    spec = LOCAL | {"model": HUB}
    pod = pod_of(spec)
    if role == "gateway":
        pod = found(rendered(cluster_of(spec)), "Deployment", "qwen-gateway")["spec"]["template"]
    name, *arguments = words(pod["spec"]["initContainers"][0], "dualpath_cli")
    given = fetch.make_context(name, arguments).params
    assert (given["uri"], given["revision"]) == (HUB["uri"], HUB["revision"])
    assert given["no_weights"] is (role == "gateway")


def test_the_gateway_understands_what_it_is_told(config):
    pod = found(rendered(cluster_of(LOCAL)), "Deployment", "qwen-gateway")["spec"]["template"]["spec"]
    (gateway,) = pod["containers"]
    arguments = words(gateway, "dualpath_gateway", config(LOCAL, "qwen-gateway"))
    command = [sys.executable, "-P", "-m", "dualpath_gateway", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "/models/qwen" in done.stderr  # the model is missing here; so all else was understood
    assert "usage:" not in done.stderr


def test_the_processes_of_a_store_understand_what_they_are_told(monkeypatch):
    store = {"managed": {"size": "4Gi", "medium": "NVMe"}}
    objects = rendered(cluster_of(LOCAL | {"storage": store, "fabric": MULTUS}))
    told = {}
    for crew, container in (("master", "master"), ("store", "store")):
        (process,) = found(objects, "StatefulSet", f"qwen-{crew}")["spec"]["template"]["spec"]["containers"]
        assert process["name"] == container
        told[crew] = parser().parse_args(words(process, "dualpath_worker.storage"))
        ports = {port["name"]: port["containerPort"] for port in process["ports"]}
        assert ports["metrics"] == told[crew].metrics_port
        assert told[crew].port in ports.values()
    assert told["master"].offload
    node = told["store"]
    assert (node.medium, node.size, node.nics, node.protocol) == ("NVMe", 4 << 30, "snic*", "tcp")
    assert node.etcd == told["master"].etcd != ""
    for name in ("MC_MIN_RPC_PORT", "MC_MAX_RPC_PORT"):
        monkeypatch.setenv(name, "")
    store_node.environment(
        store_node.NodeSettings(endpoints=(), port=node.port)
    )  # the library can use these ports
