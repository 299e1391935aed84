"""Values, schemas, READMEs, dashboards and alerts of the charts agree with each other, without any program."""

from __future__ import annotations

import copy
import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from dualpath_operator.settings import ImageSettings, LogSettings, Settings

ROOT = Path(__file__).parents[3]
CHARTS = sorted(path.parent for path in (ROOT / "charts").glob("*/Chart.yaml"))


def script(name: str) -> ModuleType:
    """A file of scripts/ as a module; they import each other as when they run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "scripts"))
        return importlib.import_module(name)


docs, schemas = script("generate_chart_docs"), script("generate_chart_schema")
dashboards, lint = script("generate_dashboards"), script("lint_dashboards")


def chart_name(path: Path) -> str:
    return path.name


def schema_paths(schema: dict[str, Any], definitions: dict[str, Any], path: str = "") -> Iterator[str]:
    """Paths of all values that a schema names."""
    schema = definitions[schema["$ref"].rsplit("/", 1)[1]] if "$ref" in schema else schema
    for name, inner in schema.get("properties", {}).items():
        yield f"{path}{name}"
        yield from schema_paths(inner, definitions, f"{path}{name}.")


def parts(path: str) -> Iterator[str]:
    """a, a.b, a.b.c of a.b.c."""
    names = path.split(".")
    return (".".join(names[: n + 1]) for n in range(len(names)))


def test_the_readmes_and_the_reference_page_are_what_the_values_say():
    assert docs.stale() == []


def test_the_dashboards_are_what_the_code_says():
    assert dashboards.stale() == []


def test_the_cluster_chart_takes_the_spec_of_the_definition():
    assert not schemas.stale()


def test_dashboards_and_alerts_have_no_problems():
    assert list(lint.problems()) == []


@pytest.mark.parametrize("chart", CHARTS, ids=chart_name)
def test_every_value_is_in_the_schema_and_the_schema_knows_no_other(chart):
    schema = json.loads((chart / "values.schema.json").read_text())
    named = set(schema_paths(schema, schema.get("definitions", {})))
    values = [value.path for value in docs.values_of((chart / "values.yaml").read_text())]
    assert [path for path in values if path not in named] == []
    written = {part for path in values for part in parts(path)} | {"global"}
    inside = tuple(f"{path}." for path in values)
    assert sorted(path for path in named - written if not path.startswith(inside)) == []


def test_every_setting_of_the_operator_is_a_value_or_the_charts_own():
    schema = json.loads((ROOT / "charts" / "dualpath-operator" / "values.schema.json").read_text())
    values = schema["properties"]
    known = {field.alias for field in Settings.model_fields.values()}
    own = {"namespace", "http"}  # the Pod's, and what probes and Services rely on
    assert known == own | set(values["config"]["properties"]) | (known & set(values))
    for name, section in (("images", ImageSettings), ("log", LogSettings)):
        assert set(values[name]["properties"]) == {field.alias for field in section.model_fields.values()}


@pytest.mark.parametrize("chart", CHARTS, ids=chart_name)
def test_charts_have_the_version_of_the_project(chart):
    about = yaml.safe_load((chart / "Chart.yaml").read_text())
    project = (ROOT / "pyproject.toml").read_text()
    assert f'version = "{about["appVersion"]}"' in project
    assert about["name"] == chart.name


def test_a_value_without_a_comment_is_an_error():
    with pytest.raises(ValueError, match=r"a\.c has no comment"):
        list(docs.values_of("a:\n  # Says what.\n  b: 1\n  c: 2\n"))


def test_a_section_is_told_by_its_keys_and_a_mapping_by_itself():
    text = "# Free.\nfree:\n  x: {y: 1}\ns:\n  # One,\n  # two.\n  t: null\n"
    found = [(value.path, value.default, value.meaning) for value in docs.values_of(text)]
    assert found == [("free", '{"x": {"y": 1}}', "Free."), ("s.t", "null", "One, two.")]


def test_every_alert_has_a_test_that_it_fires():
    tests = (Path(__file__).parent / "alerts.promtest.yaml").read_text()
    untested = [
        rule["alert"] for rule in lint.alerts() if f"alertname: {rule['alert']}\n" not in tests
        and f'ALERTS{{alertname="{rule["alert"]}",alertstate="firing",severity=' not in tests
    ]  # fmt: skip
    assert untested == []


def board() -> Any:
    return copy.deepcopy(lint.dashboards()["dualpath-cluster.json"])


def test_the_linter_finds_what_is_wrong_with_a_dashboard():
    wrong = board()
    first, second, third = wrong["panels"][1:4]
    first["targets"][0]["expr"] = 'dualpath_no_such{namespace="$nowhere"}'
    first["fieldConfig"]["defaults"]["unit"] = "furlongs"
    second["gridPos"] = first["gridPos"]
    third.update(id=second["id"], title=second["title"], description="")
    third["targets"][0]["expr"] = 'dualpath_replicas{colour="red"}'
    found = "\n".join(lint.dashboard_problems(wrong, lint.metrics()))
    for words in (
        "there is no metric dualpath_no_such",
        "$nowhere, which is no variable",
        "the unit 'furlongs'",
        "overlaps",
        f"id {second['id']} is there 2 times",
        f"title {second['title']!r} is there 2 times",
        "has no description",
        "dualpath_replicas has no label colour",
    ):
        assert words in found


def test_the_linter_finds_what_is_wrong_with_an_alert():
    wrong = {"alert": "X", "expr": "sum(dualpath_nothing_total)", "labels": {"severity": "loud"}}
    found = list(lint.alert_problems(wrong, lint.metrics()))
    assert len(found) == 4
    assert found[-1] == "X: there is no metric dualpath_nothing_total"
