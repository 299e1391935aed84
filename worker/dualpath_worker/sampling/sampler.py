"""The next token of every row of a batch.

Order: penalties and bias (penalties.py), then greedy argmax, or temperature, top_k, top_p, min_p (filters.py)
and one draw by inverse cumulative sum with a number keyed by (seed, choice, position) (streams.py). Nothing
depends on the other rows. Log-probabilities are those of the model: no temperature, no penalty, no bias.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from dualpath_api.wire import Sampling
from dualpath_worker.sampling.filters import candidates
from dualpath_worker.sampling.penalties import has_penalties, penalised
from dualpath_worker.sampling.streams import uniform

Tensor = torch.Tensor
MAX_LOGPROBS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What one row of logits belongs to."""

    sampling: Sampling
    choice: int = 0
    position: int  # of the token to be drawn, counted from the begin of the prompt
    prompt: Sequence[int] = ()  # the client's; read only for a repetition penalty
    generated: Sequence[int] = ()  # so far; read only for penalties


@dataclass(frozen=True, slots=True)
class Pick:
    """A drawn token; log-probabilities only if asked for."""

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()  # (id, logprob), most likely first


def sample(logits_NV: Tensor, rows: Sequence[Row]) -> list[Pick]:
    """One token a row.

    Args:
        logits_NV: float32, on any device; not changed.
        rows: as many as rows of logits.

    Raises:
        ValueError: the numbers of rows differ, or more than MAX_LOGPROBS are asked for.
    """
    if len(rows) != len(logits_NV):
        raise ValueError(f"{len(logits_NV)} rows of logits for {len(rows)} requests; pass one row each")
    best = logits_NV.argmax(-1).tolist() if any(_is_plain_greedy(row) for row in rows) else []
    picks = []
    for index, row in enumerate(rows):
        token = best[index] if _is_plain_greedy(row) else _draw(logits_NV[index], row)
        picks.append(Pick(token, *_logprobs(logits_NV[index], token, row.sampling.logprobs)))
    return picks


def _is_plain_greedy(row: Row) -> bool:
    return row.sampling.temperature <= 0.0 and not has_penalties(row.sampling)


def _draw(logits_V: Tensor, row: Row) -> int:
    """The token of one row that needs more than an argmax of the batch."""
    sampling = row.sampling
    if has_penalties(sampling):
        logits_V = penalised(logits_V, sampling, row.prompt, row.generated)
    if sampling.temperature <= 0.0:
        return int(logits_V.argmax())
    ids, weights = candidates(logits_V.cpu(), sampling)
    sums = weights.cumsum(0)
    point = uniform(sampling.seed, row.choice, row.position) * sums[-1]
    place = int(torch.searchsorted(sums, point, right=True))
    return int(ids[min(place, len(ids) - 1)])


def _logprobs(
    logits_V: Tensor, token: int, count: int | None
) -> tuple[float | None, tuple[tuple[int, float], ...]]:
    if count is None:
        return None, ()
    if count > MAX_LOGPROBS:
        raise ValueError(f"{count} log-probabilities a token; ask for at most {MAX_LOGPROBS}")
    logprobs = logits_V.float().log_softmax(-1)
    values, ids = logprobs.topk(min(count, len(logprobs)))
    return float(logprobs[token]), tuple(zip(ids.tolist(), values.tolist(), strict=True))
