"""What this engine can do, measured at start: attention time (for the compute quota) and prefill speed."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial

import torch

from dualpath_kernels import prefill_attention
from dualpath_kernels.prefill_attention import Segment
from dualpath_policy.batching import AttentionTime
from dualpath_worker.blocks import BlockPool
from dualpath_worker.engine.arrivals import LayerArrivals
from dualpath_worker.engine.layerwise import ChunkWork, LayerwisePrefill
from dualpath_worker.models import Model

SHAPES = ((0, 32), (0, 128), (256, 32), (256, 128), (1024, 32), (1024, 128))
"""(cached, new) tokens."""


PREFILL_TOKENS = 128


def prefill_speed(runner: LayerwisePrefill, pool: BlockPool, block_tokens: int) -> float:
    """Tokens per second of a short prompt; uses free slots of the pool, before anybody else does."""
    slots = pool.reserve(-(-PREFILL_TOKENS // block_tokens))
    if slots is None:
        return 0.0
    work = ChunkWork(
        tokens=[0] * PREFILL_TOKENS,
        cached=0,
        slots=slots,
        store_from=0,
        arrivals=LayerArrivals(sys.maxsize),
        deadline_s=0.0,
    )
    seconds = min(_timed(lambda: runner.run([work], lambda layer: None)) for _ in range(2))
    pool.free(slots)
    return PREFILL_TOKENS / seconds


@torch.inference_mode()
def attention_time(model: Model) -> AttentionTime:
    """Fit the time of all layers' attention to a few shapes (about 0.1 s on a CPU for a small model)."""
    config = model.config
    rows = max(cached + new for cached, new in SHAPES)
    new_most = max(new for _, new in SHAPES)
    kv = torch.zeros((rows, 2, config.num_kv_heads, config.head_dim), dtype=model.dtype, device=model.device)
    q = torch.zeros((new_most, config.num_heads, config.head_dim), dtype=model.dtype, device=model.device)
    samples = []
    for cached, new in SHAPES:
        segment = [Segment(q_start=0, q_len=new, kv_start=0, kv_len=cached + new)]
        attend = partial(prefill_attention, q[:new], kv, segment, model.scale, model.window)
        seconds = min(_timed(attend) for _ in range(3))
        samples.append(([(cached, new)], seconds * config.num_layers))
    return AttentionTime.fit(samples)


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began
