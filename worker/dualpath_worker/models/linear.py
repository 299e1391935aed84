"""y = x W^T + b, with weights laid out for the machine once, at load.

On a CPU torch's own matmul leaves much of the memory bandwidth unused when there are few rows; oneDNN with
weights in its blocked layout does not. Measured (float32, 768 -> 4608, weights in memory not cache, one
thread / two threads, ms for 12 of them): 1 row 10.2 / 9.4 against 7.9 / 6.7; 8 rows 17.3 / 17.6 against 8.5
/ 5.1; 64 rows 58 / 42 against 37 / 34; 512 rows 343 / 300 against 262 / 132. The blocked copy replaces the
plain weight, so the memory is the same. Small matrices stay plain: a oneDNN call costs 25 microseconds more.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

Tensor = torch.Tensor
Linear = Callable[[Tensor], Tensor]
_WORTH_PACKING = 1 << 18  # elements


def make_linear(weight_ON: Tensor, bias_O: Tensor | None = None) -> Linear:
    """A function [T, N] -> [T, O]; the weight should not be used elsewhere afterwards."""
    if _can_pack(weight_ON):
        packed = torch.ops.mkldnn._reorder_linear_weight(weight_ON, None)
        run = torch.ops.mkldnn._linear_pointwise.default

        def linear(x_TN: Tensor) -> Tensor:
            y: Tensor = run(x_TN, packed, bias_O, "none", [], "")
            return y

        return linear
    return lambda x_TN: F.linear(x_TN, weight_ON, bias_O)


def _can_pack(weight: Tensor) -> bool:
    if not weight.is_cpu or weight.numel() < _WORTH_PACKING or not torch._C._has_mkldnn:
        return False
    supported = weight.dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return bool(supported) and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
