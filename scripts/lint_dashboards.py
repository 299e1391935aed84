"""Dashboards and alerts are well-formed and speak of series that exist.

`--promtool PROGRAM` has Prometheus itself parse every expression; without it that is not checked.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from prometheus_client.metrics import MetricWrapperBase

from dualpath_operator import metrics as operator

ROOT = Path(__file__).resolve().parents[1]
CHART = ROOT / "charts" / "dualpath-operator"
ALERTS = CHART / "rules" / "alerts.yaml"
METRICS_PAGE = ROOT / "docs" / "reference" / "metrics.md"

OF_TARGETS = frozenset({"namespace", "pod", "job", "instance", "le"})
"""Labels that Prometheus adds, and that of histogram buckets."""

UNITS = frozenset(
    ["none", "short", "s", "percentunit", "bytes", "Bps", "ops", "cps", "wps", "reqps"]  # Grafana's names
)
NEEDED = ("title", "type", "gridPos")


def metrics() -> dict[str, frozenset[str]]:
    """All series of the documentation and of the operator, with their labels."""
    found: dict[str, frozenset[str]] = {}
    for series in vars(operator).values():
        if isinstance(series, MetricWrapperBase):
            (family,) = series.describe()
            name = f"{family.name}_total" if family.type == "counter" else family.name
            found[name] = frozenset(series._labelnames)
    for line in METRICS_PAGE.read_text().splitlines():
        if match := re.match(r"\| `(dualpath_\w+)` \| \w+ \| ([^|]*) \|", line):
            labels = frozenset(re.findall(r"`(\w+)`", match[2]))
            found[match[1]] = found.get(match[1], frozenset()) | labels
    return found


def expression_problems(expr: str, known: Mapping[str, frozenset[str]]) -> Iterator[str]:
    """Series and labels of an expression that do not exist."""
    for name, selector in re.findall(r"\b(dualpath_\w+)(?:\{([^}]*)\})?", expr):
        base = name if name in known else re.sub(r"_(bucket|sum|count)$", "", name)
        if base not in known:
            yield f"there is no metric {name}"
            continue
        used = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector))
        if strange := used - known[base] - OF_TARGETS:
            yield f"{name} has no label {', '.join(sorted(strange))}"


def dashboard_problems(dashboard: Mapping[str, Any], known: Mapping[str, frozenset[str]]) -> Iterator[str]:
    """One line for each thing that is wrong with a dashboard."""
    panels = dashboard["panels"]
    for field in ("id", "title"):
        counts = Counter(panel.get(field) for panel in panels)
        yield from (f"{field} {value!r} is there {n} times" for value, n in counts.items() if n > 1)
    variables = {one["name"] for one in dashboard["templating"]["list"]}
    if "datasource" not in variables:
        yield "there is no variable for the data source"
    yield from _overlaps(panels)
    for panel in panels:
        if missing := [key for key in NEEDED if not panel.get(key)]:
            yield f"panel {panel.get('id')} has no {', '.join(missing)}"
        if panel["type"] != "row":
            yield from (
                f"{panel.get('title')}: {problem}" for problem in _panel_problems(panel, known, variables)
            )


def _panel_problems(
    panel: Mapping[str, Any], known: Mapping[str, frozenset[str]], variables: set[str]
) -> Iterator[str]:
    if not panel.get("description"):
        yield "has no description"
    unit = panel.get("fieldConfig", {}).get("defaults", {}).get("unit")
    if unit not in UNITS:
        yield f"has the unit {unit!r}; known are {', '.join(sorted(UNITS))}"
    if not panel.get("targets"):
        yield "shows nothing"
    for target in panel.get("targets", ()):
        if target.get("datasource", {}).get("uid") != "${datasource}":
            yield "does not use the data source variable"
        if not target.get("legendFormat"):
            yield "has a series without a legend"
        yield from expression_problems(target["expr"], known)
        for name in set(re.findall(r"\$(\w+)", target["expr"])) - variables - {"__rate_interval"}:
            yield f"uses ${name}, which is no variable"


def _overlaps(panels: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    taken: dict[tuple[int, int], str] = {}
    for panel in panels:
        place = panel["gridPos"]
        cells = [
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        ]
        if over := {taken[cell] for cell in cells if cell in taken}:
            yield f"{panel['title']} overlaps {', '.join(sorted(over))}"
        if place["x"] + place["w"] > 24:
            yield f"{panel['title']} is wider than the page"
        taken.update(dict.fromkeys(cells, panel["title"]))


def alerts() -> list[dict[str, Any]]:
    """All alerting rules."""
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def alert_problems(rule: Mapping[str, Any], known: Mapping[str, frozenset[str]]) -> Iterator[str]:
    """One line for each thing that is wrong with an alert."""
    name = rule["alert"]
    if rule.get("labels", {}).get("severity") not in ("info", "warning", "critical"):
        yield f"{name}: severity is none of info, warning, critical"
    notes = rule.get("annotations", {})
    if missing := {"summary", "description", "runbook_url"} - set(notes):
        yield f"{name}: no {', '.join(sorted(missing))}"
    if notes.get("runbook_url") != f"docs/operations.md#{name.lower()}":
        yield f"{name}: its runbook_url is not docs/operations.md#{name.lower()}"
    yield from (f"{name}: {problem}" for problem in expression_problems(rule["expr"], known))


def dashboards() -> dict[str, dict[str, Any]]:
    """All dashboards by file name."""
    return {path.name: json.loads(path.read_text()) for path in sorted(CHART.glob("dashboards/*.json"))}


def problems() -> Iterator[str]:
    """One line for each thing that is wrong anywhere."""
    known, boards = metrics(), dashboards()
    for name, board in boards.items():
        yield from (f"{name}: {problem}" for problem in dashboard_problems(board, known))
    for field in ("uid", "title"):
        counts = Counter(board[field] for board in boards.values())
        yield from (f"{n} dashboards have the {field} {value!r}" for value, n in counts.items() if n > 1)
    for rule in alerts():
        yield from alert_problems(rule, known)


def expressions() -> list[str]:
    """All PromQL of the dashboards, with examples in place of Grafana's variables."""
    found = [
        target["expr"]
        for board in dashboards().values()
        for panel in board["panels"]
        for target in panel.get("targets", ())
    ]
    return [re.sub(r"\$\w+", "x", expr.replace("$__rate_interval", "5m")) for expr in found]


def syntax_problems(promtool: Path) -> Iterator[str]:
    """What Prometheus says about the expressions: all of them as recording rules in one file."""
    rules = [{"record": f"expression:{number}", "expr": expr} for number, expr in enumerate(expressions())]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "dashboards.yaml"
        file.write_text(yaml.safe_dump({"groups": [{"name": "dashboards", "rules": rules}]}))
        for path in (file, ALERTS):
            command = [promtool, "check", "rules", "--lint=all", "--lint-fatal", path]
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
            if done.returncode != 0:
                yield f"{path.name}: {done.stdout}{done.stderr}"


def main(arguments: Sequence[str]) -> int:
    """Print the problems; 1 if there are any."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--promtool", type=Path, help="Have it parse every expression.")
    given = parser.parse_args(arguments)
    found = [*problems(), *(syntax_problems(given.promtool) if given.promtool else ())]
    sys.stdout.write("".join(f"{line}\n" for line in found))
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
