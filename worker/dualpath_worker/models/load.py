"""A checkpoint directory -> a Model: config, fingerprint, tensors by name, packed projections.

q, k and v are one matrix, and so are gate and up: fewer and larger products. Packing copies a tensor out of
the mapped file and drops the mapping's pages, so memory holds each weight once; only the embedding stays
mapped.
"""

from __future__ import annotations

from pathlib import Path

import torch

from dualpath_api.errors import SpecError
from dualpath_worker.models.config import ModelConfig, parse_config, read_eos_ids, read_json
from dualpath_worker.models.decoder import Layer, Model
from dualpath_worker.models.fingerprint import fingerprint
from dualpath_worker.models.linear import Linear, make_linear
from dualpath_worker.models.registry import find_family
from dualpath_worker.models.rope import rope_tables
from dualpath_worker.models.weights import DTYPES, Weights


def load_config(directory: Path) -> ModelConfig:
    """Config of a checkpoint. Raises SpecError or UnsupportedError naming what is wrong."""
    raw = read_json(directory / "config.json")
    family, traits = find_family(raw)
    return parse_config(raw, family, traits, read_eos_ids(directory, raw))


def load_model(path: Path, dtype: str, device: str) -> Model:
    """Load a checkpoint.

    Args:
        path: directory with config.json and *.safetensors.
        dtype: float32 or bfloat16, of weights, KV and computation.
        device: cpu or cuda (cuda:N).

    Raises:
        SpecError: the checkpoint is incomplete or contradicts itself.
        UnsupportedError: it is of a kind that is not supported.
    """
    if dtype not in DTYPES:
        raise SpecError(
            "cannot load the model", cause=f"dtype {dtype!r}", remedy=f"use one of {', '.join(DTYPES)}"
        )
    config = load_config(path)
    place = torch.device(device)
    weights = Weights(path, DTYPES[dtype], place)
    embedding = weights.take("model.embed_tokens.weight", (config.vocab_size, config.hidden))
    layers = [_load_layer(weights, config, index) for index in range(config.num_layers)]
    norm = weights.take("model.norm.weight", (config.hidden,))
    if config.tied:
        weights.drop("lm_head.weight")
        head = make_linear(embedding)
    else:
        head = make_linear(weights.take("lm_head.weight", (config.vocab_size, config.hidden)))
    weights.finish()
    rope = rope_tables(config.rope, config.head_dim, config.max_context, place)
    return Model(config, embedding, layers, norm, head, rope, fingerprint(path))


def _load_layer(weights: Weights, config: ModelConfig, index: int) -> Layer:
    prefix = f"model.layers.{index}."
    hidden, size, inner, traits = config.hidden, config.head_dim, config.intermediate, config.traits
    heads, kv_heads = config.num_heads, config.num_kv_heads

    def linear(names: list[str], rows: list[int], columns: int, bias: bool) -> Linear:
        paths = [prefix + name for name in names]
        matrix = weights.take_rows([f"{path}.weight" for path in paths], [(row, columns) for row in rows])
        vector = None
        if bias:
            vector = weights.take_rows([f"{path}.bias" for path in paths], [(row,) for row in rows])
        return make_linear(matrix, vector)

    head_norm = None
    if traits.qk_norm:
        q_norm = weights.take(prefix + "self_attn.q_norm.weight", (size,))
        k_norm = weights.take(prefix + "self_attn.k_norm.weight", (size,))
        head_norm = torch.cat((q_norm.expand(heads, size), k_norm.expand(kv_heads, size)))
    return Layer(
        input_norm=weights.take(prefix + "input_layernorm.weight", (hidden,)),
        qkv=linear(
            ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
            [heads * size, kv_heads * size, kv_heads * size],
            hidden,
            traits.qkv_bias,
        ),
        head_norm=head_norm,
        o=linear(["self_attn.o_proj"], [hidden], heads * size, traits.o_bias),
        post_norm=weights.take(prefix + "post_attention_layernorm.weight", (hidden,)),
        gate_up=linear(["mlp.gate_proj", "mlp.up_proj"], [inner, inner], hidden, traits.mlp_bias),
        down=linear(["mlp.down_proj"], [hidden], inner, traits.mlp_bias),
    )
