"""`dualpath render`, `crds` and `fetch`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from unit.operator.desired_world import MULTUS, NODES

from dualpath_cli.fetch import MARKER
from dualpath_cli.main import main

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "examples" / "local.yaml"


def run(*arguments) -> str:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(*arguments) -> str:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("error: ")
    assert "remedy:" in result.stderr
    return result.stderr


def written(tmp_path: Path, spec: dict) -> Path:
    path = tmp_path / "cluster.yaml"
    head = {"apiVersion": "dualpath.io/v1alpha1", "kind": "DualPathCluster", "metadata": {"name": "qwen"}}
    path.write_text(yaml.safe_dump({**head, "spec": spec}))
    return path


@pytest.mark.parametrize("command", ["render", "crds", "fetch"])
def test_every_command_has_help_with_an_example(command):
    assert f"Example:  dualpath {command}" in run(command, "--help")


def test_the_objects_of_a_file_are_printed_as_yaml_and_as_json():
    documents = list(yaml.safe_load_all(run("render", EXAMPLE, "--namespace", "team-b")))
    assert {document["metadata"]["namespace"] for document in documents} == {"team-b"}
    assert "Pod" not in {document["kind"] for document in documents}
    listed = json.loads(run("render", EXAMPLE, "--namespace", "team-b", "--json"))
    assert listed["items"] == documents


def test_the_pods_of_all_replicas_and_nodes_are_printed_if_asked_for(tmp_path):
    spec = NODES | {"decode": {**NODES["decode"], "scaling": {"replicas": 3}}}
    documents = list(yaml.safe_load_all(run("render", written(tmp_path, spec), "--pods")))
    pods = [document for document in documents if document["kind"] == "Pod"]
    assert len(pods) == 2 + 3
    assert {pod["metadata"]["namespace"] for pod in pods} == {"default"}


@pytest.mark.parametrize(
    ("scaling", "replicas"),
    [
        ({"mode": "External"}, None),
        ({"mode": "Planner", "maxReplicas": 4}, 1),
        ({"mode": "Planner", "minReplicas": 2, "maxReplicas": 4}, 2),
    ],
)
def test_replicas_that_others_decide_begin_as_the_operator_begins(tmp_path, scaling, replicas):
    spec = NODES | {role: {**NODES[role], "scaling": scaling} for role in ("prefill", "decode")}
    documents = yaml.safe_load_all(run("render", written(tmp_path, spec)))
    groups = [document for document in documents if document["kind"] == "DualPathEngineGroup"]
    assert [group["spec"].get("replicas") for group in groups] == [replicas, replicas]


def test_a_bad_file_is_one_message(tmp_path):
    assert "did you mean" in refused("render", written(tmp_path, NODES | {"fabrik": {}}))
    template = {"podTemplate": {"spec": {"hostNetwork": True}}}
    spec = NODES | {"gateway": template, "fabric": MULTUS}
    assert "spec.gateway.podTemplate.spec.hostNetwork" in refused("render", written(tmp_path, spec))
    assert "cannot be read" in refused("render", tmp_path / "missing.yaml")


def test_the_definitions_are_printed_and_written(tmp_path):
    printed = list(yaml.safe_load_all(run("crds")))
    assert {crd["metadata"]["name"] for crd in printed} == {
        "dualpathclusters.dualpath.io",
        "dualpathenginegroups.dualpath.io",
    }
    folder = tmp_path / "new" / "folder"
    run("crds", "--output", folder)
    for crd in printed:
        file = f"{crd['spec']['names']['plural']}.yaml"
        assert (folder / file).read_text() == (ROOT / "crds" / file).read_text()
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refused("crds", "--output", tmp_path / "file" / "folder")


# ---------------------------------------------------------------- fetch


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "model-00001.safetensors", "notes.pdf"):
        (folder / name).write_text(name)
    return folder


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_model_is_copied_once_and_not_again(checkpoint, tmp_path):
    into = tmp_path / "a" / "b"
    assert "holds file://" in run("fetch", f"file://{checkpoint}", "--into", into)
    assert files(into) == {"config.json", "tokenizer.json", "model-00001.safetensors", MARKER}
    (checkpoint / "config.json").unlink()  # so fetching again would fail
    assert "already" in run("fetch", f"file://{checkpoint}", "--into", into)


def test_a_gateway_fetches_no_weights_and_an_engine_adds_them(checkpoint, tmp_path):
    into = tmp_path / "shared"
    run("fetch", f"file://{checkpoint}", "--into", into, "--no-weights")
    assert files(into) == {"config.json", "tokenizer.json", MARKER}
    run("fetch", f"file://{checkpoint}", "--into", into)
    assert "model-00001.safetensors" in files(into)
    assert "already" in run("fetch", f"file://{checkpoint}", "--into", into, "--no-weights")


def test_what_was_broken_off_is_fetched_again(checkpoint, tmp_path):
    into = tmp_path / "into"
    run("fetch", f"file://{checkpoint}", "--into", into)
    (into / MARKER).write_text("{")
    (into / "config.json").write_text("half")
    run("fetch", f"file://{checkpoint}", "--into", into)
    assert (into / "config.json").read_text() == "config.json"


def test_models_are_not_mixed(checkpoint, tmp_path):
    into = tmp_path / "into"
    run("fetch", f"file://{checkpoint}", "--into", into)
    assert "holds another model" in refused("fetch", "file:///other", "--into", into)
    assert "holds another model" in refused(
        "fetch", f"file://{checkpoint}", "--into", into, "--revision", "v2"
    )


@pytest.mark.parametrize("uri", ["file:///missing", "ftp://x", "org/name", ""])
def test_what_is_no_model_is_one_message(uri, tmp_path):
    assert "cannot be fetched" in refused("fetch", uri, "--into", tmp_path / "into")


def test_a_hub_that_does_not_answer_is_one_message(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    message = refused("fetch", "hf://org/name", "--into", tmp_path / "into")
    assert "hf://org/name cannot be fetched" in message
    assert "HF_TOKEN" in message


def test_a_directory_that_cannot_be_made_is_one_message(checkpoint):
    message = refused("fetch", f"file://{checkpoint}", "--into", checkpoint / "config.json" / "into")
    assert "cannot be filled" in message
