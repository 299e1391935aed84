"""What a Grafana dashboard is made of: sections of panels, laid out left to right.

Positions and ids follow from the order: panels never overlap, and a change of one moves what is after it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

COLUMNS = 24
HEIGHT = 8
SOURCE = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One PromQL expression and the legend of its series."""

    expr: str
    legend: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One panel. `unit` is Grafana's name of it; `highest` fixes the top of the axis."""

    title: str
    about: str
    unit: str
    queries: tuple[Query, ...]
    kind: str = "timeseries"
    width: int = 8
    highest: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Dashboard:
    """A dashboard; `variables` are (name, query) of its choices below the data source."""

    uid: str
    title: str
    about: str
    variables: tuple[tuple[str, str], ...]
    sections: tuple[tuple[str, tuple[Panel, ...]], ...]


def one(expr: str, legend: str) -> tuple[Query, ...]:
    """A single query."""
    return (Query(expr=expr, legend=legend),)


def quantiles(metric: str, labels: str, by: str = "") -> tuple[Query, ...]:
    """Median, 95th and 99th percentile of a histogram, told apart by a label if one is given."""
    group, name = ("le", "") if not by else (f"le, {by}", f"{{{{{by}}}}} ")
    rate = f"sum by ({group}) (rate({metric}_bucket{{{labels}}}[$__rate_interval]))"
    return tuple(
        Query(expr=f"histogram_quantile({q}, {rate})", legend=f"{name}p{q * 100:g}")
        for q in (0.5, 0.95, 0.99)
    )


def rate_by(metric: str, labels: str, *by: str) -> tuple[Query, ...]:
    """Rate of a counter, told apart by labels."""
    legend = " ".join(f"{{{{{label}}}}}" for label in by) or "all"
    group = f" by ({', '.join(by)})" if by else ""
    return one(f"sum{group} (rate({metric}{{{labels}}}[$__rate_interval]))", legend)


def model(dashboard: Dashboard) -> dict[str, Any]:
    """The dashboard as Grafana imports it."""
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.about,
        "tags": ["dualpath"],
        "schemaVersion": 39,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": [_datasource(), *(_choice(*variable) for variable in dashboard.variables)]},
        "panels": list(_laid_out(dashboard.sections)),
    }


def _datasource() -> dict[str, Any]:
    return {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}


def _choice(name: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "label": name.capitalize(),
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "sort": 1,
    }


def _laid_out(sections: Sequence[tuple[str, Sequence[Panel]]]) -> Iterator[dict[str, Any]]:
    number, y = 0, 0
    for title, panels in sections:
        number += 1
        place = {"x": 0, "y": y, "w": COLUMNS, "h": 1}
        yield {
            "id": number,
            "type": "row",
            "title": title,
            "collapsed": False,
            "gridPos": place,
            "panels": [],
        }
        x, y = 0, y + 1
        for panel in panels:
            if x + panel.width > COLUMNS:
                x, y = 0, y + HEIGHT
            number += 1
            place = {"x": x, "y": y, "w": panel.width, "h": HEIGHT}
            yield {"id": number, **_panel(panel), "gridPos": place}
            x += panel.width
        y += HEIGHT


def _panel(panel: Panel) -> dict[str, Any]:
    limits = {"min": 0} if panel.highest is None else {"min": 0, "max": panel.highest}
    is_table = panel.kind == "table"
    targets = [
        {
            "refId": chr(ord("A") + index),
            "datasource": SOURCE,
            "expr": query.expr,
            "legendFormat": query.legend,
            **({"instant": True, "format": "table"} if is_table else {}),
        }
        for index, query in enumerate(panel.queries)
    ]
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": SOURCE,
        "fieldConfig": {"defaults": {"unit": panel.unit, **limits}, "overrides": []},
        "targets": targets,
    }
