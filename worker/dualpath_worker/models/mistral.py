"""Mistral: the plain decoder, with a sliding window on every layer if the config sets one."""

from __future__ import annotations

from dualpath_worker.models.config import Fields, Traits
from dualpath_worker.models.windows import uniform_window


def traits(fields: Fields) -> Traits:
    """What the config says, where it differs from a plain decoder."""
    return Traits(window=uniform_window(fields))
