"""Causal attention of a ragged prefill batch over contiguous KV rows, with grouped queries (GQA).

Each segment is one request: its queries are rows [q_start, q_start + q_len) of q, its keys and values rows
[kv_start, kv_start + kv_len) of the ring, the queries' own rows last. Query i sees the segment's KV
positions up to kv_len - q_len + i; with a window w only the last w of these.

The KV of one layer is contiguous, so torch's own fused attention runs on strided views of it. On a CPU the
part that all queries see is computed without a mask, heads of a group as further queries, and merged with the
causal part by log-sum-exp: 256 queries over 4096 + 256 rows (12/4/64 heads, float32, one thread) take 80 ms,
with one bottom-right mask 143 ms, with batched matmuls 208 ms. Elsewhere, and with a window, queries go in
chunks, because that mask is an explicit tensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F

from dualpath_kernels.dispatch import require, require_shape

Tensor = torch.Tensor
_MASK_ELEMENTS = 1 << 22  # of one chunk's mask: 4 MB of booleans


class Segment(NamedTuple):
    """Where one request's queries and KV rows lie."""

    q_start: int
    q_len: int
    kv_start: int
    kv_len: int


def prefill_attention_reference(
    q_TQD: Tensor,
    kv_rows_R2KD: Tensor,
    segments: Sequence[tuple[int, int, int, int]],
    scale: float,
    window: int | None = None,
) -> Tensor:
    """The definition, in plain torch: full scores in float32."""
    out = torch.zeros_like(q_TQD)
    for q_start, q_len, kv_start, kv_len in segments:
        rows = kv_rows_R2KD[kv_start : kv_start + kv_len].float()
        groups = q_TQD.shape[1] // rows.shape[2]
        k, v = (rows[:, side].repeat_interleave(groups, dim=1) for side in (0, 1))
        q = q_TQD[q_start : q_start + q_len].float()
        scores = torch.einsum("sqd,tqd->qst", q, k) * scale
        scores = scores.masked_fill(
            ~_visible(0, q_len, 0, kv_len, kv_len - q_len, window, q.device), -torch.inf
        )
        out[q_start : q_start + q_len] = torch.einsum("qst,tqd->sqd", scores.softmax(-1), v).to(out.dtype)
    return out


def prefill_attention(
    q_TQD: Tensor,
    kv_rows_R2KD: Tensor,
    segments: Sequence[tuple[int, int, int, int]],
    scale: float,
    window: int | None = None,
) -> Tensor:
    """Return [T, Q, D]; rows of q that are in no segment get zeros.

    Args:
        q_TQD: queries of all requests, RoPE applied.
        kv_rows_R2KD: KV rows of the layer, RoPE applied.
        segments: (q_start, q_len, kv_start, kv_len) of each request.
        scale: of the scores, usually D ** -0.5.
        window: how many of the last positions a query sees, its own included; None: all.

    Raises:
        ValueError: shapes, dtypes or segments do not fit.
    """
    tokens, heads, size = q_TQD.shape
    kv_heads = kv_rows_R2KD.shape[2]
    require_shape("kv_rows", kv_rows_R2KD, (None, 2, kv_heads, size))
    require(heads % kv_heads == 0, f"{heads} query heads over {kv_heads} KV heads; pass a multiple")
    require(
        q_TQD.dtype == kv_rows_R2KD.dtype, f"q is {q_TQD.dtype}, the rows {kv_rows_R2KD.dtype}; convert q"
    )
    require(window is None or window > 0, f"window is {window}; pass a positive number or None")
    covered = 0
    for q_start, q_len, kv_start, kv_len in segments:
        require(
            q_start >= 0 and q_start + q_len <= tokens and 0 <= q_len <= kv_len,
            f"segment queries [{q_start}, +{q_len}) with {kv_len} KV rows; stay within {tokens} query rows",
        )
        require(
            kv_start >= 0 and kv_start + kv_len <= len(kv_rows_R2KD),
            f"segment KV [{kv_start}, +{kv_len}); stay within {len(kv_rows_R2KD)} rows",
        )
        covered += q_len
    out = torch.empty_like(q_TQD, memory_format=torch.contiguous_format)
    if covered < tokens:
        out.zero_()
    for segment in map(Segment._make, segments):
        past = segment.kv_len - segment.q_len
        if q_TQD.is_cpu and window is None and past and segment.q_len > 1:
            _attend_merged(q_TQD, kv_rows_R2KD, segment, scale, out)
        else:
            _attend_masked(q_TQD, kv_rows_R2KD, segment, scale, window, out)
    return out


def _attend_merged(
    q_TQD: Tensor, kv_rows_R2KD: Tensor, segment: Segment, scale: float, out_TQD: Tensor
) -> None:
    """One segment on a CPU: all earlier rows without a mask, its own rows causally, merged."""
    q_start, q_len, kv_start, kv_len = segment
    heads, size = q_TQD.shape[1:]
    kv_heads = kv_rows_R2KD.shape[2]
    groups = heads // kv_heads
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    q_SQD = q_TQD[q_start : q_start + q_len]
    rows = kv_rows_R2KD[kv_start : kv_start + kv_len]
    k, v = (rows[: kv_len - q_len, side].transpose(0, 1)[None] for side in (0, 1))
    grouped = q_SQD.view(q_len, kv_heads, groups, size).permute(1, 2, 0, 3).reshape(1, kv_heads, -1, size)
    earlier, earlier_lse = fused(grouped, k, v, 0.0, False, scale=scale)
    k, v = (
        rows[kv_len - q_len :, side].repeat_interleave(groups, dim=1).transpose(0, 1)[None] for side in (0, 1)
    )
    own, own_lse = fused(q_SQD.transpose(0, 1)[None], k, v, 0.0, True, scale=scale)
    share = torch.sigmoid(earlier_lse.reshape(heads, q_len) - own_lse.reshape(heads, q_len))[..., None]
    merged = torch.lerp(own[0].float(), earlier.reshape(heads, q_len, size).float(), share)
    out_TQD[q_start : q_start + q_len] = merged.transpose(0, 1)


def _attend_masked(
    q_TQD: Tensor, kv_rows_R2KD: Tensor, segment: Segment, scale: float, window: int | None, out_TQD: Tensor
) -> None:
    """One segment, its queries in chunks; a chunk reads only the keys that one of its queries sees."""
    q_start, q_len, kv_start, kv_len = segment
    past = kv_len - q_len
    place = 0
    while place < q_len:
        end = min(q_len, place + max(64, _MASK_ELEMENTS // kv_len))
        first = max(0, past + place + 1 - window) if window else 0
        last = past + end
        q = q_TQD[q_start + place : q_start + end].transpose(0, 1)[None]
        rows = kv_rows_R2KD[kv_start + first : kv_start + last]
        k, v = (rows[:, side].transpose(0, 1)[None] for side in (0, 1))
        square = last - first == end - place and (window is None or window >= kv_len)
        mask = None
        if not square and end - place != 1:
            mask = _visible(place, end, first, last, past, window, q.device)
        result = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=square, scale=scale, enable_gqa=q.shape[1] != k.shape[1]
        )
        out_TQD[q_start + place : q_start + end] = result[0].transpose(0, 1)
        place = end


def _visible(
    q_first: int,
    q_last: int,
    kv_first: int,
    kv_last: int,
    past: int,
    window: int | None,
    device: torch.device,
) -> Tensor:
    """Boolean [queries, keys]: which keys each query sees."""
    queries = torch.arange(q_first + past, q_last + past, device=device)[:, None]
    keys = torch.arange(kv_first, kv_last, device=device)[None, :]
    visible = keys <= queries
    return visible & (keys > queries - window) if window else visible
