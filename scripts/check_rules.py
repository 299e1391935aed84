"""docs/rules.md names modules and tests that exist; a rule without a test says so."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "rules.md"
OPERATOR = ROOT / "operator" / "dualpath_operator"
WITHOUT = "no test"


def rows() -> list[list[str]]:
    """The cells of each rule."""
    lines = [line for line in PAGE.read_text().splitlines() if re.match(r"\| \d+ \|", line)]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def problems() -> Iterator[str]:
    """One line for each name that leads nowhere."""
    found = rows()
    if [row[0] for row in found] != [str(number) for number in range(1, len(found) + 1)]:
        yield "the rules are not numbered from 1 on"
    for row in found:
        if len(row) != 5:
            yield f"rule {row[0]}: {len(row)} cells, not 5"
            continue
        number, _, _, places, proofs = row
        yield from (f"rule {number}: {problem}" for problem in (*_places(places), *_proofs(proofs)))


def _places(cell: str) -> Iterator[str]:
    names = re.findall(r"`([^`]+)`", cell)
    if not names:
        yield "names no module that holds it"
    for name in names:
        if not (OPERATOR / name).exists() and not (ROOT / name).exists():
            yield f"there is no {name}"


def _proofs(cell: str) -> Iterator[str]:
    names = re.findall(r"`([^`]+)`", cell)
    if not names and not cell.startswith(WITHOUT):
        yield f"names no test; where there is none, it says '{WITHOUT}' and why"
    for name in names:
        file, _, test = name.partition("::")
        if test not in _tests(file):
            yield f"there is no test {name}"


@cache
def _tests(file: str) -> frozenset[str]:
    """Names of the tests in the file of that name, wherever it is under tests."""
    return frozenset(
        node.name
        for path in (ROOT / "tests").rglob(file)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    )


def main() -> int:
    """Print the problems; 1 if there are any."""
    found = list(problems())
    sys.stdout.write("".join(f"{PAGE.relative_to(ROOT)}: {line}\n" for line in found))
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
