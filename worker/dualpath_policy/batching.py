"""How many tokens of which requests a prefill engine computes next.

Source: DualPath, arXiv 2602.21548v2, section 6.2: FIFO batches whose predicted attention time stays within
the compute quota; the request that would exceed it is cut by binary search (chunked prefill).
Model:  t = a0 + sum over requests of a1*q + a2*(q + c) + a3*q*(q + c), with q new and c cached tokens; all
coefficients >= 0, so the time never falls when tokens are added, which the binary search relies on.
Units:  tokens and seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

Batch = Sequence[tuple[int, int]]
"""(cached, new) tokens of each request."""


@dataclass(frozen=True, slots=True)
class AttentionTime:
    """Predicted seconds of a batch."""

    a0: float = 0.0
    a1: float = 0.0
    a2: float = 0.0
    a3: float = 0.0

    def predict(self, batch: Batch) -> float:
        """Seconds that `batch` takes; an empty batch takes none."""
        if not batch:
            return 0.0
        return sum(a * f for a, f in zip((self.a0, self.a1, self.a2, self.a3), _features(batch), strict=True))

    def corrected(self, predicted_s: float, measured_s: float) -> AttentionTime:
        """The same shape, moved a fifth of the way towards a measurement, of which 10x is believed at most.

        What was measured at start may have been measured on a busy machine, and the load changes.
        """
        if predicted_s <= 0 or measured_s <= 0:
            return self
        factor = 1 + 0.2 * (min(10.0, max(0.1, measured_s / predicted_s)) - 1)
        return AttentionTime(self.a0 * factor, self.a1 * factor, self.a2 * factor, self.a3 * factor)

    @classmethod
    def fit(cls, samples: Sequence[tuple[Batch, float]]) -> AttentionTime:
        """Least squares of the relative error with all coefficients >= 0, from (batch, measured seconds).

        Exact: with four coefficients every set of those that are not zero is tried. Raises ValueError without
        a usable sample (a batch and a time above zero).
        """
        usable = [(batch, seconds) for batch, seconds in samples if batch and seconds > 0]
        if not usable:
            raise ValueError("no sample with a batch and a time above zero")
        rows = [tuple(f / seconds for f in _features(batch)) for batch, seconds in usable]
        scale = [max(row[i] for row in rows) or 1.0 for i in range(4)]
        rows = [tuple(f / s for f, s in zip(row, scale, strict=True)) for row in rows]
        best: tuple[float, tuple[float, ...]] = (float(len(rows)), (0.0,) * 4)
        for size in range(1, 5):
            for columns in combinations(range(4), size):
                best = min(best, _solve(rows, columns) or best)
        return cls(*(a / s for a, s in zip(best[1], scale, strict=True)))


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadyRequest:
    """A request that can be computed now; cached counts hits and earlier chunks."""

    request: str
    cached: int
    remaining: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """The next `tokens` tokens of a request."""

    request: str
    tokens: int


def next_batch(
    ready: Iterable[ReadyRequest], quota_s: float, max_tokens: int, model: AttentionTime, least: int = 1
) -> list[Chunk]:
    """FIFO while the predicted time stays within the quota.

    The head gets at least `least` tokens (or what it has, or `max_tokens`), so that a long context does not
    crawl on token by token when it alone exceeds the quota: a batch has costs that the quota does not see.
    """
    chunks: list[Chunk] = []
    batch: list[tuple[int, int]] = []
    left = max(1, max_tokens)
    for item in ready:
        if left == 0:
            break
        tokens = _fitting(item, batch, quota_s, min(item.remaining, left), model)
        if not chunks and item.remaining > 0:
            tokens = max(tokens, min(max(1, least), item.remaining, left))
        if tokens > 0:
            chunks.append(Chunk(request=item.request, tokens=tokens))
            batch.append((item.cached, tokens))
            left -= tokens
        if tokens < item.remaining:
            break
    return chunks


def _fitting(
    item: ReadyRequest, batch: list[tuple[int, int]], quota_s: float, most: int, model: AttentionTime
) -> int:
    """The largest number of tokens, 0 to `most`, with which the batch stays within the quota."""

    def fits(tokens: int) -> bool:
        return model.predict([*batch, (item.cached, tokens)]) <= quota_s

    if most <= 0 or fits(most):
        return max(0, most)
    low, high = 0, most  # `low` fits or is 0; `high` does not fit
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _features(batch: Batch) -> tuple[float, float, float, float]:
    return (
        1.0,
        float(sum(new for _, new in batch)),
        float(sum(new + cached for cached, new in batch)),
        float(sum(new * (new + cached) for cached, new in batch)),
    )


def _solve(rows: list[tuple[float, ...]], columns: tuple[int, ...]) -> tuple[float, tuple[float, ...]] | None:
    """(squared error, coefficients) of the least squares fit of 1.0 by these columns; None: no fit >= 0."""
    size = len(columns)
    matrix = [
        [sum(row[i] * row[j] for row in rows) for j in columns] + [sum(row[i] for row in rows)]
        for i in columns
    ]
    for pivot in range(size):
        best = max(range(pivot, size), key=lambda r: abs(matrix[r][pivot]))
        matrix[pivot], matrix[best] = matrix[best], matrix[pivot]
        if abs(matrix[pivot][pivot]) < 1e-12 * len(rows):
            return None
        for r in range(size):
            if r != pivot:
                factor = matrix[r][pivot] / matrix[pivot][pivot]
                matrix[r] = [x - factor * y for x, y in zip(matrix[r], matrix[pivot], strict=True)]
    found = [matrix[i][size] / matrix[i][i] for i in range(size)]
    if min(found) < 0:
        return None
    coefficients = [0.0] * 4
    for column, value in zip(columns, found, strict=True):
        coefficients[column] = value
    error = sum((sum(a * f for a, f in zip(coefficients, row, strict=True)) - 1.0) ** 2 for row in rows)
    return error, tuple(coefficients)
