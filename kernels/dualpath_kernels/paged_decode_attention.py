"""Attention of one new token a request over paged KV, with grouped queries (GQA).

The pool of one layer is [P, 64, 2, K, D]: page, token, K or V, KV head, head size. Row b of the page table
lists the pages of request b in order; `lengths[b]` tokens of them are valid, the newest included. With a
window w only the last w tokens are seen.

On a GPU: split-KV (flash decoding). One kernel gives each (request, KV head, split of the pages) a partial
softmax, a second one merges the splits by their log-sum-exp.

On a CPU nothing is gathered; see paged_decode_cpu.py.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import torch

from dualpath_kernels.dispatch import LazyKernel, power_of_two, require, require_shape, use_triton
from dualpath_kernels.paged_decode_cpu import decode_on_cpu

if TYPE_CHECKING:
    import triton.language as tl

Tensor = torch.Tensor


def paged_decode_attention_reference(
    q_BQD: Tensor,
    pool_PT2KD: Tensor,
    page_table_BN: Tensor,
    lengths_B: Tensor,
    scale: float,
    window: int | None = None,
) -> Tensor:
    """The definition, in plain torch: gather the pages, full softmax in float32."""
    out = torch.zeros_like(q_BQD)
    for index, length in enumerate(lengths_B.tolist()):
        rows = pool_PT2KD[page_table_BN[index].long()].flatten(0, 1)[:length]
        rows = rows[max(0, length - window) :] if window else rows
        groups = q_BQD.shape[1] // rows.shape[2]
        k, v = (rows[:, side].float().repeat_interleave(groups, dim=1) for side in (0, 1))
        scores = torch.einsum("qd,tqd->qt", q_BQD[index].float(), k) * scale
        if length:
            out[index] = torch.einsum("qt,tqd->qd", scores.softmax(-1), v).to(out.dtype)
    return out


def paged_decode_attention(
    q_BQD: Tensor,
    pool_PT2KD: Tensor,
    page_table_BN: Tensor,
    lengths_B: Tensor,
    scale: float,
    window: int | None = None,
    *,
    backend: str | None = None,
) -> Tensor:
    """Return [B, Q, D]; a request of length 0 gets zeros.

    Args:
        q_BQD: one query token a request, RoPE applied.
        pool_PT2KD: contiguous pool of one layer.
        page_table_BN: int32, page ids; entries behind a request's last page are not read.
        lengths_B: int32, valid tokens of each request.
        scale: of the scores, usually D ** -0.5.
        window: how many of the last tokens are seen; None: all.
        backend: "torch", "triton", or None for the device's own.

    Raises:
        ValueError: shapes, dtypes or strides do not fit.
    """
    require(q_BQD.dim() == 3, f"q has shape {tuple(q_BQD.shape)}; pass [B, Q, D]")
    batch, heads, size = q_BQD.shape
    require(pool_PT2KD.dim() == 5, f"the pool has shape {tuple(pool_PT2KD.shape)}; pass [P, T, 2, K, D]")
    kv_heads = pool_PT2KD.shape[3]
    require_shape("pool", pool_PT2KD, (None, None, 2, kv_heads, size))
    require(pool_PT2KD.is_contiguous(), "the pool is strided; pass the whole contiguous pool of a layer")
    require(heads % kv_heads == 0, f"{heads} query heads over {kv_heads} KV heads; pass a multiple")
    require(q_BQD.dtype == pool_PT2KD.dtype, f"q is {q_BQD.dtype}, the pool {pool_PT2KD.dtype}; convert q")
    require_shape("page_table", page_table_BN, (batch, None))
    require_shape("lengths", lengths_B, (batch,))
    for name, tensor in (("page_table", page_table_BN), ("lengths", lengths_B)):
        require(tensor.dtype == torch.int32, f"{name} has dtype {tensor.dtype}; pass int32")
    require(window is None or window > 0, f"window is {window}; pass a positive number or None")
    if batch == 0:
        return torch.empty_like(q_BQD)
    arguments = (q_BQD, pool_PT2KD, page_table_BN, lengths_B, scale, window)
    if use_triton(q_BQD, backend):
        return _decode_triton(*arguments)
    if q_BQD.is_cuda:
        return paged_decode_attention_reference(*arguments)
    return decode_on_cpu(*arguments)


def _decode_triton(
    q_BQD: Tensor,
    pool_PT2KD: Tensor,
    page_table_BN: Tensor,
    lengths_B: Tensor,
    scale: float,
    window: int | None,
    splits: int | None = None,
) -> Tensor:
    """Launch both kernels; `splits` is for tests, None: enough programs to fill the device."""
    q_BQD = q_BQD.contiguous()
    batch, heads, size = q_BQD.shape
    _, page_tokens, _, kv_heads, _ = pool_PT2KD.shape
    pages = page_table_BN.shape[1]
    if splits is None:
        processors = torch.cuda.get_device_properties(q_BQD.device).multi_processor_count
        splits = max(1, min(pages, -(-4 * processors // (batch * kv_heads)), 128))
    groups = heads // kv_heads
    partial = torch.empty((batch, heads, splits, size), dtype=torch.float32, device=q_BQD.device)
    lse = torch.empty((batch, heads, splits), dtype=torch.float32, device=q_BQD.device)
    out = torch.empty_like(q_BQD)
    block_d = power_of_two(size)
    _split_kernel[(batch, kv_heads, splits)](
        q_BQD,
        pool_PT2KD,
        page_table_BN.contiguous(),
        lengths_B.contiguous(),
        partial,
        lse,
        pages,
        scale,
        window or 0,
        KV_HEADS=kv_heads,
        GROUPS=groups,
        SIZE=size,
        PAGE=page_tokens,
        # Tensor cores want at least 16 rows; unused ones are masked.
        BLOCK_G=max(16, power_of_two(groups)),
        BLOCK_T=power_of_two(page_tokens),
        BLOCK_D=block_d,
        # bfloat16 dot products of Triton's interpreter are wrong: there everything is widened first.
        WIDEN=q_BQD.dtype == torch.float32 or os.environ.get("TRITON_INTERPRET") == "1",
    )
    _merge_kernel[(batch * heads,)](
        partial,
        lse,
        out,
        splits,
        SIZE=size,
        BLOCK_S=power_of_two(splits),
        BLOCK_D=block_d,
    )
    return out


@LazyKernel
def _split_kernel(
    q_ptr,
    pool_ptr,
    table_ptr,
    lengths_ptr,
    partial_ptr,
    lse_ptr,
    pages,
    scale,
    window,
    KV_HEADS: tl.constexpr,
    GROUPS: tl.constexpr,
    SIZE: tl.constexpr,
    PAGE: tl.constexpr,
    BLOCK_G: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_D: tl.constexpr,
    WIDEN: tl.constexpr,
):
    """One program a (request, KV head, split): online softmax over the split's pages."""
    request = tl.program_id(0).to(tl.int64)
    kv_head = tl.program_id(1)
    split = tl.program_id(2)
    splits = tl.num_programs(2)
    length = tl.load(lengths_ptr + request)
    begin = 0
    if window > 0:
        begin = tl.maximum(length - window, 0)
    first_page = begin // PAGE
    last_page = (length + PAGE - 1) // PAGE
    share = (last_page - first_page + splits - 1) // splits
    first = first_page + split * share
    last = tl.minimum(first + share, last_page)

    groups = tl.arange(0, BLOCK_G)
    columns = tl.arange(0, BLOCK_D)
    tokens = tl.arange(0, BLOCK_T)
    heads = request * (KV_HEADS * GROUPS) + kv_head * GROUPS + groups
    inside = (groups < GROUPS)[:, None] & (columns < SIZE)[None, :]
    q = tl.load(q_ptr + heads[:, None] * SIZE + columns[None, :], mask=inside, other=0.0)
    if WIDEN:
        q = q.to(tl.float32)
    best = tl.full([BLOCK_G], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_G], tl.float32)
    acc = tl.zeros([BLOCK_G, BLOCK_D], tl.float32)
    places = tokens[:, None] * (2 * KV_HEADS * SIZE) + kv_head * SIZE + columns[None, :]
    for index in range(first, last):
        page = tl.load(table_ptr + request * pages + index).to(tl.int64)
        token = index * PAGE + tokens
        valid = (tokens < PAGE) & (token >= begin) & (token < length)
        mask = valid[:, None] & (columns < SIZE)[None, :]
        base = pool_ptr + page * (PAGE * 2 * KV_HEADS * SIZE)
        k = tl.load(base + places, mask=mask, other=0.0)
        v = tl.load(base + KV_HEADS * SIZE + places, mask=mask, other=0.0)
        if WIDEN:
            k = k.to(tl.float32)
            v = v.to(tl.float32)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        scores = tl.where(valid[None, :], scores, float("-inf"))
        peak = tl.maximum(best, tl.max(scores, 1))
        # A page may lie wholly outside of the window's first tokens only if the split is empty: peak is
        # finite.
        shrink = tl.exp(best - peak)
        weights = tl.exp(scores - peak[:, None])
        total = total * shrink + tl.sum(weights, 1)
        acc = acc * shrink[:, None] + tl.dot(weights.to(v.dtype), v, input_precision="ieee")
        best = peak
    empty = total == 0.0
    safe = tl.where(empty, 1.0, total)
    slots = heads * splits + split
    tl.store(partial_ptr + slots[:, None] * SIZE + columns[None, :], acc / safe[:, None], mask=inside)
    lse = tl.where(empty, float("-inf"), best + tl.log(safe))
    tl.store(lse_ptr + slots, lse, mask=groups < GROUPS)


@LazyKernel
def _merge_kernel(
    partial_ptr,
    lse_ptr,
    out_ptr,
    splits,
    SIZE: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One program a (request, head): the splits' mean, weighted by their share of the softmax."""
    head = tl.program_id(0).to(tl.int64)
    index = tl.arange(0, BLOCK_S)
    columns = tl.arange(0, BLOCK_D)
    lse = tl.load(lse_ptr + head * splits + index, mask=index < splits, other=float("-inf"))
    peak = tl.max(lse, 0)
    peak = tl.where(peak == float("-inf"), 0.0, peak)
    weights = tl.exp(lse - peak)
    total = tl.sum(weights, 0)
    mask = (index < splits)[:, None] & (columns < SIZE)[None, :]
    places = (head * splits + index)[:, None] * SIZE + columns[None, :]
    parts = tl.load(partial_ptr + places, mask=mask, other=0.0)
    merged = tl.sum(parts * weights[:, None], 0) / tl.where(total == 0.0, 1.0, total)
    tl.store(out_ptr + head * SIZE + columns, merged.to(out_ptr.dtype.element_ty), mask=columns < SIZE)
