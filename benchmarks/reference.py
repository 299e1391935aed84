"""transformers' cached `generate`, timed: reads "batch context tokens" a line, prints tokens per second."""

from __future__ import annotations

import sys
import time
from typing import Any

import torch
from transformers import AutoModelForCausalLM, StoppingCriteria, StoppingCriteriaList


class Clock(StoppingCriteria):
    """Never stops; notes when each token is there."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        """Called by `generate` after each token."""
        self.times.append(time.perf_counter())
        return torch.zeros(len(input_ids), dtype=torch.bool)


def main() -> None:
    """Serve until standard input ends."""
    model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
    for line in sys.stdin:
        batch, context, count = map(int, line.split())
        prompt = torch.randint(300, model.config.vocab_size, (batch, context))
        clock = Clock()
        model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            min_new_tokens=count,
            max_new_tokens=count,
            eos_token_id=None,
            pad_token_id=0,
            stopping_criteria=StoppingCriteriaList([clock]),
        )
        sys.stdout.write(f"{batch * (count - 1) / (clock.times[-1] - clock.times[0])}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
