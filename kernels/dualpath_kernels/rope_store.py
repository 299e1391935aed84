"""Rotary position embedding of q and k, and the store of k and v into KV rows, in one pass.

RoPE is the half-split form: the pairs are (x[i], x[i + D/2]). The rotation is computed in float32 and rounded
once. A KV row is [2, K, D]: k, then v, of all KV heads of one token. The same op writes a prefill's ring
(row = place in the ring) and the paged pool of a decode engine (the pool [P, 64, 2, K, D] seen as P * 64
rows; row = page * 64 + offset in the page).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from dualpath_kernels.dispatch import (
    LazyKernel,
    power_of_two,
    require,
    require_int64,
    require_shape,
    use_triton,
)

if TYPE_CHECKING:
    import triton.language as tl

Tensor = torch.Tensor


def rope_reference(x_TND: Tensor, cos_TC: Tensor, sin_TC: Tensor) -> Tensor:
    """Rotate the pairs (x[i], x[i + D/2]) of every head by the angles of its token; C = D/2."""
    cos, sin = cos_TC[:, None].float(), sin_TC[:, None].float()
    first, second = x_TND.float().chunk(2, dim=-1)
    rotated = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    return rotated.to(x_TND.dtype)


def rope_store_reference(
    q_TQD: Tensor,
    k_TKD: Tensor,
    v_TKD: Tensor,
    cos_MC: Tensor,
    sin_MC: Tensor,
    positions_T: Tensor,
    kv_rows_R2KD: Tensor,
    rows_T: Tensor,
) -> Tensor:
    """The definition, in plain torch."""
    cos, sin = cos_MC[positions_T], sin_MC[positions_T]
    kv_rows_R2KD[rows_T, 0] = rope_reference(k_TKD, cos, sin)
    kv_rows_R2KD[rows_T, 1] = v_TKD
    return rope_reference(q_TQD, cos, sin)


def rope_store(
    q_TQD: Tensor,
    k_TKD: Tensor,
    v_TKD: Tensor,
    cos_MC: Tensor,
    sin_MC: Tensor,
    positions_T: Tensor,
    kv_rows_R2KD: Tensor,
    rows_T: Tensor,
    *,
    backend: str | None = None,
) -> Tensor:
    """Return the rotated q [T, Q, D]; write the rotated k, and v, to kv_rows[rows[i]].

    Args:
        q_TQD: queries; the last two dimensions contiguous (a view of a packed qkv will do).
        k_TKD: keys, likewise.
        v_TKD: values, likewise.
        cos_MC: cosines of all positions, [positions, D/2], float32.
        sin_MC: sines, likewise.
        positions_T: int64, each token's position in its request.
        kv_rows_R2KD: contiguous rows, changed in place.
        rows_T: int64, each token's row; no row twice.
        backend: "torch", "triton", or None for the device's own.

    Raises:
        ValueError: shapes, dtypes or strides do not fit.
    """
    tokens, _, size = q_TQD.shape
    kv_heads = k_TKD.shape[1]
    require(size % 2 == 0, f"the head size is {size}; half-split RoPE needs an even one")
    require_shape("k", k_TKD, (tokens, kv_heads, size))
    require_shape("v", v_TKD, (tokens, kv_heads, size))
    require_shape("kv_rows", kv_rows_R2KD, (None, 2, kv_heads, size))
    require_shape("cos", cos_MC, (None, size // 2))
    require_shape("sin", sin_MC, cos_MC.shape)
    require_shape("positions", positions_T, (tokens,))
    require_shape("rows", rows_T, (tokens,))
    require_int64("positions", positions_T)
    require_int64("rows", rows_T)
    require(kv_rows_R2KD.is_contiguous(), "kv_rows is strided; pass the contiguous pool or ring itself")
    for name, tensor in (("q", q_TQD), ("k", k_TKD), ("v", v_TKD)):
        require(tensor.stride()[1:] == (size, 1), f"the heads of {name} are strided; make them contiguous")
        require(
            tensor.dtype == kv_rows_R2KD.dtype,
            f"{name} is {tensor.dtype} but kv_rows {kv_rows_R2KD.dtype}; convert one",
        )
    arguments = (q_TQD, k_TKD, v_TKD, cos_MC, sin_MC, positions_T, kv_rows_R2KD, rows_T)
    if use_triton(q_TQD, backend):
        return _rope_store_triton(*arguments)
    if q_TQD.dtype == torch.float32:
        return _rope_store_float32(*arguments)
    return rope_store_reference(*arguments)


def _rope_store_float32(
    q_TQD: Tensor,
    k_TKD: Tensor,
    v_TKD: Tensor,
    cos_MC: Tensor,
    sin_MC: Tensor,
    positions_T: Tensor,
    kv_rows_R2KD: Tensor,
    rows_T: Tensor,
) -> Tensor:
    """The reference with fewer passes: a decode step of one token is bound by the number of torch calls."""
    cos, sin = cos_MC[positions_T][:, None], sin_MC[positions_T][:, None]
    half = q_TQD.shape[2] // 2
    heads = q_TQD.shape[1]
    # q and k are usually neighbours in one packed projection: then one rotation serves both.
    packed = (
        k_TKD.data_ptr() == q_TQD.data_ptr() + heads * half * 2 * q_TQD.element_size()
        and q_TQD.stride() == k_TKD.stride()
        and q_TQD.untyped_storage().data_ptr() == k_TKD.untyped_storage().data_ptr()
    )
    if not packed:
        kv_rows_R2KD[rows_T, 0] = _rotate(k_TKD, cos, sin, half)
        kv_rows_R2KD[rows_T, 1] = v_TKD
        return _rotate(q_TQD, cos, sin, half)
    both = q_TQD.as_strided(
        (q_TQD.shape[0], heads + k_TKD.shape[1], 2 * half), q_TQD.stride(), q_TQD.storage_offset()
    )
    rotated = _rotate(both, cos, sin, half)
    kv_rows_R2KD.index_copy_(0, rows_T, torch.stack((rotated[:, heads:], v_TKD), dim=1))
    return rotated[:, :heads]


def _rotate(x_TND: Tensor, cos_T1C: Tensor, sin_T1C: Tensor, half: int) -> Tensor:
    first, second = x_TND[..., :half], x_TND[..., half:]
    out = torch.empty(x_TND.shape, dtype=x_TND.dtype, device=x_TND.device)
    low, high = out[..., :half], out[..., half:]
    torch.mul(first, cos_T1C, out=low).addcmul_(second, sin_T1C, value=-1)
    torch.mul(second, cos_T1C, out=high).addcmul_(first, sin_T1C)
    return out


def _rope_store_triton(
    q_TQD: Tensor,
    k_TKD: Tensor,
    v_TKD: Tensor,
    cos_MC: Tensor,
    sin_MC: Tensor,
    positions_T: Tensor,
    kv_rows_R2KD: Tensor,
    rows_T: Tensor,
) -> Tensor:
    tokens, heads, size = q_TQD.shape
    kv_heads = k_TKD.shape[1]
    rotated = torch.empty_like(q_TQD, memory_format=torch.contiguous_format)
    if tokens == 0:
        return rotated
    _kernel[(tokens,)](
        q_TQD,
        q_TQD.stride(0),
        k_TKD,
        k_TKD.stride(0),
        v_TKD,
        v_TKD.stride(0),
        cos_MC.contiguous(),
        sin_MC.contiguous(),
        positions_T,
        kv_rows_R2KD,
        rows_T,
        rotated,
        HEADS=heads,
        KV_HEADS=kv_heads,
        HALF=size // 2,
        BLOCK_Q=power_of_two(heads),
        BLOCK_K=power_of_two(kv_heads),
        BLOCK_C=power_of_two(size // 2),
    )
    return rotated


@LazyKernel
def _kernel(
    q_ptr,
    q_row,
    k_ptr,
    k_row,
    v_ptr,
    v_row,
    cos_ptr,
    sin_ptr,
    positions_ptr,
    kv_ptr,
    rows_ptr,
    out_ptr,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    HALF: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """One program a token: all its heads."""
    token = tl.program_id(0).to(tl.int64)
    position = tl.load(positions_ptr + token)
    columns = tl.arange(0, BLOCK_C)
    inside = columns < HALF
    cos = tl.load(cos_ptr + position * HALF + columns, mask=inside, other=0.0).to(tl.float32)[None, :]
    sin = tl.load(sin_ptr + position * HALF + columns, mask=inside, other=0.0).to(tl.float32)[None, :]

    heads = tl.arange(0, BLOCK_Q)
    places = heads[:, None] * (2 * HALF) + columns[None, :]
    mask = (heads < HEADS)[:, None] & inside[None, :]
    first = tl.load(q_ptr + token * q_row + places, mask=mask, other=0.0).to(tl.float32)
    second = tl.load(q_ptr + token * q_row + places + HALF, mask=mask, other=0.0).to(tl.float32)
    out = out_ptr + token * (HEADS * 2 * HALF) + places
    tl.store(out, (first * cos - second * sin).to(out_ptr.dtype.element_ty), mask=mask)
    tl.store(out + HALF, (second * cos + first * sin).to(out_ptr.dtype.element_ty), mask=mask)

    kv_heads = tl.arange(0, BLOCK_K)
    places = kv_heads[:, None] * (2 * HALF) + columns[None, :]
    mask = (kv_heads < KV_HEADS)[:, None] & inside[None, :]
    first = tl.load(k_ptr + token * k_row + places, mask=mask, other=0.0).to(tl.float32)
    second = tl.load(k_ptr + token * k_row + places + HALF, mask=mask, other=0.0).to(tl.float32)
    key = kv_ptr + tl.load(rows_ptr + token) * (4 * KV_HEADS * HALF) + places
    tl.store(key, (first * cos - second * sin).to(kv_ptr.dtype.element_ty), mask=mask)
    tl.store(key + HALF, (second * cos + first * sin).to(kv_ptr.dtype.element_ty), mask=mask)
    value = key + KV_HEADS * 2 * HALF
    tl.store(value, tl.load(v_ptr + token * v_row + places, mask=mask), mask=mask)
    tl.store(value + HALF, tl.load(v_ptr + token * v_row + places + HALF, mask=mask), mask=mask)
