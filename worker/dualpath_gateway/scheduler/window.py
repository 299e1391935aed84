"""How fast a counter grew over the last half minute."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

WINDOW_S = 30.0
STEP_S = 1.0  # samples closer than this to the one before are replaced by the next


@dataclass(slots=True)
class Window:
    """Samples of a counter, oldest first."""

    _samples: deque[tuple[float, float]] = field(default_factory=deque)

    def add(self, now: float, total: float) -> None:
        """The counter's value now; one that goes backwards starts anew."""
        samples = self._samples
        if samples and total < samples[-1][1]:
            samples.clear()
        if len(samples) > 1 and samples[-1][0] - samples[-2][0] < STEP_S:
            samples.pop()
        samples.append((now, total))
        while len(samples) > 2 and samples[1][0] <= now - WINDOW_S:
            samples.popleft()

    def per_s(self) -> float | None:
        """Growth per second; None before there are two samples apart."""
        if not self._samples:
            return None
        (began, first), (ended, last) = self._samples[0], self._samples[-1]
        return (last - first) / (ended - began) if ended > began else None
