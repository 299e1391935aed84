"""Cosines and sines of every position of the context, in float32.

Plain: angle(p, i) = p * theta^(-2i/D). Llama 3 stretches the long wavelengths by `factor`, leaves the short
ones and blends in between (Meta's Llama 3.1 release; the same formula as in transformers' rope_type
"llama3").
"""

from __future__ import annotations

import math

import torch

from dualpath_worker.models.config import Rope

Tensor = torch.Tensor


def frequencies(rope: Rope, head_dim: int) -> Tensor:
    """Radians a position of each pair: [D/2], float32."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim
    plain = 1.0 / (rope.theta**exponents)
    if rope.factor is None:
        return plain
    wavelengths = 2 * math.pi / plain
    long = rope.original_context / rope.low_freq_factor
    short = rope.original_context / rope.high_freq_factor
    blend = (rope.original_context / wavelengths - rope.low_freq_factor) / (
        rope.high_freq_factor - rope.low_freq_factor
    )
    between = (1 - blend) * plain / rope.factor + blend * plain
    stretched = torch.where(wavelengths > long, plain / rope.factor, plain)
    return torch.where((wavelengths <= long) & (wavelengths >= short), between, stretched)


def rope_tables(rope: Rope, head_dim: int, positions: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(cos, sin), each [positions, D/2]."""
    angles = torch.outer(torch.arange(positions, dtype=torch.float32), frequencies(rope, head_dim))
    return angles.cos().to(device), angles.sin().to(device)
