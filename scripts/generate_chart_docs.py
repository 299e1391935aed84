"""Tables of the charts' values from the comments in values.yaml: READMEs and docs/reference/charts.md.

A comment above a key is its meaning; a value without one is an error. `--check` only tells what is stale.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
CHARTS = ("dualpath-crds", "dualpath-operator", "dualpath-cluster")
BEGIN = "<!-- Made from values.yaml by `make docs`: change it there. -->"
END = "<!-- End of the values. -->"
PAGE_NOTICE = "<!-- Made from charts/*/values.yaml by `make docs`: change them there. -->"


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """One value of a chart: its path, its default as YAML would say it, and its meaning."""

    path: str
    default: str
    meaning: str


def values_of(text: str) -> Iterator[Value]:
    """All values of a values.yaml, in its order. A section whose keys have comments is no value itself."""
    node = yaml.compose(text)
    if isinstance(node, yaml.MappingNode):
        yield from _values(node, yaml.safe_load(text), text.splitlines(), "")


def _values(node: yaml.MappingNode, data: Any, lines: Sequence[str], prefix: str) -> Iterator[Value]:
    for key, value in node.value:
        path, default = f"{prefix}{key.value}", data[key.value]
        meaning = _comment_above(lines, key.start_mark.line)
        if isinstance(value, yaml.MappingNode) and (not meaning or _commented(value, lines)):
            yield from _values(value, default, lines, f"{path}.")
        elif meaning:
            yield Value(path=path, default=json.dumps(default), meaning=meaning)
        else:
            raise ValueError(f"{path} has no comment that says what it is for")


def _commented(node: yaml.MappingNode, lines: Sequence[str]) -> bool:
    return not node.flow_style and any(_comment_above(lines, key.start_mark.line) for key, _ in node.value)


def _comment_above(lines: Sequence[str], line: int) -> str:
    found: list[str] = []
    while line > 0 and lines[line - 1].strip().startswith("#"):
        line -= 1
        found.insert(0, lines[line].strip().lstrip("#").strip())
    return " ".join(found)


def table(chart: str) -> str:
    """The values of a chart as a Markdown table."""
    rows = ["| value | default | meaning |", "| --- | --- | --- |"]
    for value in values_of((ROOT / "charts" / chart / "values.yaml").read_text()):
        default, meaning = (part.replace("|", "\\|") for part in (value.default, value.meaning))
        rows.append(f"| `{value.path}` | `{default}` | {meaning} |")
    return "\n".join(rows)


def readme(chart: str) -> str:
    """The README of a chart with its table renewed; the words around it are written by hand."""
    text = (ROOT / "charts" / chart / "README.md").read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"charts/{chart}/README.md lacks the lines {BEGIN!r} and {END!r}")
    return f"{before}{BEGIN}\n\n{table(chart)}\n\n{END}{after}"


def page() -> str:
    """docs/reference/charts.md: the values of all charts."""
    lines = [PAGE_NOTICE, "", "# Charts", ""]
    for chart in CHARTS:
        about = yaml.safe_load((ROOT / "charts" / chart / "Chart.yaml").read_text())
        lines += [f"## {chart}", "", about["description"], "", table(chart), ""]
    return "\n".join(lines)


def wanted() -> dict[Path, str]:
    """All generated files and their text."""
    files = {ROOT / "charts" / chart / "README.md": readme(chart) for chart in CHARTS}
    return {**files, ROOT / "docs" / "reference" / "charts.md": page()}


def stale() -> list[str]:
    """Files that differ from what the values say."""
    return [
        str(path.relative_to(ROOT))
        for path, text in wanted().items()
        if not path.exists() or path.read_text() != text
    ]


def main(arguments: Sequence[str]) -> int:
    """Write the files, or tell which are out of date."""
    if "--check" in arguments:
        old = stale()
        sys.stdout.write("".join(f"{name}: out of date, run `make docs`\n" for name in old))
        return bool(old)
    for path, text in wanted().items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
