"""Quantities as people write them: "256Mi" is 268435456 bytes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any

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


def _cel_bytes(sign: str, limit: float) -> str:
    return (
        f"(type(self) == int ? self {sign} {int(limit)}"
        f" : quantity(string(self)).compareTo(quantity('{format_bytes(int(limit))}')) {sign} 0)"
    )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class InYaml:
    """How a unit stands in a CustomResourceDefinition: its schema, and its comparison with a limit as CEL.

    `shown` is the limit as people write it; `floor` holds where a field has no lower limit of its own.
    """

    schema: Mapping[str, Any]
    compare: Callable[[str, float], str] | None = None
    shown: Callable[[Any], str] = str
    floor: tuple[str, float] | None = None


Bytes = Annotated[
    int,
    BeforeValidator(parse_bytes),
    PlainSerializer(format_bytes),
    InYaml(
        schema={
            "x-kubernetes-int-or-string": True,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "pattern": r"^[0-9]+(\.[0-9]+)?(k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$",
            "maxLength": 32,
        },
        compare=_cel_bytes,
        shown=format_bytes,
    ),
]
"""A number of bytes; in YAML a quantity."""


_DURATIONS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse_duration(value: object) -> float:
    """Seconds of "300ms", "30s", "5m" or "1h"; a float is seconds already. Raises ValueError."""
    if isinstance(value, float) and value > 0:
        return value
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h)", str(value), flags=re.ASCII)
    if not match or float(match[1]) == 0:
        raise ValueError("not a duration above zero; write for example 300ms, 30s or 5m")
    return float(match[1]) * _DURATIONS[match[2]]


def format_duration(value: float) -> str:
    """Whole seconds where possible, else milliseconds, to a nanosecond."""
    return f"{value:.0f}s" if value == int(value) else f"{value * 1000:.6f}".rstrip("0").rstrip(".") + "ms"


def show_duration(value: float) -> str:
    """A limit as people write it: in whole hours where possible."""
    return f"{value / 3600:.0f}h" if value and value % 3600 == 0 else format_duration(value)


Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration),
    InYaml(
        schema={"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(ms|s|m|h)$", "maxLength": 32},
        compare=lambda sign, limit: f"duration(self) {sign} duration('{format_duration(limit)}')",
        shown=show_duration,
        floor=(">", 0),
    ),
]
"""A time in seconds; in YAML a number with its unit."""


def parse_cpu(value: object) -> str:
    """CPUs as Kubernetes writes them, such as 4 or 500m. Raises ValueError."""
    if isinstance(value, float):
        raise ValueError("a fraction of CPUs is text; put the value in quotes")
    if isinstance(value, bool) or not re.fullmatch(r"\d+m|\d+(\.\d{1,3})?", str(value), flags=re.ASCII):
        raise ValueError("not a number of CPUs; write for example 4, '0.5' or 500m")
    return str(value)


Cpu = Annotated[
    str,
    BeforeValidator(parse_cpu),
    InYaml(
        schema={
            "x-kubernetes-int-or-string": True,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "pattern": r"^([0-9]+m|[0-9]+(\.[0-9]{1,3})?)$",
            "maxLength": 32,
        },
        compare=lambda sign, limit: f"type(self) == string || self {sign} {int(limit)}",
        floor=(">=", 0),
    ),
]
"""CPUs; in YAML a quantity."""
