"""Reference pages from the code: commands, configuration, metrics. `--check` only tells what is out of date.

A command, option, field or metric without a description is an error: what has no words is not documented.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from dualpath_api.cluster import DualPathCluster
from dualpath_api.token import TOKEN_FILE
from dualpath_api.units import Bytes, format_bytes

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
    group = click.Context(main, info_name="dualpath", help_option_names=["-h", "--help"])
    for name, command in sorted(main.commands.items()):
        context = click.Context(
            command, info_name=name, parent=group, terminal_width=100, max_content_width=100
        )
        lines += [f"## dualpath {name}", "", "```text", context.command.get_help(context).rstrip(), "```", ""]
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.help:
                raise ValueError(f"dualpath {name} {parameter.opts[0]} has no help text")
    return "\n".join(lines)


def configuration_page() -> str:
    """All fields of the spec, then the variables of the gateway."""
    from dualpath_gateway import settings

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
    return "\n".join(lines)


PAGES: dict[str, Callable[[], str]] = {
    "cli.md": cli_page,
    "configuration.md": configuration_page,
    "metrics.md": metrics_page,
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
        inner, is_list = _section(field.annotation)
        if inner is None:
            yield path, _type(field), _default(field), meaning
        else:
            yield path, "list" if is_list else "section", "" if field.is_required() else "optional", meaning
            yield from _fields(inner, f"{path}[]." if is_list else f"{path}.")


def _section(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """The model that a field holds, and whether it holds a list of them."""
    inner = get_args(annotation)[0] if get_origin(annotation) is tuple else annotation
    is_model = isinstance(inner, type) and issubclass(inner, BaseModel)
    return (inner, inner is not annotation) if is_model else (None, False)


def _type(field: FieldInfo) -> str:
    """The type in the words of a YAML file."""
    annotation = field.annotation
    if _is_bytes(field):
        return "bytes"
    if any("parse_duration" in str(part) for part in field.metadata):
        return "duration"
    options = [option for option in get_args(annotation) if option is not type(None)] or [annotation]
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{option}`" for option in options)
    if isinstance(options[0], type) and issubclass(options[0], Enum):
        return ", ".join(f"`{member.value}`" for member in options[0])
    return {str: "text", int: "number", float: "number", bool: "true or false"}[options[0]]


def _default(field: FieldInfo) -> str:
    value = field.default
    if field.is_required():
        return "required"
    if isinstance(value, Enum):
        value = value.value
    if value is None:
        return ""
    if _is_bytes(field):
        return format_bytes(value)
    if any("parse_duration" in str(part) for part in field.metadata):
        from dualpath_api.units import format_duration

        return format_duration(value)
    return str(value)


def _is_bytes(field: FieldInfo) -> bool:
    marker = get_args(Bytes)[1]
    return any(part == marker for part in field.metadata)


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
