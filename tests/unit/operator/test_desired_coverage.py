"""Every field of the spec lands where its case says, and nowhere else."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
from unit.operator.coverage_cases import CASES
from unit.operator.desired_world import changed, cluster_of, differences, revision

ROOT = Path(__file__).parents[3]


def coverage():
    spec = importlib.util.spec_from_file_location("spec_coverage", ROOT / "scripts" / "spec_coverage.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def matches(place: str, pattern: str) -> bool:
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), place) is not None


@pytest.mark.parametrize("field", CASES)
def test_a_field_lands_where_its_case_says_and_nowhere_else(field):
    case = CASES[field]
    before, after = cluster_of(case.base), cluster_of(changed(case.base, field, case.value))
    found = differences(before, after)
    assert {place for place in found if not any(matches(place, pattern) for pattern in case.lands)} == set()
    assert [p for p in case.lands if not any(matches(place, p) for place in found)] == []
    assert (revision(before) != revision(after)) is case.new_revision


@pytest.mark.parametrize("field", [field for field, case in CASES.items() if case.proved_by])
def test_a_field_that_the_operator_acts_on_names_tests_that_exist(field):
    for test in CASES[field].proved_by:
        file, name = test.split("::")
        assert f"def {name}(" in (ROOT / file).read_text(), test


def test_no_case_shows_nothing():
    for field, case in CASES.items():
        assert case.lands or case.proved_by or case.new_revision, field


def test_every_field_of_the_spec_has_a_case_and_the_page_says_so():
    module = coverage()
    assert module.PAGE.read_text() == module.page(CASES)
    assert "0 missing" in module.PAGE.read_text()
