"""Drive a Model without an engine: a prefill over a ring in chunks, and decoding over scattered pages."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dualpath_kernels import paged_decode_attention, prefill_attention, rope_store
from dualpath_worker.models import Model

PAGE = 64


def prefill(model: Model, prompts: Sequence[Sequence[int]], chunk: int | None = None) -> list[torch.Tensor]:
    """Logits [tokens, V] of every prompt; all prompts in one batch, each in chunks of at most `chunk` tokens."""
    logits, _ = _prefill(model, prompts, chunk)
    return logits


def decode(model: Model, prompts: Sequence[Sequence[int]], steps: int, chunk: int | None = None):
    """Greedy tokens [prompts, steps] and each step's logits [steps, prompts, V]."""
    logits, rings = _prefill(model, prompts, chunk)
    config = model.config
    pools, table = _pages(model, rings, [len(prompt) for prompt in prompts], steps)
    lengths = torch.tensor([len(prompt) for prompt in prompts], dtype=torch.int32)
    last = torch.stack([rows[-1] for rows in logits])
    seen, tokens = [last], [last.argmax(-1)]
    for _ in range(steps - 1):
        positions = lengths.long()
        lengths = lengths + 1
        places = table[torch.arange(len(prompts)), positions // PAGE].long() * PAGE + positions % PAGE
        hidden, residual = model.embed(tokens[-1]), None
        for index in range(config.num_layers):
            pool = pools[index]

            def attend(q, k, v, pool=pool, positions=positions, places=places, lengths=lengths):
                rows = pool.view(-1, 2, config.num_kv_heads, config.head_dim)
                q = rope_store(q, k, v, *model.rope, positions, rows, places)
                return paged_decode_attention(q, pool, table, lengths, model.scale, model.window)

            hidden, residual = model.layer(index, hidden, residual, positions, attend)
        seen.append(model.logits(hidden, residual))
        tokens.append(seen[-1].argmax(-1))
    return torch.stack(tokens, dim=1), torch.stack(seen)


def _prefill(model, prompts, chunk):
    config = model.config
    starts = [sum(map(len, prompts[:index])) for index in range(len(prompts))]
    rows = sum(map(len, prompts))
    rings = [
        torch.zeros((rows, 2, config.num_kv_heads, config.head_dim), dtype=model.dtype, device=model.device)
        for _ in range(config.num_layers)
    ]
    logits: list[list[torch.Tensor]] = [[] for _ in prompts]
    done = 0
    longest = max(map(len, prompts))
    while done < longest:
        end = longest if chunk is None else min(longest, done + chunk)
        parts = [list(prompt[done:end]) for prompt in prompts]
        hidden = _chunk(model, rings, starts, parts, done)
        place = 0
        for index, part in enumerate(parts):
            logits[index].append(hidden[place : place + len(part)])
            place += len(part)
        done = end
    return [torch.cat(parts) for parts in logits], rings


def _chunk(model, rings, starts, parts, done):
    flat = torch.tensor([token for part in parts for token in part])
    positions = torch.cat([torch.arange(done, done + len(part)) for part in parts])
    rows = torch.cat([torch.arange(s + done, s + done + len(p)) for s, p in zip(starts, parts, strict=True)])
    segments, place = [], 0
    for start, part in zip(starts, parts, strict=True):
        segments.append((place, len(part), start, done + len(part)))
        place += len(part)
    segments = [segment for segment in segments if segment[1]]
    hidden, residual = model.embed(flat), None
    for index in range(model.config.num_layers):

        def attend(q, k, v, ring=rings[index]):
            q = rope_store(q, k, v, *model.rope, positions, ring, rows)
            return prefill_attention(q, ring, segments, model.scale, model.window)

        hidden, residual = model.layer(index, hidden, residual, positions, attend)
    return model.logits(hidden, residual)


def _pages(model, rings, lengths, steps):
    """Each prompt's rows copied to pages that are partly in order and partly not."""
    config = model.config
    counts = [-(-(length + steps) // PAGE) for length in lengths]
    order = list(range(1, sum(counts) + 1))
    order[::3] = order[::3][::-1]
    table = torch.zeros((len(lengths), max(counts)), dtype=torch.int32)
    pools = []
    for index in range(len(lengths)):
        taken, order = order[: counts[index]], order[counts[index] :]
        table[index, : counts[index]] = torch.tensor(taken, dtype=torch.int32)
    for ring in rings:
        pool = torch.zeros((sum(counts) + 1, PAGE, 2, config.num_kv_heads, config.head_dim), dtype=ring.dtype)
        start = 0
        for index, length in enumerate(lengths):
            for place in range(0, length, PAGE):
                part = ring[start + place : start + min(length, place + PAGE)]
                pool[int(table[index, place // PAGE]), : len(part)] = part
            start += length
        pools.append(pool)
    return pools, table
