"""Changes of a row of logits by the tokens so far: repetition, presence and frequency, then bias.

Repetition (Keskar et al. 2019; as in transformers): over prompt and generated tokens, each distinct token
once; a positive logit is divided by the penalty, another one multiplied. Presence and frequency (as OpenAI
defines them): over generated tokens only; logit -= presence * (count > 0) + frequency * count. Bias: added at
the end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import torch

from dualpath_api.wire import Sampling

Tensor = torch.Tensor


def has_penalties(sampling: Sampling) -> bool:
    """Whether `penalised` would change anything."""
    return bool(
        sampling.logit_bias
        or sampling.repetition_penalty != 1.0
        or sampling.presence_penalty
        or sampling.frequency_penalty
    )


def penalised(
    logits_V: Tensor, sampling: Sampling, prompt: Sequence[int], generated: Sequence[int]
) -> Tensor:
    """A changed copy of the logits; bias for ids outside of the vocabulary has no effect."""
    logits_V = logits_V.clone()

    def places(tokens: Iterable[int]) -> Tensor:
        return torch.tensor(list(tokens), dtype=torch.int64, device=logits_V.device)

    if sampling.repetition_penalty != 1.0:
        seen = places({*prompt, *generated})
        old = logits_V[seen]
        factor = sampling.repetition_penalty
        logits_V[seen] = torch.where(old > 0, old / factor, old * factor)
    if sampling.presence_penalty or sampling.frequency_penalty:
        counts = Counter(generated)
        amounts = [sampling.presence_penalty + sampling.frequency_penalty * n for n in counts.values()]
        logits_V[places(counts)] -= torch.tensor(amounts, device=logits_V.device)
    known = {token: bias for token, bias in sampling.logit_bias.items() if 0 <= token < len(logits_V)}
    logits_V[places(known)] += torch.tensor(list(known.values()), device=logits_V.device)
    return logits_V
