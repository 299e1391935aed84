"""transformers' cached `generate`, timed: reads "batch context tokens" a line, prints tokens per second."""

from __future__ import annotations

import sys
import time
from typing import Any

import torch
from transformers import AutoModelForCausalLM, DynamicCache, StoppingCriteria, StoppingCriteriaList


class Clock(StoppingCriteria):
    """Never stops; notes when each token is there."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        """Called by `generate` after each token."""
        self.times.append(time.perf_counter())
        return torch.zeros(len(input_ids), dtype=torch.bool)


class Reference:
    """One prompt a batch size; its KV is computed once and kept, as only decoding is timed."""

    def __init__(self, path: str) -> None:
        self._model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
        self._kept: dict[int, tuple[torch.Tensor, DynamicCache]] = {}

    def rate(self, batch: int, context: int, count: int) -> float:
        """Tokens per second of `generate`, from the first token to the last."""
        if batch not in self._kept:
            prompt = torch.randint(300, self._model.config.vocab_size, (batch, context))
            cache = DynamicCache(config=self._model.config)
            with torch.inference_mode():
                for part in prompt[:, :-1].split(512, dim=1):
                    self._model(part, past_key_values=cache, use_cache=True, logits_to_keep=1)
            self._kept[batch] = prompt, cache
        prompt, cache = self._kept[batch]
        clock = Clock()
        self._model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            past_key_values=cache,
            do_sample=False,
            min_new_tokens=count,
            max_new_tokens=count,
            eos_token_id=None,
            pad_token_id=0,
            stopping_criteria=StoppingCriteriaList([clock]),
        )
        cache.crop(context - 1 - cache.get_seq_length())
        return batch * (count - 1) / (clock.times[-1] - clock.times[0])


def main() -> None:
    """Serve until standard input ends."""
    reference = Reference(sys.argv[1])
    for line in sys.stdin:
        batch, context, count = map(int, line.split())
        sys.stdout.write(f"{reference.rate(batch, context, count)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
