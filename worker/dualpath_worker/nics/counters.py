"""Bytes of a device, from counters that wrap, start over, or stop.

Counters of 32 bits go round at 4 GiB, those of InfiniBand in words at 16 GiB; old InfiniBand ports stop at
the highest value instead. A driver that was loaded anew starts at 0.
"""

from __future__ import annotations

from collections.abc import Sequence

from dualpath_worker.nics.congestion import read_count
from dualpath_worker.nics.devices import Counted

_ROUND = 1 << 32
_FULL = _ROUND - 1


class Joined:
    """One counter as a total that wraps do not disturb. Values are counts, not bytes."""

    def __init__(self) -> None:
        self._raw: int | None = None
        self._rounds = 0

    def add(self, raw: int, most: float) -> int | None:
        """Counts since the last reading, at most about `most` of them; None: that cannot be known."""
        before, self._raw = self._raw, raw
        if before is None or raw == before == _FULL:
            return None
        if raw >= before:
            return raw - before
        wrapped = raw + _ROUND - before
        if before < _ROUND and before >= _ROUND // 2 > raw and wrapped <= most:
            self._rounds += 1
            return wrapped
        self._rounds = 0  # started over
        return None

    @property
    def total(self) -> int:
        """All counts, rounds included."""
        return (self._raw or 0) + self._rounds * _ROUND


class Bytes:
    """Both directions of a device, over all of its counters."""

    def __init__(self, counters: Sequence[Counted]) -> None:
        self._counters = [(counted, Joined(), Joined()) for counted in counters]

    def read(self, most: float) -> tuple[int, int] | None:
        """Bytes (received, sent) since the last reading; None: unknown, as at first.

        `most` is what a direction could carry meanwhile, in bytes. Raises OSError or ValueError.
        """
        # all files before any counter changes: a reading is complete or has not happened
        raw = [(read_count(c.received), read_count(c.sent)) for c, _, _ in self._counters]
        received, sent, known = 0, 0, True
        for (counted, rx, tx), (rx_raw, tx_raw) in zip(self._counters, raw, strict=True):
            rx_new, tx_new = rx.add(rx_raw, most / counted.unit), tx.add(tx_raw, most / counted.unit)
            known = known and rx_new is not None and tx_new is not None
            received += (rx_new or 0) * counted.unit
            sent += (tx_new or 0) * counted.unit
        return (received, sent) if known else None

    @property
    def totals(self) -> tuple[int, int]:
        """Bytes (received, sent) since the driver was loaded."""
        return (
            sum(rx.total * counted.unit for counted, rx, _ in self._counters),
            sum(tx.total * counted.unit for counted, _, tx in self._counters),
        )
