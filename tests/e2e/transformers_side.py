"""What transformers says about a checkpoint: chat prompts, texts, greedy tokens, logits, log-probabilities."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class TransformersSide:
    """One checkpoint, loaded by transformers in float32."""

    def __init__(self, checkpoint: Path) -> None:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.set_num_threads(1)
        self._torch = torch
        self._model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
        self._tokenizer = AutoTokenizer.from_pretrained(checkpoint)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, with what the tokenizer adds."""
        return list(self._tokenizer(text)["input_ids"])

    def chat(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """Token ids of a conversation, by the checkpoint's template."""
        text = self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def text(self, tokens: Sequence[int]) -> str:
        """Text of generated tokens; special ones give none."""
        found: str = self._tokenizer.decode(list(tokens), skip_special_tokens=True)
        return found

    def logits(self, tokens: Sequence[int]) -> Any:
        """[tokens, V]: row i belongs to the token after tokens[i]."""
        with self._torch.no_grad():
            return self._model(self._torch.tensor([list(tokens)])).logits[0].float()

    def logprobs(self, prompt: Sequence[int], answer: Sequence[int]) -> Any:
        """[answer, V]: log-probabilities of what could have stood at each place of the answer."""
        return self.logits([*prompt, *answer])[len(prompt) - 1 : -1].log_softmax(-1)

    def greedy(self, prompt: Sequence[int], count: int, **options: Any) -> list[int]:
        """Tokens of `generate(**options)`; it does not stop early."""
        tokens = self._torch.tensor([list(prompt)])
        output = self._model.generate(
            tokens,
            attention_mask=self._torch.ones_like(tokens),
            do_sample=False,
            min_new_tokens=count,
            max_new_tokens=count,
            eos_token_id=None,
            pad_token_id=0,
            **options,
        )
        return list(output[0, len(prompt) :].tolist())

    def kept(
        self, logits: Any, temperature: float, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0
    ) -> list[set[int]]:
        """The ids of each row of [N, V] that the logits warpers of transformers leave, in their order."""
        from transformers.generation import logits_process as warpers

        chain = [warpers.TemperatureLogitsWarper(temperature)]
        chain += [warpers.TopKLogitsWarper(top_k)] if top_k else []
        chain += [warpers.TopPLogitsWarper(top_p)] if top_p < 1 else []
        chain += [warpers.MinPLogitsWarper(min_p)] if min_p else []
        for warper in chain:
            logits = warper(None, logits)
        return [set(row.isfinite().nonzero().flatten().tolist()) for row in logits]
