"""Llama 2 and 3: the plain decoder; biases only if asked for; Llama 3 stretches the RoPE frequencies."""

from __future__ import annotations

from dualpath_worker.models.config import Fields, Traits


def traits(fields: Fields) -> Traits:
    """What the config says, where it differs from a plain decoder."""
    bias = fields.flag("attention_bias")
    return Traits(qkv_bias=bias, o_bias=bias, mlp_bias=fields.flag("mlp_bias"))
