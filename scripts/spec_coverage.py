"""Where every field of the spec lands, proven case by case. Writes docs/reference/spec-coverage.md.

A field of the spec without a case, or a case whose field is gone, is an error. `--check` writes nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from dualpath_api.cluster import ClusterSpec

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reference" / "spec-coverage.md"
HEAD = """<!-- Made by scripts/spec_coverage.py from the cases in tests/unit/operator: change them there. -->

# Where the fields of the spec land

Each row is a test: the field of a spec is changed, and what the operator makes of it differs at these places
and at no other. *yes*: a change makes a new revision of the engines, which is rolled out; no other change
touches a running engine.

`Pod` is an engine's; `cluster.json` in ConfigMap `NAME-REV` is what engines read, in `NAME-gateway` what the
gateway reads; `*` stands for any text. Three places are no objects: `RolloutPlan` is what the rollout planner
is asked for, `Tuning` what the gateway is told in some traffic, `Status` figures of the status.

| field | lands in | new revision |
| --- | --- | --- |
"""


def leaves(section: type[BaseModel] = ClusterSpec, path: str = "spec") -> Iterator[str]:
    """Dotted paths of all fields that are no sections themselves; `[]` marks items of a list."""
    for name, field in section.model_fields.items():
        inner, is_list = _section(field.annotation)
        here = f"{path}.{field.alias or name}" + ("[]" if is_list and inner else "")
        if inner is None:
            yield here
        else:
            yield from leaves(inner, here)


def _section(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """The section in an annotation, and whether it is an item of a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    is_list = get_origin(annotation) is tuple
    for argument in get_args(annotation):
        if argument in (NoneType, Ellipsis):
            continue
        inner, below = _section(argument)
        if inner is not None:
            return inner, is_list or below
    return None, is_list


def page(cases: Mapping[str, Any]) -> str:
    """The page. Raises ValueError for fields without a case and cases without a field."""
    fields = list(leaves())
    if missing := [field for field in fields if field not in cases]:
        raise ValueError(f"no case in coverage_cases.py for {', '.join(missing)}")
    if gone := [field for field in cases if field not in fields]:
        raise ValueError(f"coverage_cases.py has cases for fields that do not exist: {', '.join(gone)}")
    rows = "".join(_row(field, cases[field]) for field in fields)
    return f"{HEAD}{rows}\n{len(fields)} fields, 0 missing.\n"


def _row(field: str, case: Any) -> str:
    lands = "<br>".join(f"`{place}`" for place in case.lands)
    tests = "<br>".join(f"acted on: `{test}`" for test in case.proved_by)
    where = "<br>".join(part for part in (lands, tests) if part) or "the revision itself, in the Pods' names"
    return f"| `{field}` | {where} | {'yes' if case.new_revision else 'no'} |\n"


def main() -> int:
    """Write or compare; 1 if the page is out of date."""
    sys.path.insert(0, str(ROOT / "tests"))
    from unit.operator.coverage_cases import CASES

    text = page(CASES)
    if PAGE.exists() and PAGE.read_text() == text:
        return 0
    if "--check" in sys.argv[1:]:
        sys.stdout.write(f"{PAGE.relative_to(ROOT)} is out of date: run `python scripts/spec_coverage.py`\n")
        return 1
    PAGE.write_text(text)
    sys.stdout.write(f"wrote {PAGE.relative_to(ROOT)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
