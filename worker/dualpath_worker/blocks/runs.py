"""Picking free indices so that neighbours stay together.

Consecutive slots merge into one descriptor in a transfer, and consecutive pages can be attended to as one
view without a gather. Cost: a few numpy passes over the mask, about 20 us for 10,000 entries.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def pick(free: NDArray[np.bool_], n: int, *, after: int | None = None) -> list[int] | None:
    """`n` indices where `free` is true, or None if there are fewer.

    Tried in this order: the run that begins at `after + 1`; the shortest run that holds `n` (best fit, so
    long runs survive); else the longest runs first, so that the answer has few pieces. Lowest index wins a
    tie.
    """
    if n == 0:
        return []
    if after is not None and n <= free.size - after - 1 and bool(free[after + 1 : after + 1 + n].all()):
        return list(range(after + 1, after + 1 + n))
    edges = np.flatnonzero(np.diff(free.astype(np.int8), prepend=0, append=0))
    starts, lengths = edges[::2], edges[1::2] - edges[::2]
    if int(lengths.sum()) < n:
        return None
    fitting = np.flatnonzero(lengths >= n)
    if fitting.size:
        start = int(starts[fitting[np.argmin(lengths[fitting])]])
        return list(range(start, start + n))
    return _longest_first(starts, lengths, n)


def _longest_first(starts: NDArray[np.intp], lengths: NDArray[np.intp], n: int) -> list[int]:
    picked: list[int] = []
    for run in np.argsort(-lengths, kind="stable"):
        take = min(n - len(picked), int(lengths[run]))
        picked.extend(range(int(starts[run]), int(starts[run]) + take))
        if len(picked) == n:
            break
    return sorted(picked)
