"""Which tokens may be drawn and with what weight: temperature, then top_k, then top_p, then min_p.

The order is that of transformers. Each filter sees what the ones before it left, renormalised; at least the
most likely token stays. Kept ids are in ascending order, so that the place of a token in the cumulative sum
does not hang on the rounding of another token's probability.
"""

from __future__ import annotations

import torch

from dualpath_api.wire import Sampling

Tensor = torch.Tensor
_HEAD = 1024  # most nuclei are smaller; a full sort of the vocabulary costs milliseconds


def candidates(logits_V: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """(ids ascending, weights float64, not normalised) of a row; temperature must be above 0."""
    wide = logits_V.double()
    weights = torch.exp((wide - wide.max()) / sampling.temperature)
    size = len(weights)
    top_k = min(sampling.top_k, size) if sampling.top_k > 0 else size
    if top_k == size and sampling.top_p >= 1.0:
        return _min_p(torch.arange(size), weights, sampling.min_p)
    best, ids = _descending(weights, top_k, sampling.top_p)
    if sampling.top_p < 1.0:
        total = best.sum() if top_k < size else weights.sum()
        before = best.cumsum(0) - best  # mass of all likelier tokens
        kept = max(1, int((before < sampling.top_p * total).sum()))
        best, ids = best[:kept], ids[:kept]
    ids, order = ids.sort()
    return _min_p(ids, best[order], sampling.min_p)


def _descending(weights: Tensor, top_k: int, top_p: float) -> tuple[Tensor, Tensor]:
    """The `top_k` largest weights; fewer when these already hold the share `top_p`."""
    if top_k > _HEAD:
        best, ids = weights.topk(_HEAD)
        if best.sum() >= top_p * weights.sum() and top_k == len(weights):
            return best, ids
    best, ids = weights.topk(top_k)
    return best, ids


def _min_p(ids: Tensor, weights: Tensor, min_p: float) -> tuple[Tensor, Tensor]:
    if min_p <= 0.0:
        return ids, weights
    kept = weights >= min_p * weights.max()
    return ids[kept], weights[kept]
