"""Link rates as people and tc write them: 50mbit, 1.6gbit, unlimited. Decimal units; values are bit/s."""

from __future__ import annotations

import re

from dualpath_api.errors import SpecError

UNLIMITED = 100_000_000_000
"""Bit/s. More than this machine can move; still a bucket, so that counters never start anew."""
LOWEST = 100_000
LATENCY_S = 0.02
"""How long a packet may wait in a NIC's queue before it is dropped; longer where the queue is that short."""

_UNITS = {"bit": 1, "kbit": 10**3, "mbit": 10**6, "gbit": 10**9}
_BURST_S = 0.01
_LEAST_BURST, _MOST_BURST = 128 << 10, 4 << 20
_LEAST_QUEUE = 128 << 10


def parse_rate(text: str | int) -> int:
    """Bit/s. Raises SpecError."""
    if isinstance(text, int) and not isinstance(text, bool):
        return _checked(text, text)
    if text == "unlimited":
        return UNLIMITED
    match = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)(bit|kbit|mbit|gbit)", str(text).lower())
    if match is None:
        raise _refused(text, "it is no rate")
    return _checked(text, round(float(match[1]) * _UNITS[match[2]]))


def format_rate(bits: int) -> str:
    """The shortest form that `parse_rate` reads back."""
    if bits >= UNLIMITED:
        return "unlimited"
    for unit in ("gbit", "mbit", "kbit"):
        if bits >= _UNITS[unit] and bits * 1000 % _UNITS[unit] == 0:
            return f"{bits / _UNITS[unit]:g}{unit}" if _exact(bits, unit) else f"{bits}bit"
    return f"{bits}bit"


def bucket(bits: int) -> list[str]:
    """The arguments of tc for this rate.

    A bucket of 10 ms: short enough for windows of a second, and never smaller than what the kernel sends as
    one piece, which it would have to cut up first.
    """
    burst = min(max(int(bits / 8 * _BURST_S), _LEAST_BURST), _MOST_BURST)
    latency_ms = max(LATENCY_S, _LEAST_QUEUE * 8 / bits) * 1000
    return ["tbf", "rate", f"{bits}bit", "burst", f"{burst}b", "latency", f"{latency_ms:.0f}ms"]


def _exact(bits: int, unit: str) -> bool:
    return round(float(f"{bits / _UNITS[unit]:g}") * _UNITS[unit]) == bits


def _checked(text: object, bits: int) -> int:
    if not LOWEST <= bits <= UNLIMITED:
        raise _refused(text, f"rates are {LOWEST // 1000}kbit to {UNLIMITED // 10**9}gbit")
    return bits


def _refused(text: object, cause: str) -> SpecError:
    return SpecError(
        f"the rate {text!r} cannot be used", cause=cause, remedy="for example 50mbit, 1.6gbit or unlimited"
    )
