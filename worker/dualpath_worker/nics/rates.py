"""Rates over time: a mean for slow loops, and the capacity that a NIC has shown. Bytes per second."""

from __future__ import annotations

import math
from collections import deque

MEAN_S = 5.0
"""Time constant of the mean: a step is two thirds there after so long."""

WINDOWS = 120
"""Loaded windows that are remembered: two minutes of waiting reads."""

ENOUGH = 5
"""Loaded windows before a capacity is told: one that a read has just begun in says little."""


class Mean:
    """Exponentially weighted mean of rates whose windows differ in length."""

    def __init__(self) -> None:
        self.value = 0.0
        self._begun = False

    def add(self, rate: float, seconds: float) -> float:
        """One more window."""
        weight = 1 - math.exp(-seconds / MEAN_S) if self._begun else 1.0
        self._begun = True
        self.value += weight * (rate - self.value)
        return self.value


class Capacity:
    """What a NIC carries when it is asked for more: the 95th percentile of loaded windows.

    Not the largest window: a full buffer ahead of a shaper makes single windows look faster than the link is.
    """

    def __init__(self) -> None:
        self._windows: deque[float] = deque(maxlen=WINDOWS)

    def add(self, rate: float) -> None:
        """The rate of a window in which reads were waiting all the time."""
        self._windows.append(rate)

    @property
    def measured(self) -> float:
        """Bytes/s by nearest rank; 0: not known yet."""
        if len(self._windows) < ENOUGH:
            return 0.0
        ordered = sorted(self._windows)
        return ordered[-(-95 * len(ordered) // 100) - 1]


def usable(link: float, measured: float, *, trusted: bool) -> float:
    """What counts as full: the link's speed where hardware or the spec tells it, else what was measured.

    Never more than the link; 0: nothing is known.
    """
    if trusted and link:
        return link
    return min(measured, link) if measured and link else measured or link
