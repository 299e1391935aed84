"""Small random checkpoints in Hugging Face format: four families, seeded, made without a download.

`make_checkpoint(family, directory, ...)` writes one; `cached_checkpoint(family, ...)` writes it once
(under .work/, which git ignores) and returns that directory afterwards. Importing this module is cheap;
making a checkpoint imports transformers (about 8 s), finding a cached one does not.

Weights are wider than an ordinary initialisation, so that logits are far apart (greedy tokens do not hang on
rounding) and the text does not collapse into one repeated token.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

FAMILIES = ("qwen2", "qwen3", "llama", "mistral")
CACHE = Path(__file__).resolve().parents[1] / ".work" / "checkpoints"
SPECIAL = ("<|pad|>", "<|bos|>", "<|eos|>", "<|im_start|>", "<|im_end|>")
PAD, BOS, EOS, IM_START, IM_END = range(5)

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
)

_TINY = {
    "vocab_size": 384,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-6,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
    "pad_token_id": PAD,
}
_LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 512,
}
_FAMILY: dict[str, dict[str, Any]] = {
    "qwen2": {"tie_word_embeddings": True, "rope_theta": 10000.0},
    "qwen3": {"tie_word_embeddings": True, "head_dim": 32, "rope_theta": 10000.0},
    "llama": {"tie_word_embeddings": False, "rope_parameters": _LLAMA3_ROPE},
    "mistral": {
        "tie_word_embeddings": False,
        "rope_theta": 10000.0,
        "sliding_window": None,
        "num_key_value_heads": 1,
        "head_dim": 16,
    },
}
# 148 M parameters, shaped like Qwen3: own head_dim, grouped queries, tied embeddings; for benchmarks.
BENCH_QWEN3 = {
    "vocab_size": 32768,
    "hidden_size": 768,
    "intermediate_size": 2304,
    "num_hidden_layers": 16,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "max_position_embeddings": 32768,
}


def cached_checkpoint(family: str, **overrides: Any) -> Path:
    """The directory of a checkpoint with these parameters, made at the first call on this machine."""
    source = Path(__file__).read_bytes()
    text = json.dumps([family, overrides], sort_keys=True, default=str).encode()
    directory = CACHE / f"{family}-{hashlib.sha256(source + text).hexdigest()[:16]}"
    if directory.is_dir():
        return directory
    CACHE.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".making-", dir=CACHE))
    try:
        make_checkpoint(family, scratch, **overrides)
        scratch.chmod(0o755)
        scratch.rename(directory)
    except OSError:  # another process was first: its directory is as good
        if not directory.is_dir():
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return directory


def make_checkpoint(
    family: str,
    directory: Path,
    *,
    seed: int = 0,
    dtype: str = "float32",
    max_shard_size: str | None = None,
    generation: dict[str, Any] | None = None,
    add_bos: bool | None = None,
    **overrides: Any,
) -> Path:
    """Write config, weights, tokenizer and generation defaults into `directory` and return it.

    Args:
        family: qwen2, qwen3, llama or mistral.
        directory: made if missing.
        seed: of the weights.
        dtype: of the stored weights, float32 or bfloat16.
        max_shard_size: of a weight file, for example "100KB"; None: one file (llama: several, with an index).
        generation: more entries of generation_config.json.
        add_bos: whether the tokenizer puts <|bos|> before a text; None: for llama and mistral.
        overrides: fields of the model's config, for example `num_hidden_layers=2`, `sliding_window=64`.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch
    import transformers

    config_class, model_class = {
        "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM),
        "qwen3": (transformers.Qwen3Config, transformers.Qwen3ForCausalLM),
        "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
        "mistral": (transformers.MistralConfig, transformers.MistralForCausalLM),
    }[family]
    config = config_class(**{**_TINY, **_FAMILY[family], **overrides})
    with torch.device("meta"):
        model = model_class(config)
    model.to_empty(device="cpu")
    model.tie_weights()
    _draw_weights(model, seed, tied=config.tie_word_embeddings)
    model.generation_config = transformers.GenerationConfig(
        bos_token_id=BOS, eos_token_id=[EOS, IM_END], pad_token_id=PAD, **(generation or {})
    )
    directory.mkdir(parents=True, exist_ok=True)
    shard = max_shard_size or ("200KB" if family == "llama" and config.hidden_size <= 64 else "50GB")
    model.to(getattr(torch, dtype)).save_pretrained(directory, max_shard_size=shard)
    write_tokenizer(directory, add_bos=family in ("llama", "mistral") if add_bos is None else add_bos)
    return directory


def _draw_weights(model: Any, seed: int, *, tied: bool) -> None:
    """Norms near 1, biases and embeddings small, matrices that keep the variance of their input.

    A tied embedding is smaller, and the last norm larger: otherwise each token predicts itself.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            if name == "model.norm.weight" and tied:
                parameter.copy_((1 + 0.1 * noise) * 20 / parameter.shape[0] ** 0.5)
            elif "norm" in name:
                parameter.copy_(1 + 0.1 * noise)
            elif name.endswith("bias"):
                parameter.copy_(0.2 * noise)
            elif "embed_tokens" in name:
                parameter.copy_((0.1 if tied else 0.3) * noise)
            elif "lm_head" in name:
                parameter.copy_(2.5 * noise / parameter.shape[1] ** 0.5)
            else:
                parameter.copy_(1.2 * noise / parameter.shape[1] ** 0.5)


_CORPUS = (
    "You are a helpful agent. The user asks, the assistant answers and calls tools.",
    "What is the weather in Paris today? It is sunny, and the temperature is 21 degrees.",
    "def read(path): return open(path).read() # the file has many lines of text and code",
    "The quick brown fox jumps over the lazy dog; the cache holds what the prompt began with.",
    "Error: file not found. Try again with another path, or list the directory first.",
    "Please write one more test for the scheduler and then run all of the tests again.",
)


def write_tokenizer(directory: Path, *, add_bos: bool) -> None:
    """A byte-level BPE tokenizer of 384 ids: 5 special tokens, 256 bytes, some merges, a chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=384,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    byte_level = processors.ByteLevel(trim_offsets=False)
    if add_bos:
        bos = processors.TemplateProcessing(single="<|bos|> $A", special_tokens=[("<|bos|>", BOS)])
        tokenizer.post_processor = processors.Sequence([byte_level, bos])
    else:
        tokenizer.post_processor = byte_level
    tokenizer.save(str(directory / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|bos|>",
        "eos_token": "<|eos|>",
        "pad_token": "<|pad|>",
        "add_bos_token": add_bos,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
