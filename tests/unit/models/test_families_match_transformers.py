"""Every family gives transformers' logits, in prefill (whole, chunked, batched) and in decoding."""

import json
import shutil
from functools import cache

import pytest
import torch
from checkpoints import FAMILIES, cached_checkpoint
from model_runs import decode, prefill

from dualpath_worker.models import load_model

LENGTHS = (1, 63, 64, 65, 150)
VARIANTS = {
    **{family: (family, {}) for family in FAMILIES},
    "mistral-window": ("mistral", {"sliding_window": 40}),
    "qwen3-biased": ("qwen3", {"attention_bias": True, "tie_word_embeddings": False}),
    "llama-biased": ("llama", {"attention_bias": True, "mlp_bias": True, "num_key_value_heads": 4}),
    "qwen2-sharded": ("qwen2", {"max_shard_size": "100KB", "tie_word_embeddings": False}),
    # Wide enough that its matrices are packed for the CPU.
    "qwen3-wide": ("qwen3", {"hidden_size": 512, "intermediate_size": 600, "num_hidden_layers": 2}),
}


@cache
def oracle(directory, dtype):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(directory, dtype=getattr(torch, dtype)).eval()


def prompts(vocabulary, lengths=LENGTHS, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(5, vocabulary, (n,), generator=generator).tolist() for n in lengths]


@pytest.fixture(params=VARIANTS)
def checkpoint(request):
    family, overrides = VARIANTS[request.param]
    return cached_checkpoint(family, **overrides)


@torch.inference_mode()
def expected_logits(directory, dtype, tokens):
    return oracle(directory, dtype)(torch.tensor([tokens])).logits[0].float()


def close(ours, theirs, dtype):
    """1e-4 in float32. In bfloat16 the order of roundings differs, so most of the signal must agree."""
    if dtype == "float32":
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    else:
        assert (ours - theirs).pow(2).mean() < 0.01 * theirs.pow(2).mean()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("chunk", [None, 40])
@torch.inference_mode()
def test_prefill_logits(checkpoint, dtype, chunk):
    model = load_model(checkpoint, dtype, "cpu")
    batch = prompts(model.config.vocab_size)
    for tokens, logits in zip(batch, prefill(model, batch, chunk), strict=True):
        close(logits, expected_logits(checkpoint, dtype, tokens), dtype)


@torch.inference_mode()
def test_decoded_tokens_and_logits(checkpoint):
    model = load_model(checkpoint, "float32", "cpu")
    batch = prompts(model.config.vocab_size)
    tokens, logits = decode(model, batch, steps=20)
    for index, prompt in enumerate(batch):
        answer = tokens[index].tolist()
        expected = expected_logits(checkpoint, "float32", prompt + answer)[len(prompt) - 1 : -1]
        close(logits[:, index], expected, "float32")
        assert expected.argmax(-1).tolist() == answer


@torch.inference_mode()
def test_decoding_in_bfloat16(checkpoint):
    model = load_model(checkpoint, "bfloat16", "cpu")
    batch = prompts(model.config.vocab_size)
    tokens, logits = decode(model, batch, steps=4)
    for index, prompt in enumerate(batch):
        expected = expected_logits(checkpoint, "bfloat16", prompt + tokens[index].tolist())
        close(logits[:, index], expected[len(prompt) - 1 : -1], "bfloat16")


def test_older_spelling_of_rope_and_weights_stored_in_half(tmp_path):
    """rope_scaling beside rope_theta; bfloat16 on disk, float32 in memory."""
    source = cached_checkpoint("llama", dtype="bfloat16")
    directory = shutil.copytree(source, tmp_path / "old")
    raw = json.loads((directory / "config.json").read_text())
    rope = raw.pop("rope_parameters")
    raw |= {"rope_theta": rope.pop("rope_theta"), "rope_scaling": rope}
    (directory / "config.json").write_text(json.dumps(raw))
    model = load_model(directory, "float32", "cpu")
    tokens = prompts(model.config.vocab_size, (700,))[0]
    close(prefill(model, [tokens])[0], expected_logits(source, "float32", tokens), "float32")
