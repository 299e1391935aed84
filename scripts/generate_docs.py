"""Reference pages from the code: commands, configuration, metrics. `--check` only tells what is out of date.

A command, option, field or metric without a description is an error: what has no words is not documented.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import click
from prometheus_client.metrics import MetricWrapperBase
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from dualpath_api.cluster import DualPathCluster
from dualpath_api.status import ClusterStatus
from dualpath_api.token import TOKEN_FILE
from dualpath_api.units import Bytes, Cpu, Duration, InYaml, format_bytes, format_duration

REFERENCE = Path(__file__).resolve().parents[1] / "docs" / "reference"
NOTICE = "<!-- Made by scripts/generate_docs.py from the code: change it there, then run `make docs`. -->"


def cli_page() -> str:
    """All commands with their help."""
    from dualpath_cli.main import main

    lines = [
        NOTICE,
        "",
        "# Commands",
        "",
        "Errors for people go to stderr as what, cause and remedy, with exit code 2.",
        "",
    ]
    top = click.Context(main, info_name="dualpath", help_option_names=["-h", "--help"])
    for context in _contexts(main, top):
        lines += [f"## {context.command_path}", "", "```text", context.get_help().rstrip(), "```", ""]
        for parameter in context.command.params:
            if isinstance(parameter, click.Option) and not parameter.help:
                raise ValueError(f"{context.command_path} {parameter.opts[0]} has no help text")
    return "\n".join(lines)


def _contexts(group: click.Group, parent: click.Context) -> Iterator[click.Context]:
    """Every command, and those below it."""
    for name, command in sorted(group.commands.items()):
        context = click.Context(
            command, info_name=name, parent=parent, terminal_width=100, max_content_width=100
        )
        yield context
        if isinstance(command, click.Group):
            yield from _contexts(command, context)


def configuration_page() -> str:
    """All fields of the spec, then the variables of the gateway."""
    from dualpath_gateway import settings
    from dualpath_operator.settings import Settings as OperatorSettings

    lines = [NOTICE, "", "# Configuration", "", "## The DualPathCluster file", "", (
        "Bytes are written as `256Mi`, `4Gi` or `500M`; durations as `300ms` or `30s`. Unknown keys are "
        "refused. Any field can be overridden: `dualpath up FILE --set spec.pathPolicy.mode=Split`."
    ), "", "| field | type | default | meaning |", "| --- | --- | --- | --- |"]  # fmt: skip
    lines += [_row(*row) for row in _fields(DualPathCluster, "")]
    lines += ["", "## Variables of the gateway", "", "Times are in seconds.", ""]
    lines += ["| variable | type | default | meaning |", "| --- | --- | --- | --- |"]
    for name, field in settings.Settings.model_fields.items():
        variable = TOKEN_FILE if name == "control_token" else settings.PREFIX + name.upper()
        lines.append(_row(variable, _type(field), _default(field), _described(field, variable)))
    lines += ["", "## Settings of the operator", "", (
        "A YAML file that `python -m dualpath_operator --config FILE` reads; the chart makes it of its "
        "value `config`. Unknown keys are refused."
    ), "", "| field | type | default | meaning |", "| --- | --- | --- | --- |"]  # fmt: skip
    lines += [_row(*row) for row in _fields(OperatorSettings, "")]
    return "\n".join([*lines, ""])


def status_page() -> str:
    """All fields of the status."""
    lines = [NOTICE, "", "# Status of a DualPathCluster", "", (
        "Conditions follow kstatus: wait for `Ready`; `Stalled` means that nothing goes on without a person. "
        "[Operations](../operations.md) says what to do about each."
    ), "", "| field | type | meaning |", "| --- | --- | --- |"]  # fmt: skip
    lines += [_row(path, kind, meaning) for path, kind, _, meaning in _fields(ClusterStatus, "status.")]
    return "\n".join([*lines, ""])


def metrics_page() -> str:
    """All series of all processes."""
    from dualpath_gateway.metrics import METRICS as GATEWAY
    from dualpath_worker.metrics import METRICS as ENGINE

    lines = [NOTICE, "", "# Metrics", "", (
        "Every process serves `/metrics` on its own port; the ready file of `dualpath up` has the URLs."
    ), ""]  # fmt: skip
    gateway = [(m.kind, m.name, m.help, m.labels) for m in GATEWAY]
    for title, metrics in (("Gateway and scheduler", gateway), ("Engines", list(ENGINE))):
        lines += [f"## {title}", "", "| metric | kind | labels | meaning |", "| --- | --- | --- | --- |"]
        for kind, name, text, labels in metrics:
            if not text:
                raise ValueError(f"metric {name} has no help text")
            full = name if kind != "counter" or name.endswith("_total") else f"{name}_total"
            lines.append(_row(full, kind, ", ".join(f"`{label}`" for label in labels), text))
        lines.append("")
    lines += [
        "## Operator", "", "The leader serves all of them; labels never name a Pod.", "",
        "| metric | kind | labels | meaning |", "| --- | --- | --- | --- |",
    ]  # fmt: skip
    for metric in operator_metrics():
        full = metric._name + ("_total" if metric._type == "counter" else "")
        labels = ", ".join(f"`{label}`" for label in metric._labelnames)
        lines.append(_row(full, metric._type, labels, metric._documentation))
    return "\n".join([*lines, ""])


def operator_metrics() -> list[MetricWrapperBase]:
    """All series of the operator, by name."""
    from dualpath_operator import metrics

    found = [value for value in vars(metrics).values() if isinstance(value, MetricWrapperBase)]
    return sorted(found, key=lambda metric: metric._name)


PAGES: dict[str, Callable[[], str]] = {
    "cli.md": cli_page,
    "configuration.md": configuration_page,
    "metrics.md": metrics_page,
    "status.md": status_page,
}


def stale() -> list[str]:
    """Names of pages that differ from what the code says."""
    return [
        name
        for name, make in PAGES.items()
        if not (REFERENCE / name).exists() or (REFERENCE / name).read_text() != make()
    ]


def _fields(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str, str, str]]:
    """(path, type, default, meaning) of each leaf, depth first."""
    for field in model.model_fields.values():
        path = f"{prefix}{field.alias}"
        meaning = _described(field, path)
        inner, is_list = _section(field)
        if inner is None:
            yield path, _type(field), _default(field), meaning
        else:
            yield path, "list" if is_list else "section", "" if field.is_required() else "optional", meaning
            yield from _fields(inner, f"{path}[]." if is_list else f"{path}.")


def _flat(field: FieldInfo) -> tuple[Any, list[Any]]:
    """The plain type of a field and all marks on it, out of unions with None and Annotated."""
    annotation, marks = field.annotation, list(field.metadata)
    while True:
        options = [option for option in get_args(annotation) if option is not type(None)]
        if get_origin(annotation) in (Union, UnionType) and len(options) == 1:
            annotation = options[0]
        elif hasattr(annotation, "__metadata__"):
            marks += annotation.__metadata__
            annotation = options[0]
        else:
            return annotation, marks


def _section(field: FieldInfo) -> tuple[type[BaseModel] | None, bool]:
    """The model that a field holds, and whether it holds a list of them."""
    annotation, _ = _flat(field)
    inner = get_args(annotation)[0] if get_origin(annotation) is tuple else annotation
    is_model = isinstance(inner, type) and issubclass(inner, BaseModel)
    return (inner, inner is not annotation) if is_model else (None, False)


_UNITS = {id(mark): name for unit, name in ((Bytes, "bytes"), (Duration, "duration"), (Cpu, "CPUs"))
          for mark in get_args(unit) if isinstance(mark, InYaml)}  # fmt: skip


def _unit(marks: list[Any]) -> str:
    return next((_UNITS[id(mark)] for mark in marks if id(mark) in _UNITS), "")


def _type(field: FieldInfo) -> str:
    """The type in the words of a YAML file."""
    annotation, marks = _flat(field)
    if unit := _unit(marks):
        return unit
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{option}`" for option in get_args(annotation))
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return ", ".join(f"`{member.value}`" for member in annotation)
    if get_origin(annotation) in (tuple, dict):
        return "list" if get_origin(annotation) is tuple else "mapping"
    plain = {str: "text", int: "number", float: "number", bool: "true or false", Path: "path"}
    return plain[annotation]


def _default(field: FieldInfo) -> str:
    value = field.default
    if field.is_required():
        return "required"
    if isinstance(value, Enum):
        value = value.value
    if value is None or value in ((), {}, ""):
        return ""
    unit = _unit(_flat(field)[1])
    return {"bytes": format_bytes, "duration": format_duration}.get(unit, str)(value)


def _described(field: FieldInfo, path: str) -> str:
    if not field.description:
        raise ValueError(f"{path} has no description")
    return field.description


def _row(*cells: str) -> str:
    first, *rest = (cell.replace("|", "\\|") for cell in cells)
    return f"| `{first}` | " + " | ".join(rest) + " |"


def main(arguments: Sequence[str]) -> int:
    """Write the pages, or tell which are out of date."""
    if "--check" in arguments:
        old = stale()
        sys.stdout.write("".join(f"docs/reference/{name}: out of date, run `make docs`\n" for name in old))
        return bool(old)
    REFERENCE.mkdir(parents=True, exist_ok=True)
    for name, make in PAGES.items():
        (REFERENCE / name).write_text(make())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
