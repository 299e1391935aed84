"""config.json as this program understands it: checked, complete, or refused by the name of a field.

A field that is known to change the computation and has a value that is not supported is refused; fields that
only concern training are ignored. What differs between families is asked from the family (registry.py).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dualpath_api.errors import SpecError, UnsupportedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Rope:
    """Rotary embedding; with a factor the frequencies are stretched the way of Llama 3."""

    theta: float
    factor: float | None = None
    low_freq_factor: float = 1.0
    high_freq_factor: float = 1.0
    original_context: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """What sets one family apart."""

    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False  # RMSNorm of each head's q and k before RoPE
    window: int | None = None  # sliding attention window, in tokens
    default_head_dim: int | None = None  # None: hidden / heads
    default_theta: float = 10000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Sizes and variants of a decoder."""

    family: str
    num_layers: int
    hidden: int
    intermediate: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    max_context: int  # tokens, prompt and answer together
    rms_eps: float
    rope: Rope
    tied: bool  # the output projection is the embedding
    traits: Traits
    eos_ids: tuple[int, ...]

    @property
    def window(self) -> int | None:
        """How many of the last tokens attention sees; None: all."""
        return self.traits.window


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises SpecError when the file is missing or is not one."""
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        raise SpecError(
            f"{path.parent} is not a model directory",
            cause=f"{path.name} is missing",
            remedy="point spec.model.uri at a Hugging Face checkpoint (config.json, *.safetensors)",
        ) from None
    except (OSError, ValueError) as error:
        raise SpecError(f"cannot read {path}", cause=str(error), remedy="restore the file") from None
    if not isinstance(found, dict):
        raise SpecError(f"cannot use {path}", cause="it holds no JSON object", remedy="restore the file")
    return found


class Fields:
    """The raw config, with messages that name the field and its value."""

    def __init__(self, raw: dict[str, Any], name: str = "config.json") -> None:
        self.raw = raw
        self.name = name

    def refuse(self, field: str, remedy: str) -> UnsupportedError:
        """The error for a value that is not supported."""
        return UnsupportedError(
            "this model is not supported",
            cause=f"{self.name}: {field} is {json.dumps(self.raw.get(field))}",
            remedy=remedy,
        )

    def integer(self, field: str, default: int | None = None) -> int:
        """A positive integer; without a default it must be there."""
        value = self.raw.get(field)
        if value is None and default is not None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
            raise self.refuse(field, "a positive whole number is needed; restore the checkpoint's config")
        return value

    def number(self, field: str, default: float | None = None) -> float:
        """A positive number; without a default it must be there."""
        value = self.raw.get(field)
        if value is None and default is not None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            raise self.refuse(field, "a positive number is needed; restore the checkpoint's config")
        return float(value)

    def flag(self, field: str, default: bool = False) -> bool:
        """True or false."""
        value = self.raw.get(field)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.refuse(field, "true or false is needed; restore the checkpoint's config")
        return value

    def section(self, field: str) -> Fields:
        """A nested object, empty when absent or null."""
        value = self.raw.get(field)
        if value is not None and not isinstance(value, dict):
            raise self.refuse(field, "an object is needed; restore the checkpoint's config")
        return Fields(value or {}, f"{self.name}: {field}")


def parse_config(raw: dict[str, Any], family: str, traits: Traits, eos_ids: tuple[int, ...]) -> ModelConfig:
    """Build the config. Raises UnsupportedError naming the field that cannot be served."""
    fields = Fields(raw)
    if raw.get("hidden_act", "silu") != "silu":
        raise fields.refuse("hidden_act", "use a checkpoint with the silu activation")
    if raw.get("quantization_config"):
        raise fields.refuse("quantization_config", "use the unquantised checkpoint in float32 or bfloat16")
    hidden, heads = fields.integer("hidden_size"), fields.integer("num_attention_heads")
    kv_heads = fields.integer("num_key_value_heads", heads)
    if heads % kv_heads:
        raise fields.refuse("num_key_value_heads", f"it must divide num_attention_heads, {heads}")
    head_dim = fields.integer("head_dim", traits.default_head_dim or hidden // heads)
    if head_dim % 2:
        raise fields.refuse("head_dim", "rotary embedding needs an even head size")
    return ModelConfig(
        family=family,
        num_layers=fields.integer("num_hidden_layers"),
        hidden=hidden,
        intermediate=fields.integer("intermediate_size"),
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        vocab_size=fields.integer("vocab_size"),
        max_context=fields.integer("max_position_embeddings"),
        rms_eps=fields.number("rms_norm_eps", 1e-6),
        rope=parse_rope(fields, traits.default_theta),
        tied=fields.flag("tie_word_embeddings"),
        traits=traits,
        eos_ids=eos_ids,
    )


def parse_rope(fields: Fields, default_theta: float) -> Rope:
    """Both spellings: `rope_parameters`, and the older `rope_scaling` beside `rope_theta`."""
    newer = bool(fields.raw.get("rope_parameters"))
    scaling = fields.section("rope_parameters" if newer else "rope_scaling")
    partial = scaling.raw.get("partial_rotary_factor", fields.raw.get("partial_rotary_factor"))
    if partial not in (None, 1, 1.0):
        raise fields.refuse("partial_rotary_factor", "only whole rotation is supported")
    theta = (scaling if scaling.raw.get("rope_theta") else fields).number("rope_theta", default_theta)
    field = "rope_type" if "rope_type" in scaling.raw else "type"
    kind = scaling.raw.get(field, "default")
    if kind == "default":
        return Rope(theta=theta)
    if kind != "llama3":
        raise scaling.refuse(field, "supported are default and llama3")
    low, high = scaling.number("low_freq_factor"), scaling.number("high_freq_factor")
    if high <= low:
        raise scaling.refuse("high_freq_factor", f"it must be above low_freq_factor, {low}")
    return Rope(
        theta=theta,
        factor=scaling.number("factor"),
        low_freq_factor=low,
        high_freq_factor=high,
        original_context=scaling.integer("original_max_position_embeddings"),
    )


def read_eos_ids(directory: Path, raw: dict[str, Any]) -> tuple[int, ...]:
    """End-of-sequence ids: generation_config.json decides, else config.json; one id or a list."""
    path = directory / "generation_config.json"
    found = read_json(path).get("eos_token_id") if path.exists() else None
    value = raw.get("eos_token_id") if found is None else found
    if value is None:
        return ()
    return (value,) if isinstance(value, int) else tuple(value)
