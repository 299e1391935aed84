"""Layerwise prefill of one batch: load layer l+1, compute layer l, store layer l-1 (paper section 4.1).

Only one layer's KV is resident on the device, in a ring of three buffers of [tokens, row]. A batch is laid
out in it request by request, cached rows first, new rows behind them, so attention reads one contiguous run
a request. The block buffer keeps everything else: cached rows are gathered from its slots, new rows are
scattered back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate

import torch

from dualpath_kernels import gather_layer_blocks, prefill_attention, rope_store, scatter_layer_blocks
from dualpath_kernels.prefill_attention import Segment
from dualpath_worker.blocks import BlockPool
from dualpath_worker.engine.arrivals import LayerArrivals, LayersLostError
from dualpath_worker.models import Model

RING = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkWork:
    """The next tokens of one attempt. `slots[b]` holds block b, up to the last block of this chunk."""

    tokens: Sequence[int]
    cached: int  # tokens before them: hits and earlier chunks
    slots: Sequence[int]
    store_from: int  # rows of tokens before this one are hits, already in their slots
    arrivals: LayerArrivals
    deadline_s: float


class ChunkLostError(Exception):
    """One chunk of the batch cannot be computed; the others can be, in another batch."""

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(reason)
        self.index = index


class LayerwisePrefill:
    """Runs batches; one at a time, from one thread."""

    def __init__(self, model: Model, pool: BlockPool, block_tokens: int) -> None:
        self._model = model
        self._pool = pool
        self._block_tokens = block_tokens
        self._row = (2, model.config.num_kv_heads, model.config.head_dim)
        self._ring = torch.empty((RING, 0, *self._row), dtype=model.dtype, device=model.device)
        self.attention_s = 0.0
        """Attention time of the last batch; on a GPU, which works later, the time to launch it."""
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="layer-load")
        self._storer = ThreadPoolExecutor(1, thread_name_prefix="layer-store")

    @torch.inference_mode()
    def run(self, batch: Sequence[ChunkWork], announce: Callable[[int], None]) -> torch.Tensor:
        """Compute the batch; `announce(l)` is called (from another thread) when layer l is in the slots.

        Returns the logits of each chunk's last token, float32 [chunks, vocabulary]. Raises ChunkLostError.
        """
        layers = self._model.config.num_layers
        self.attention_s = 0.0
        ends = list(accumulate(work.cached + len(work.tokens) for work in batch))
        starts = [0, *ends[:-1]]
        self._reserve_ring(ends[-1])
        positions, rows, segments = self._places(batch, starts)
        tokens = torch.tensor([token for work in batch for token in work.tokens], device=self._model.device)
        hidden, residual = self._model.embed(tokens), None
        loading: Future[None] = self._loader.submit(self._load, batch, starts, 0)
        storing: list[Future[None]] = []
        try:
            for layer in range(layers):
                loading.result()
                if layer + 1 < layers:
                    if layer + 1 >= RING:
                        storing[layer + 1 - RING].result()
                    loading = self._loader.submit(self._load, batch, starts, layer + 1)
                attend = self._attention(layer, positions, rows, segments)
                hidden, residual = self._model.layer(layer, hidden, residual, positions, attend)
                storing.append(self._storer.submit(self._store, batch, starts, layer, announce))
        finally:
            # a failed batch must not leave a thread behind that still uses the ring
            for future in (loading, *storing):
                future.exception()
        for future in storing:
            future.result()
        last = torch.tensor([end - 1 for end in accumulate(len(work.tokens) for work in batch)])
        return self._model.logits(hidden[last], None if residual is None else residual[last])

    def close(self) -> None:
        """Stop the two copy threads."""
        self._loader.shutdown()
        self._storer.shutdown()

    def _reserve_ring(self, tokens: int) -> None:
        if self._ring.shape[1] < tokens:
            capacity = 1 << (tokens - 1).bit_length()
            self._ring = torch.empty(
                (RING, capacity, *self._row), dtype=self._model.dtype, device=self._model.device
            )

    def _places(
        self, batch: Sequence[ChunkWork], starts: Sequence[int]
    ) -> tuple[torch.Tensor, torch.Tensor, list[Segment]]:
        positions, rows, segments, query = [], [], [], 0
        for work, start in zip(batch, starts, strict=True):
            new = torch.arange(work.cached, work.cached + len(work.tokens))
            positions.append(new)
            rows.append(new + start)
            segments.append(
                Segment(
                    q_start=query,
                    q_len=len(work.tokens),
                    kv_start=start,
                    kv_len=work.cached + len(work.tokens),
                )
            )
            query += len(work.tokens)
        device = self._model.device
        return torch.cat(positions).to(device), torch.cat(rows).to(device), segments

    def _attention(
        self, layer: int, positions: torch.Tensor, rows: torch.Tensor, segments: Sequence[Segment]
    ) -> Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]:
        kv = self._ring[layer % RING]
        model = self._model

        def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            q = rope_store(q, k, v, *model.rope, positions, kv, rows)
            began = time.perf_counter()
            mixed = prefill_attention(q, kv, segments, model.scale, model.window)
            self.attention_s += time.perf_counter() - began
            return mixed

        return attend

    @torch.inference_mode()
    def _load(self, batch: Sequence[ChunkWork], starts: Sequence[int], layer: int) -> None:
        ring = self._ring[layer % RING]
        for index, (work, start) in enumerate(zip(batch, starts, strict=True)):
            try:
                work.arrivals.wait(layer, work.deadline_s)
            except LayersLostError as lost:
                raise ChunkLostError(index, str(lost)) from lost
            if work.cached:
                blocks = -(-work.cached // self._block_tokens)
                gather_layer_blocks(
                    self._pool.blocks, work.slots[:blocks], layer, ring[start : start + work.cached]
                )

    @torch.inference_mode()
    def _store(
        self, batch: Sequence[ChunkWork], starts: Sequence[int], layer: int, announce: Callable[[int], None]
    ) -> None:
        ring = self._ring[layer % RING]
        for work, start in zip(batch, starts, strict=True):
            first, end = max(work.cached, work.store_from), work.cached + len(work.tokens)
            if first < end:
                block = first // self._block_tokens
                scatter_layer_blocks(
                    ring[start + first : start + end],
                    self._pool.blocks,
                    work.slots[block:],
                    layer,
                    first=first - block * self._block_tokens,
                )
        announce(layer)
