"""Quantities of bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualpath_api.units import format_bytes, format_duration, parse_bytes, parse_duration


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("256Mi", 256 << 20),
        ("4Gi", 4 << 30),
        ("500M", 500_000_000),
        ("1.5Ki", 1536),
        ("0.1k", 100),
        ("1.0001Ki", 1025),
        (0, 0),
        (12, 12),
        ("9007199254740993", 9007199254740993),
    ],
)
def test_quantities_are_read(text, value):
    assert parse_bytes(text) == value


@pytest.mark.parametrize(
    "text", ["", "Mi", "-1", "1 Mi", "1e3", "1.5.2", "\u0661Mi", True, None, [], 1.5e300, "nan"]
)
def test_other_things_are_refused(text):
    with pytest.raises(ValueError, match=r"quantity|unit"):
        parse_bytes(text)


@pytest.mark.parametrize(("text", "hint"), [("1mb", "1Mi or 1M"), ("2GB", "2Gi or 2G"), ("3K", "3Ki or 3k")])
def test_a_wrong_unit_gets_a_hint(text, hint):
    with pytest.raises(ValueError, match=f"did you mean {hint}"):
        parse_bytes(text)


@given(st.integers(0, 1 << 70))
def test_what_is_printed_is_read_back(value):
    assert parse_bytes(format_bytes(value)) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [("300ms", 0.3), ("0.25ms", 0.00025), ("30s", 30), ("5m", 300), ("1.5h", 5400), (0.3, 0.3)],
)
def test_durations_are_read_and_printed(text, value):
    assert parse_duration(text) == pytest.approx(value)
    assert parse_duration(format_duration(parse_duration(text))) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "0s", "-1s", "1", 5, "1d", "1 s", None, 0.0])
def test_other_durations_are_refused(text):
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)
