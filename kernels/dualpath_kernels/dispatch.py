"""What every op shares: the choice of a backend, argument checks, and Triton kernels compiled at first use.

A backend is "torch" (plain torch, any device) or "triton". Without a choice by the caller, tensors on a CUDA
device go to Triton and all others to torch. On a CPU the Triton backend works only in Triton's interpreter
(TRITON_INTERPRET=1 set before the process starts), which is how the kernels are tested without a GPU.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import torch

BACKENDS = ("torch", "triton")


def use_triton(tensor: torch.Tensor, backend: str | None) -> bool:
    """Whether the Triton kernel runs. Raises ValueError on an unknown or impossible backend."""
    if backend is None:
        return tensor.is_cuda
    if backend not in BACKENDS:
        raise ValueError(f"backend {backend!r} does not exist; use one of {', '.join(BACKENDS)} or None")
    if backend == "triton" and not tensor.is_cuda and os.environ.get("TRITON_INTERPRET") != "1":
        raise ValueError("the triton backend needs CUDA tensors; on a CPU set TRITON_INTERPRET=1 first")
    return backend == "triton"


def require(condition: bool, message: str) -> None:
    """Raise ValueError(message) unless `condition` holds; the message says what to pass instead."""
    if not condition:
        raise ValueError(message)


def require_shape(name: str, tensor: torch.Tensor, shape: Sequence[int | None]) -> None:
    """Raise ValueError unless the tensor has this shape; None stands for any size."""
    fits = tensor.dim() == len(shape) and all(
        want is None or want == have for want, have in zip(shape, tensor.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}; pass one of shape ({wanted})")


def require_int64(name: str, tensor: torch.Tensor) -> None:
    """Raise ValueError unless the tensor holds int64: offsets in a large pool pass 2**31."""
    require(tensor.dtype == torch.int64, f"{name} has dtype {tensor.dtype}; pass int64")


def power_of_two(size: int) -> int:
    """The smallest power of two that is not below `size`; Triton's blocks have such sizes."""
    return 1 << max(0, size - 1).bit_length()


class LazyKernel:
    """A Triton kernel that imports Triton when it is first launched: `kernel[grid](...)`.

    An engine on a CPU never launches one, so it never pays for the import (about half a second). The source
    of the kernel names Triton's language `tl`, which is put into its module at that time.
    """

    def __init__(self, function: Callable[..., None]) -> None:
        self.function = function
        self.__doc__ = function.__doc__
        self._compiled: Any = None

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        """The launcher for a grid of programs."""
        if self._compiled is None:
            import triton
            import triton.language as tl

            self.function.__globals__["tl"] = tl
            self._compiled = triton.jit(self.function)
        return self._compiled[grid]
