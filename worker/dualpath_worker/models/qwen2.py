"""Qwen2 and Qwen2.5: bias on q, k and v; an optional sliding window, off in all published checkpoints."""

from __future__ import annotations

from dualpath_worker.models.config import Fields, Traits
from dualpath_worker.models.windows import layered_window


def traits(fields: Fields) -> Traits:
    """What the config says, where it differs from a plain decoder."""
    return Traits(qkv_bias=True, window=layered_window(fields))
