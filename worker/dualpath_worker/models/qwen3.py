"""Qwen3: RMSNorm on each head's q and k before RoPE, a head size of its own, bias only if asked for."""

from __future__ import annotations

from dualpath_worker.models.config import Fields, Traits
from dualpath_worker.models.windows import layered_window


def traits(fields: Fields) -> Traits:
    """What the config says, where it differs from a plain decoder."""
    bias = fields.flag("attention_bias")
    return Traits(
        qkv_bias=bias, o_bias=bias, qk_norm=True, window=layered_window(fields), default_head_dim=128
    )
