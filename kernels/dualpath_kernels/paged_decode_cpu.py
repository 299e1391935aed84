"""The CPU path of paged decode attention, in torch calls that read the pool where it lies.

Scores: pages that follow each other in the pool are one strided view, so each such run of a request is one
batched matmul. Values: a weighted sum of pool rows, chosen by number, is what embedding_bag computes; one
call serves all heads of all requests, whatever their pages.

Measured (float32, 12/4/64 heads, 8 requests of 1024 tokens, ms a layer on a busy machine, one thread / two;
reading the KV once takes 0.6 / 0.4): bmm on views for both sides 3.1 / 5.4; bmm and embedding_bag 3.0 / 3.0;
torch SDPA a request on views 3.9 / 3.1; SDPA on equal lengths in one call 3.6 / 2.7; chunks copied to a
padded scratch, with partial softmaxes 3.2 / 7.7; matmuls of the whole batch 9.8 / 8.2; embedding_bag's
gradient for the scores 4.3 / 6.6. The values alone: bmm 1.7 / 1.5, embedding_bag 1.1 / 0.6.

Half precision is converted first: matmuls of that kind on strided views are several times slower.
"""

from __future__ import annotations

import threading
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

Tensor = torch.Tensor
_WAVE = 1 << 22  # weights of one embedding_bag call; bounds the memory of scores and indices
_memory = threading.local()


class Part(NamedTuple):
    """One request in a wave."""

    request: int
    place: int  # of its weights [Q, tokens] in the wave
    tokens: int
    runs: list[tuple[int, int]]  # ranges of pool rows, together `tokens` long


class Wave(NamedTuple):
    """Consecutive requests that share one embedding_bag call."""

    parts: list[Part]
    indices: Tensor  # of [D]-sized pool rows, one a weight
    offsets: Tensor  # begin of each (request, head)
    entries: int


def decode_on_cpu(
    q_BQD: Tensor,
    pool_PT2KD: Tensor,
    page_table_BN: Tensor,
    lengths_B: Tensor,
    scale: float,
    window: int | None,
) -> Tensor:
    """The op, arguments checked already."""
    batch, heads, size = q_BQD.shape
    _, page_tokens, _, kv_heads, _ = pool_PT2KD.shape
    q_BKGD = (q_BQD.float() * scale).view(batch, kv_heads, heads // kv_heads, size)
    plan = _plan(page_table_BN.numpy(), lengths_B.numpy(), page_tokens, kv_heads, heads, window)
    if pool_PT2KD.dtype != torch.float32:
        return _decode_converted(q_BKGD, pool_PT2KD, plan).to(q_BQD.dtype)
    keys = pool_PT2KD.view(-1, 2, kv_heads, size)[:, 0].permute(1, 2, 0)
    outs = []
    for wave in plan:
        weights = torch.empty(wave.entries)
        for part in wave.parts:
            shape = (kv_heads, heads // kv_heads, part.tokens)
            scores = weights[part.place : part.place + heads * part.tokens].view(shape)
            _score(q_BKGD[part.request], keys, part.runs, scores)
        outs.append(
            F.embedding_bag(
                wave.indices, pool_PT2KD.view(-1, size), wave.offsets, mode="sum", per_sample_weights=weights
            )
        )
    return (outs[0] if len(outs) == 1 else torch.cat(outs)).view(q_BQD.shape)


def _score(q_KGD: Tensor, keys_KDR: Tensor, runs: list[tuple[int, int]], out_KGT: Tensor) -> None:
    """Softmax weights of one request; the query is scaled already."""
    if len(runs) == 1:
        first, last = runs[0]
        torch.bmm(q_KGD, keys_KDR[:, :, first:last], out=out_KGT)
    elif runs:
        torch.cat([torch.bmm(q_KGD, keys_KDR[:, :, a:b]) for a, b in runs], dim=-1, out=out_KGT)
    torch.softmax(out_KGT, dim=-1, out=out_KGT)


def _decode_converted(q_BKGD: Tensor, pool_PT2KD: Tensor, plan: list[Wave]) -> Tensor:
    """Gather a request's rows in float32, then two batched matmuls."""
    batch, kv_heads, groups, size = q_BKGD.shape
    rows = pool_PT2KD.view(-1, 2, kv_heads, size)
    out_BKGD = torch.zeros(q_BKGD.shape)
    for part in (part for wave in plan for part in wave.parts if part.runs):
        wide = torch.cat([rows[first:last] for first, last in part.runs]).float()
        scores = torch.bmm(q_BKGD[part.request], wide[:, 0].permute(1, 2, 0))
        torch.bmm(scores.softmax(-1), wide[:, 1].transpose(0, 1), out=out_BKGD[part.request])
    return out_BKGD.view(batch, kv_heads * groups, size)


def _plan(
    table_BN: np.ndarray,
    lengths_B: np.ndarray,
    page_tokens: int,
    kv_heads: int,
    heads: int,
    window: int | None,
) -> list[Wave]:
    """Where everything lies. All layers of a step ask with the same contents: the last answer is kept."""
    key = (
        table_BN.shape,
        table_BN.tobytes(),
        lengths_B.tobytes(),
        page_tokens,
        kv_heads,
        heads,
        window,
    )
    if getattr(_memory, "key", None) != key:
        _memory.plan = _make_plan(table_BN, lengths_B.tolist(), page_tokens, kv_heads, heads, window)
        _memory.key = key
    plan: list[Wave] = _memory.plan
    return plan


def _make_plan(
    table_BN: np.ndarray, lengths: list[int], page_tokens: int, kv_heads: int, heads: int, window: int | None
) -> list[Wave]:
    waves: list[list[Part]] = [[]]
    entries = 0
    for request, length in enumerate(lengths):
        begin = max(0, length - window) if window else 0
        tokens = length - begin
        if waves[-1] and entries + heads * tokens > _WAVE:
            waves.append([])
            entries = 0
        waves[-1].append(
            Part(request, entries, tokens, find_runs(table_BN[request], begin, length, page_tokens))
        )
        entries += heads * tokens
    return [_make_wave(parts, kv_heads, heads) for parts in waves]


def _make_wave(parts: list[Part], kv_heads: int, heads: int) -> Wave:
    """Row numbers of V in the pool seen as [.., D]: (row * 2 + 1) * K + head, for every query head."""
    numbers, offsets = [], []
    head_of = np.arange(heads, dtype=np.int64)[:, None] // (heads // kv_heads)
    for part in parts:
        rows = np.concatenate([np.empty(0, np.int64), *(np.arange(a, b) for a, b in part.runs)])
        numbers.append(((rows[None, :] * 2 + 1) * kv_heads + head_of).ravel())
        offsets.append(part.place + np.arange(heads, dtype=np.int64) * part.tokens)
    indices = np.concatenate(numbers)
    # Narrow numbers are half the traffic; a pool of 2**31 rows of V needs the wide ones.
    kind = np.int32 if len(indices) == 0 or indices.max() < 2**31 else np.int64
    return Wave(
        parts,
        torch.from_numpy(indices.astype(kind)),
        torch.from_numpy(np.concatenate(offsets).astype(kind)),
        len(indices),
    )


def find_runs(pages: np.ndarray, begin: int, end: int, page_tokens: int) -> list[tuple[int, int]]:
    """Row ranges [first, last) of the pool that hold tokens [begin, end), neighbours joined.

    Example: pages [4, 5, 9], 64 tokens a page, tokens [10, 150) -> [(266, 384), (576, 598)].
    """
    if end <= begin:
        return []
    used = pages[begin // page_tokens : -(-end // page_tokens)]
    cuts = [0, *(np.flatnonzero(np.diff(used) != 1) + 1).tolist(), len(used)]
    starts = [int(page) * page_tokens for page in used[cuts[:-1]]]
    runs = [
        (start, start + (b - a) * page_tokens) for start, (a, b) in zip(starts, pairwise(cuts), strict=True)
    ]
    runs[0] = (runs[0][0] + begin % page_tokens, runs[0][1])
    runs[-1] = (runs[-1][0], runs[-1][1] - (-end % page_tokens))
    return runs
