"""Quantities as people write them: "256Mi" is 268435456 bytes."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer

_SUFFIXES = {"": 1, **{s: 1024**i for i, s in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi"), 1)}}
_SUFFIXES |= {s: 1000**i for i, s in enumerate(("k", "M", "G", "T", "P"), 1)}


def parse_bytes(value: object) -> int:
    """Bytes of a Kubernetes quantity. Raises ValueError with the accepted forms."""
    match = re.fullmatch(r"(\d+)(\.\d+)?([A-Za-z]{0,2})", str(value))
    if isinstance(value, bool) or not match or match[3] not in _SUFFIXES:
        raise ValueError("not a quantity of bytes; write for example 256Mi, 4Gi or 500M")
    return int(float(match[1] + (match[2] or "")) * _SUFFIXES[match[3]])


def format_bytes(value: int) -> str:
    """The shortest exact quantity."""
    for suffix, factor in sorted(_SUFFIXES.items(), key=lambda item: -item[1]):
        if value and value % factor == 0:
            return f"{value // factor}{suffix}"
    return str(value)


Bytes = Annotated[int, BeforeValidator(parse_bytes), PlainSerializer(format_bytes)]
