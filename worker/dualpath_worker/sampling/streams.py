"""Random numbers that depend on nothing but (seed, choice, position).

A counter-based generator (Philox, Salmon et al. 2011) is placed at the key and the counter directly: no state
is kept, so any engine at any attempt continues the stream, and other requests of the batch do not matter.
"""

from __future__ import annotations

import numpy as np

_WORD = (1 << 64) - 1


def uniform(seed: int, choice: int, position: int) -> float:
    """A number in [0, 1) with 53 random bits."""
    bits = np.random.Philox(
        key=np.array([seed & _WORD, choice & _WORD], dtype=np.uint64),
        counter=np.array([0, position & _WORD, 0, 0], dtype=np.uint64),
    )
    return float(np.random.Generator(bits).random())
