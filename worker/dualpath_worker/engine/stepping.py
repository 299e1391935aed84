"""One decode step over paged KV: tokens in, logits out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from dualpath_api.keys import KvLayout
from dualpath_kernels import paged_decode_attention, rope_store
from dualpath_worker.models import Model


class Stepper:
    """Holds the cache tensors, one [pages, block_tokens, 2, kv_heads, head_dim] a layer."""

    def __init__(self, model: Model, layout: KvLayout, pages: int) -> None:
        self._model = model
        self._block = layout.block_tokens
        config = model.config
        shape = (pages, self._block, 2, config.num_kv_heads, config.head_dim)
        self.kv = [
            torch.zeros(shape, dtype=model.dtype, device=model.device) for _ in range(config.num_layers)
        ]
        self.rows = [kv.view(-1, 2, config.num_kv_heads, config.head_dim) for kv in self.kv]

    def page_bytes(self, page: int) -> tuple[memoryview, ...]:
        """The page in each layer: together one Full Block."""
        return tuple(
            kv[page].cpu().view(torch.uint8).reshape(-1).numpy().data for kv in self.kv
        )  # on a CPU a view, no copy

    def step(
        self, tokens: Sequence[int], lengths: Sequence[int], pages: Sequence[Sequence[int]]
    ) -> torch.Tensor:
        """Feed tokens[i] at position lengths[i]; returns logits [sequences, vocabulary] float32."""
        model = self._model
        table = np.zeros((len(pages), max(map(len, pages))), np.int32)
        for row, own in zip(table, pages, strict=True):
            row[: len(own)] = own
        at = np.asarray(lengths, np.int64)
        rows = (
            table[np.arange(len(pages)), at // self._block].astype(np.int64) * self._block + at % self._block
        )
        table_BN = torch.from_numpy(table).to(model.device)
        positions = torch.from_numpy(at).to(model.device)
        rows_B = torch.from_numpy(rows).to(model.device)
        lengths_B = torch.from_numpy((at + 1).astype(np.int32)).to(model.device)
        hidden, residual = model.embed(torch.tensor(tokens, device=model.device)), None
        for layer in range(model.config.num_layers):
            attend = self._attention(layer, positions, rows_B, table_BN, lengths_B)
            hidden, residual = model.layer(layer, hidden, residual, positions, attend)
        return model.logits(hidden, residual)

    def _attention(
        self,
        layer: int,
        positions: torch.Tensor,
        rows_B: torch.Tensor,
        table_BN: torch.Tensor,
        lengths_B: torch.Tensor,
    ) -> Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]:
        model = self._model

        def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            q = rope_store(q, k, v, *model.rope, positions, self.rows[layer], rows_B)
            return paged_decode_attention(q, self.kv[layer], table_BN, lengths_B, model.scale, model.window)

        return attend
