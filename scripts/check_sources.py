"""Rules of the house that no linter knows: short files, no stray packages, a purpose for each module."""

from __future__ import annotations

import ast
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROOTS = ("crds", "kernels", "operator", "worker")
FOLDERS = (*ROOTS, "tests", "scripts", "examples", "benchmarks")
MOST_LINES = 500
MEDIAN_LINES = 150


def sources() -> list[Path]:
    """All Python files of the repository."""
    return sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def problems() -> Iterator[str]:
    """One line for each broken rule."""
    files = sources()
    lengths = {path: len(path.read_text().splitlines()) for path in files}
    for path, lines in lengths.items():
        if lines > MOST_LINES:
            yield f"{path.relative_to(ROOT)}: {lines} lines, at most {MOST_LINES}: split it by concern"
        if ast.get_docstring(ast.parse(path.read_text())) is None:
            yield f"{path.relative_to(ROOT)}: no module docstring: say what it is for"
        if not path.read_bytes().isascii():
            yield f"{path.relative_to(ROOT)}: not ASCII"
    median = statistics.median(lengths.values())
    if median > MEDIAN_LINES:
        yield f"the median file has {median:g} lines, at most {MEDIAN_LINES}"
    for root in ROOTS:
        if (ROOT / root / "__init__.py").exists():
            yield f"{root}/__init__.py: must not exist, {root}/ is a folder of packages, not a package"


def main() -> int:
    """Print the problems; 1 if there are any."""
    found = list(problems())
    sys.stdout.write("".join(f"{line}\n" for line in found))
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
