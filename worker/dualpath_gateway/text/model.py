"""What a checkpoint directory says about text: tokenizer, special ids, chat template, sampling defaults.

Read once, at start. generation_config.json gives defaults where the client says nothing: temperature, top_p,
top_k, min_p, repetition_penalty and the end-of-sequence ids. `do_sample: false` in it makes greedy the
default; without that entry the default temperature is the file's, or 1 as with OpenAI.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from dualpath_api.errors import UnsupportedError
from dualpath_gateway.text.chat_template import ChatTemplate, load_template
from dualpath_gateway.text.detokenize import Vocabulary


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingDefaults:
    """What a request gets that does not say it."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TextModel:
    """The text side of one model."""

    name: str
    tokenizer: Tokenizer
    vocabulary: Vocabulary
    vocab_size: int  # ids that the model knows
    eos_ids: tuple[int, ...]
    defaults: SamplingDefaults
    template: ChatTemplate | None
    created: int
    longest_token: int  # characters that one token can stand for at most; 0: not known

    def encode(self, text: str, *, special: bool, most: int) -> list[int] | int:
        """Token ids, or only their number where that is more than `most`. Releases the interpreter lock.

        special: whether the tokenizer's own additions (BOS) are wanted.
        """
        encoding = self.tokenizer.encode_batch_fast([text], add_special_tokens=special)[0]
        if len(encoding) > most:
            return len(encoding)
        ids: list[int] = encoding.ids  # about 2 ms a 100,000 ids, during which nothing else runs
        return ids

    def least_tokens(self, text: str) -> int:
        """A lower bound on the tokens of a text, cheap to tell: absurd lengths need no encoding."""
        return len(text) // self.longest_token if self.longest_token else 0


def load_text_model(directory: Path, name: str) -> TextModel:
    """Read a checkpoint directory. Raises UnsupportedError where something needed is missing or broken."""
    tokenizer_file = directory / "tokenizer.json"
    if not tokenizer_file.is_file():
        raise UnsupportedError(
            f"{directory} has no tokenizer.json",
            cause="the gateway uses the fast tokenizer's file",
            remedy="save the tokenizer with tokenizer.save_pretrained() of a fast tokenizer",
        )
    try:
        tokenizer = Tokenizer.from_file(str(tokenizer_file))
    except Exception as error:  # the library raises plain Exception
        raise UnsupportedError(
            f"{tokenizer_file} cannot be used",
            cause=str(error),
            remedy="check the file, or save it with a current tokenizers",
        ) from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    vocabulary = Vocabulary(tokenizer)
    config = _read_json(directory / "config.json")
    generation = _read_json(directory / "generation_config.json")
    return TextModel(
        name=name,
        tokenizer=tokenizer,
        vocabulary=vocabulary,
        vocab_size=int(config.get("vocab_size") or tokenizer.get_vocab_size()),
        eos_ids=_eos_ids(generation, config),
        defaults=_defaults(generation),
        template=load_template(directory, _read_json(directory / "tokenizer_config.json")),
        created=int(tokenizer_file.stat().st_mtime),
        longest_token=_longest_token(tokenizer) if vocabulary.byte_level else 0,
    )


def _longest_token(tokenizer: Tokenizer) -> int:
    """0 where a normalizer may shorten the text, or a token may swallow the spaces around it."""
    added = tokenizer.get_added_tokens_decoder().values()
    if tokenizer.normalizer is not None or any(token.lstrip or token.rstrip for token in added):
        return 0
    return max(map(len, tokenizer.get_vocab()), default=0)


def _read_json(path: Path) -> dict[str, Any]:
    """An optional JSON object; missing: empty."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UnsupportedError(
            f"{path} cannot be read", cause=str(error), remedy="restore the file from the checkpoint's source"
        ) from None
    return found if isinstance(found, dict) else {}


def _eos_ids(generation: dict[str, Any], config: dict[str, Any]) -> tuple[int, ...]:
    """End-of-sequence ids: of the generation config, else of the model config; one or a list."""
    found = generation.get("eos_token_id", config.get("eos_token_id"))
    if found is None:
        return ()
    return tuple(found) if isinstance(found, list) else (int(found),)


def _defaults(generation: dict[str, Any]) -> SamplingDefaults:
    def number(name: str, otherwise: float) -> float:
        value = generation.get(name)
        return otherwise if value is None else float(value)

    greedy = generation.get("do_sample") is False
    return SamplingDefaults(
        temperature=0.0 if greedy else number("temperature", 1.0),
        top_p=number("top_p", 1.0),
        top_k=max(0, int(number("top_k", 0))),
        min_p=number("min_p", 0.0),
        repetition_penalty=number("repetition_penalty", 1.0),
    )
