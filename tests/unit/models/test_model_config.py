"""Configs that cannot be served are refused by the name of the field; both spellings of RoPE are read."""

import json

import pytest
from checkpoints import cached_checkpoint

from dualpath_api.errors import SpecError, UnsupportedError
from dualpath_worker.models.config import Fields, Rope, parse_rope
from dualpath_worker.models.load import load_config, load_model

BASE = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
    "max_position_embeddings": 512,
    "eos_token_id": 2,
}
LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def config(directory, generation=None, **fields):
    raw = {name: value for name, value in {**BASE, **fields}.items() if value != "absent"}
    (directory / "config.json").write_text(json.dumps(raw))
    if generation is not None:
        (directory / "generation_config.json").write_text(json.dumps(generation))
    return load_config(directory)


def test_plain_llama(tmp_path):
    found = config(tmp_path)
    assert (found.family, found.num_kv_heads, found.head_dim, found.tied) == ("llama", 2, 16, False)
    assert found.rope == Rope(theta=10000.0)
    assert found.window is None


@pytest.mark.parametrize(
    ("fields", "cause"),
    [
        ({"architectures": ["MixtralForCausalLM"]}, 'architectures is ["MixtralForCausalLM"]'),
        ({"architectures": [], "model_type": "gpt2"}, 'model_type is "gpt2"'),
        ({"hidden_act": "gelu"}, 'hidden_act is "gelu"'),
        ({"quantization_config": {"bits": 4}}, "quantization_config is"),
        ({"hidden_size": "absent"}, "hidden_size is null"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
        ({"vocab_size": True}, "vocab_size is true"),
        ({"num_key_value_heads": 3}, "num_key_value_heads is 3"),
        ({"head_dim": 15}, "head_dim is 15"),
        ({"rms_norm_eps": -1}, "rms_norm_eps is -1"),
        ({"tie_word_embeddings": "yes"}, 'tie_word_embeddings is "yes"'),
        ({"rope_scaling": {"type": "yarn", "factor": 4}}, 'rope_scaling: type is "yarn"'),
        ({"rope_parameters": {"rope_type": "dynamic"}}, 'rope_parameters: rope_type is "dynamic"'),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8}}, "low_freq_factor is null"),
        (
            {"rope_scaling": {"rope_type": "llama3", **LLAMA3, "high_freq_factor": 1.0}},
            "high_freq_factor is 1.0",
        ),
        ({"rope_scaling": [1]}, "rope_scaling is [1]"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        (
            {"architectures": ["Qwen2ForCausalLM"], "use_sliding_window": True, "max_window_layers": 1},
            "max_window_layers is 1",
        ),
        (
            {"architectures": ["Qwen3ForCausalLM"], "layer_types": ["full_attention", "sliding_attention"]},
            "layer_types is",
        ),
    ],
)
def test_refusals_name_the_field_and_its_value(tmp_path, fields, cause):
    with pytest.raises(UnsupportedError) as caught:
        config(tmp_path, **fields)
    assert cause in caught.value.cause


def test_windows(tmp_path):
    assert config(tmp_path, architectures=["MistralForCausalLM"], sliding_window=4096).window == 4096
    assert config(tmp_path, architectures=["MistralForCausalLM"], sliding_window=None).window is None
    qwen = {"architectures": ["Qwen2ForCausalLM"], "sliding_window": 128}
    assert config(tmp_path, **qwen).window is None
    assert config(tmp_path, **qwen, use_sliding_window=True, max_window_layers=0).window == 128


def test_qwen3_has_a_head_size_of_its_own(tmp_path):
    assert config(tmp_path, architectures=["Qwen3ForCausalLM"]).head_dim == 128


def test_model_type_serves_when_architectures_are_missing(tmp_path):
    assert config(tmp_path, architectures="absent", model_type="mistral").family == "mistral"


@pytest.mark.parametrize(
    "raw",
    [
        {"rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", **LLAMA3}},
        {"rope_theta": 5e5, "rope_scaling": {"type": "llama3", **LLAMA3}},
        {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, **LLAMA3}},
    ],
)
def test_spellings_of_llama3_rope(raw):
    rope = parse_rope(Fields(raw), 10000.0)
    assert rope == Rope(
        theta=5e5, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=8192
    )


@pytest.mark.parametrize(
    ("own", "generation", "expected"),
    [
        (2, None, (2,)),
        ([2, 3], None, (2, 3)),
        (2, {"eos_token_id": [7, 8]}, (7, 8)),
        (2, {"temperature": 1.0}, (2,)),
        (None, None, ()),
    ],
)
def test_end_of_sequence_ids(tmp_path, own, generation, expected):
    assert config(tmp_path, generation, eos_token_id=own).eos_ids == expected


def test_a_directory_without_a_model(tmp_path):
    with pytest.raises(SpecError, match=r"config\.json is missing"):
        load_config(tmp_path)
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(SpecError, match="no JSON object"):
        load_config(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(SpecError, match="cannot read"):
        load_config(tmp_path)


def test_an_unknown_dtype():
    with pytest.raises(SpecError, match="float32, bfloat16"):
        load_model(cached_checkpoint("qwen2"), "float16", "cpu")
