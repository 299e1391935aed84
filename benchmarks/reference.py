"""transformers' cached `generate`, timed: reads "batch context tokens" a line, prints tokens per second."""

from __future__ import annotations

import sys
import time

import torch
from transformers import AutoModelForCausalLM


def main() -> None:
    """Serve until standard input ends."""
    model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)

    def generate(prompt: torch.Tensor, count: int) -> float:
        began = time.perf_counter()
        model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            min_new_tokens=count,
            max_new_tokens=count,
            eos_token_id=None,
            pad_token_id=0,
        )
        return time.perf_counter() - began

    for line in sys.stdin:
        batch, context, count = map(int, line.split())
        prompt = torch.randint(300, model.config.vocab_size, (batch, context))
        seconds = generate(prompt, count) - generate(prompt, 1)
        sys.stdout.write(f"{batch * (count - 1) / seconds}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
