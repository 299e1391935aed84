"""When a choice ends: one rule for both engines."""

from __future__ import annotations

from dualpath_api import wire


def finish_of(sampling: wire.Sampling, token: int, generated: int) -> str | None:
    """Why a choice ends with this token, its `generated`th, or None."""
    if token in sampling.stop_token_ids:
        return "stop"
    return "length" if generated >= sampling.max_tokens else None
