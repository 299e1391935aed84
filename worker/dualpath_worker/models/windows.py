"""Sliding attention windows in a config; supported when they are the same on all layers."""

from __future__ import annotations

from dualpath_worker.models.config import Fields


def uniform_window(fields: Fields) -> int | None:
    """`sliding_window` of every layer; null or absent: none."""
    _check_layer_types(fields, "sliding_attention" if fields.raw.get("sliding_window") else "full_attention")
    return None if fields.raw.get("sliding_window") is None else fields.integer("sliding_window")


def layered_window(fields: Fields) -> int | None:
    """`sliding_window` behind `use_sliding_window`, from layer `max_window_layers` on."""
    if not fields.flag("use_sliding_window"):
        _check_layer_types(fields, "full_attention")
        return None
    if fields.raw.get("layer_types"):
        _check_layer_types(fields, "sliding_attention")
    elif fields.raw.get("max_window_layers") != 0:
        raise fields.refuse("max_window_layers", "a window is supported on all layers or none: 0 here")
    return fields.integer("sliding_window")


def _check_layer_types(fields: Fields, expected: str) -> None:
    if any(kind != expected for kind in fields.raw.get("layer_types") or ()):
        raise fields.refuse("layer_types", f"layers of one kind are supported, here all {expected}")
