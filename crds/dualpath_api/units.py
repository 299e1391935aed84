"""Quantities as people write them: "256Mi" is 268435456 bytes."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer

_SUFFIXES = {"": 1, **{s: 1024**i for i, s in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi"), 1)}}
_SUFFIXES |= {s: 1000**i for i, s in enumerate(("k", "M", "G", "T", "P"), 1)}
_EXAMPLES = "write for example 256Mi, 4Gi or 500M"


def parse_bytes(value: object) -> int:
    """Bytes of a Kubernetes quantity, rounded up. Raises ValueError with the accepted forms."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([A-Za-z]*)", str(value), flags=re.ASCII)
    if isinstance(value, bool) or not match:
        raise ValueError(f"not a quantity of bytes; {_EXAMPLES}")
    number, suffix = match.groups()
    if suffix not in _SUFFIXES:
        raise ValueError(f"{suffix!r} is not a unit of bytes; {_hint(number, suffix)}")
    return -int(-Fraction(number) * _SUFFIXES[suffix] // 1)


def format_bytes(value: int) -> str:
    """The shortest exact quantity."""
    for suffix, factor in sorted(_SUFFIXES.items(), key=lambda item: -item[1]):
        if value and value % factor == 0:
            return f"{value // factor}{suffix}"
    return str(value)


def _hint(number: str, suffix: str) -> str:
    """The quantities that somebody may have meant by a unit that does not exist."""
    letter = suffix[0].lower()
    meant = [s for s in _SUFFIXES if s and s[0].lower() == letter]
    return f"did you mean {' or '.join(number + s for s in meant)}?" if meant else _EXAMPLES


Bytes = Annotated[int, BeforeValidator(parse_bytes), PlainSerializer(format_bytes)]
"""A number of bytes; in YAML a quantity."""


_DURATIONS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse_duration(value: object) -> float:
    """Seconds of "300ms", "30s", "5m" or "1h"; a float is seconds already. Raises ValueError."""
    if isinstance(value, float) and value > 0:
        return value
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h)", str(value))
    if not match or float(match[1]) == 0:
        raise ValueError("not a duration above zero; write for example 300ms, 30s or 5m")
    return float(match[1]) * _DURATIONS[match[2]]


def format_duration(value: float) -> str:
    """Whole seconds where possible, else milliseconds, to a nanosecond."""
    return f"{value:.0f}s" if value == int(value) else f"{value * 1000:.6f}".rstrip("0").rstrip(".") + "ms"


Duration = Annotated[float, BeforeValidator(parse_duration), PlainSerializer(format_duration)]
