"""RMSNorm, with the addition of the residual in the same pass over memory.

    r = x + residual;  normed = r / sqrt(mean(r^2) + eps) * weight        (Zhang and Sennrich, 2019)

The mean is taken in float32; the result is rounded to the input's type before the weight multiplies it, as
the reference implementations of all supported model families do. Rows may be [T, H], or [T, N, H] for norms
a head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from dualpath_kernels.dispatch import LazyKernel, power_of_two, require, require_shape, use_triton

if TYPE_CHECKING:
    import triton.language as tl

Tensor = torch.Tensor


def rms_norm_reference(
    x: Tensor, weight: Tensor, eps: float, residual: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The definition, in plain torch."""
    summed = x if residual is None else x + residual
    wide = summed.float()
    scale = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return (wide * scale).to(x.dtype) * weight, summed


def rms_norm(
    x: Tensor, weight: Tensor, eps: float, residual: Tensor | None = None, *, backend: str | None = None
) -> tuple[Tensor, Tensor]:
    """Return (normed, x + residual); without a residual the second is x itself.

    Args:
        x: [T, H] or [T, N, H]; the last dimension contiguous.
        weight: [H], or [N, H] for one weight a head.
        eps: added to the mean square.
        residual: shaped like x, or None.
        backend: "torch", "triton", or None for the device's own.

    Raises:
        ValueError: shapes or dtypes do not fit.
    """
    require(x.dim() in (2, 3), f"x has {x.dim()} dimensions; pass [T, H] or [T, N, H]")
    require(x.stride(-1) == 1, "the last dimension of x is strided; pass x.contiguous()")
    require(x.dtype == weight.dtype, f"x is {x.dtype} but weight {weight.dtype}; convert one")
    if weight.dim() == 2:
        require_shape("weight", weight, x.shape[1:])
    else:
        require_shape("weight", weight, x.shape[-1:])
    if residual is not None:
        require_shape("residual", residual, x.shape)
        require(residual.dtype == x.dtype, f"residual is {residual.dtype}; convert it to {x.dtype}")
    if use_triton(x, backend):
        return _rms_norm_triton(x, weight, eps, residual)
    if x.dtype == torch.float32:
        summed = x if residual is None else x + residual
        if weight.dim() == 1:
            return F.rms_norm(summed, x.shape[-1:], weight, eps), summed
        return F.rms_norm(summed, x.shape[-1:], None, eps).mul_(weight), summed
    return rms_norm_reference(x, weight, eps, residual)


def _rms_norm_triton(x: Tensor, weight: Tensor, eps: float, residual: Tensor | None) -> tuple[Tensor, Tensor]:
    rows, heads, size = (x.shape[0], 1, x.shape[1]) if x.dim() == 2 else tuple(x.shape)
    normed = torch.empty_like(x, memory_format=torch.contiguous_format)
    summed = x if residual is None else torch.empty_like(normed)
    if x.numel() == 0:
        return normed, summed
    added = None if residual is None else residual.contiguous()
    weight = weight.contiguous()
    block = power_of_two(size)
    _kernel[(rows * heads,)](
        x,
        x.stride(0),
        x.stride(1) if x.dim() == 3 else 0,
        weight,
        size if weight.dim() == 2 else 0,
        added,
        normed,
        summed,
        heads,
        size,
        eps,
        HAS_RESIDUAL=added is not None,
        BLOCK=block,
        num_warps=min(16, max(1, block // 512)),
    )
    return normed, summed


@LazyKernel
def _kernel(
    x_ptr,
    x_row,
    x_head,
    weight_ptr,
    weight_head,
    residual_ptr,
    normed_ptr,
    summed_ptr,
    heads,
    size,
    eps,
    HAS_RESIDUAL: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program a row of one head; the outputs are contiguous."""
    program = tl.program_id(0).to(tl.int64)
    row = program // heads
    head = program % heads
    columns = tl.arange(0, BLOCK)
    inside = columns < size
    x = tl.load(x_ptr + row * x_row + head * x_head + columns, mask=inside, other=0.0)
    if HAS_RESIDUAL:
        added = tl.load(residual_ptr + program * size + columns, mask=inside, other=0.0)
        x = (x.to(tl.float32) + added.to(tl.float32)).to(x.dtype)
        tl.store(summed_ptr + program * size + columns, x, mask=inside)
    wide = x.to(tl.float32)
    scale = tl.rsqrt(tl.sum(wide * wide, 0) / size + eps)
    weight = tl.load(weight_ptr + head * weight_head + columns, mask=inside, other=0.0)
    # Rounded before the product, and the product in float32: exact for two bfloat16, and the interpreter's
    # own bfloat16 arithmetic is wrong.
    normed = (wide * scale).to(x.dtype).to(tl.float32) * weight.to(tl.float32)
    tl.store(normed_ptr + program * size + columns, normed.to(x.dtype), mask=inside)
