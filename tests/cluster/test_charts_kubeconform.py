"""All that the charts make is valid, field by field: kubeconform -strict with the API server's own schemas and ours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import kube_tools
import pytest
import yaml
from charts_bed import CLUSTER, MONITORING, OPERATOR, ROOT, SCENARIOS, helm_template, only, render
from foreign_kinds import FOREIGN
from kube_api import Kube, Object
from openapi_schemas import LOCATION, write_definition, write_schemas

# Kinds whose schemas come from definitions, not from the API server.
OURS = [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "crds").glob("*.yaml"))]

Conform = Callable[[str], str]


@pytest.fixture(scope="module")
def conform(kube: Kube, tmp_path_factory: pytest.TempPathFactory) -> Conform:
    """Check YAML: "" when all is well, else what kubeconform says."""
    folder = tmp_path_factory.mktemp("schemas")
    for definition in (*OURS, *FOREIGN):
        write_definition(folder, definition)
    known: set[tuple[str, str]] = set()

    def check(text: str) -> str:
        kinds = {(body["apiVersion"], body["kind"]) for body in yaml.safe_load_all(text) if body}
        core = {one for one in kinds - known if not _defined(*one)}
        write_schemas(kube, folder, core)
        known.update(core)
        file = folder / "objects.yaml"
        file.write_text(text)
        command = ("-strict", "-schema-location", f"{folder}/{LOCATION}", file)
        return kube_tools.run("kubeconform", *command, check=False)

    return check


def _defined(api_version: str, kind: str) -> bool:
    group = api_version.partition("/")[0]
    return any(
        (one["spec"]["group"], one["spec"]["names"]["kind"]) == (group, kind) for one in (*OURS, *FOREIGN)
    )


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda path: f"{path.parents[1].name}-{path.stem}")
def test_every_object_of_every_scenario_conforms(conform: Conform, scenario: Path) -> None:
    assert conform(helm_template(scenario.parents[1], scenario, apis=MONITORING)) == ""


def test_an_example_that_kubernetes_takes_conforms(conform: Conform) -> None:
    bodies = {path: yaml.safe_load(path.read_text()) for path in sorted((ROOT / "examples").rglob("*.yaml"))}
    examples = [path for path, body in bodies.items() if body["kind"] == "DualPathCluster"]
    assert examples
    for path in examples:
        assert conform(path.read_text()) == "", path


MODEL: Object = {"model": {"uri": "hf://a/b"}, "spec": {"kv": {"blockTokens": 64}}}


@pytest.mark.parametrize(
    ("chart", "kind", "change", "words"),
    [
        (OPERATOR, "Deployment", lambda spec: spec.update(replica=1), "'replica' not allowed"),
        (OPERATOR, "Deployment", lambda spec: spec.update(replicas="two"), "/spec/replicas"),
        (OPERATOR, "Deployment", lambda spec: spec.pop("template"), "'template'"),
        (OPERATOR, "Deployment", lambda spec: spec["template"]["spec"].update(hostnet=True), "'hostnet' not"),
        (OPERATOR, "ServiceMonitor", lambda spec: spec["endpoints"][0].update(honour=1), "'honour' not"),
        (CLUSTER, "DualPathCluster", lambda spec: spec.update(pathPolicies={}), "'pathPolicies' not"),
        (CLUSTER, "DualPathCluster", lambda spec: spec["kv"].update(blockTokens=63), "/spec/kv/blockTokens"),
    ],
    ids=["unknown", "type", "required", "deep", "foreign", "ours", "enum"],
)
def test_what_is_wrong_is_found(
    conform: Conform, chart: Path, kind: str, change: Callable[[Any], None], words: str
) -> None:
    body = only(render(chart, MODEL if chart == CLUSTER else {}, apis=MONITORING), kind)
    change(body["spec"])
    assert words in conform(yaml.safe_dump(body))


def test_a_kind_that_nobody_knows_is_an_error(kube: Kube, tmp_path: Path) -> None:
    with pytest.raises((KeyError, ValueError)):
        write_schemas(kube, tmp_path, [("apps/v1", "Deploiment")])
