"""The decoder that all supported families share, called layer by layer; attention belongs to the caller.

One layer, residual stream r:   h, r = norm(h + r);  q, k, v = qkv(h);  [q, k = norm a head];  h =
o(attend(q, k, v))
                                h, r = norm(h + r);  h = down(silu(gate(h)) * up(h))
The caller's `attend` applies RoPE, stores k and v and attends, so that the same layer serves a prefill over a
ring and a decode over pages. Letters: T tokens, H hidden, Q heads, K KV heads, D head size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from dualpath_api.keys import KvLayout
from dualpath_kernels import rms_norm
from dualpath_worker.models.config import ModelConfig
from dualpath_worker.models.linear import Linear

Tensor = torch.Tensor
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(q [T, Q, D], k [T, K, D], v [T, K, D]), without RoPE, the last two dimensions contiguous -> [T, Q, D]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """Weights of one layer."""

    input_norm: Tensor  # [H]
    qkv: Linear  # H -> (Q + 2K) * D
    head_norm: Tensor | None  # [Q + K, D]
    o: Linear  # Q * D -> H
    post_norm: Tensor  # [H]
    gate_up: Linear  # H -> 2I
    down: Linear  # I -> H


class Model:
    """A loaded checkpoint."""

    def __init__(
        self,
        config: ModelConfig,
        embedding_VH: Tensor,
        layers: Sequence[Layer],
        norm_H: Tensor,
        head: Linear,
        rope: tuple[Tensor, Tensor],
        fingerprint: str,
    ) -> None:
        self.config = config
        self.rope = rope  # (cos, sin), each [max_context, D/2], float32
        self.scale = float(config.head_dim**-0.5)
        self.window = config.window
        self.fingerprint = fingerprint
        self.dtype = embedding_VH.dtype
        self.device = embedding_VH.device
        self._embedding_VH = embedding_VH
        self._layers = layers
        self._norm_H = norm_H
        self._head = head

    def layout(self, block_tokens: int) -> KvLayout:
        """What decides the bytes of a KV block of this model."""
        return KvLayout(
            fingerprint=self.fingerprint,
            dtype=str(self.dtype).removeprefix("torch."),
            layers=self.config.num_layers,
            kv_heads=self.config.num_kv_heads,
            head_dim=self.config.head_dim,
            block_tokens=block_tokens,
        )

    def embed(self, tokens_T: Tensor) -> Tensor:
        """Hidden states [T, H] of token ids (int64 or int32)."""
        return F.embedding(tokens_T, self._embedding_VH)

    def layer(
        self,
        index: int,
        hidden_TH: Tensor,
        residual_TH: Tensor | None,
        positions_T: Tensor,
        attend: Attend,
    ) -> tuple[Tensor, Tensor]:
        """Run one layer: (hidden, residual); the two are added by the next norm.

        Args:
            index: of the layer.
            hidden_TH: of `embed`, or of the layer before.
            residual_TH: of the layer before; None for the first.
            positions_T: each token's position; no supported family needs it here.
            attend: RoPE, KV store and attention of this layer.
        """
        layer, config = self._layers[index], self.config
        heads, kv_heads = config.num_heads, config.num_kv_heads
        normed, residual_TH = rms_norm(hidden_TH, layer.input_norm, config.rms_eps, residual_TH)
        packed = layer.qkv(normed).view(-1, heads + 2 * kv_heads, config.head_dim)
        qk, v_TKD = packed[:, : heads + kv_heads], packed[:, heads + kv_heads :]
        if layer.head_norm is not None:
            qk, _ = rms_norm(qk, layer.head_norm, config.rms_eps)
        mixed = layer.o(attend(qk[:, :heads], qk[:, heads:], v_TKD).reshape(len(normed), -1))
        normed, residual_TH = rms_norm(mixed, layer.post_norm, config.rms_eps, residual_TH)
        gate, up = layer.gate_up(normed).chunk(2, dim=-1)
        return layer.down(F.silu(gate).mul_(up)), residual_TH

    def logits(self, hidden_NH: Tensor, residual_NH: Tensor | None) -> Tensor:
        """Logits [N, V], float32, of what the last layer returned; pass only the rows that are needed."""
        normed, _ = rms_norm(hidden_NH, self._norm_H, self.config.rms_eps, residual_NH)
        return self._head(normed).float()
