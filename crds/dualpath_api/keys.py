"""Block keys: the chained content hash that names a Full Block in storage.

key(0) = sha256(root || tokens[0:B]), key(i) = sha256(key(i-1) || tokens[iB:(i+1)B]); tokens as 4-byte
little-endian integers. The root is the hash of the KV layout, so two models, weights, data types or block
sizes can never share a block. A key names the whole prefix up to and including its block.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from sys import byteorder

import msgspec


class KvLayout(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that decides the bytes of a block.

    A row is one token's K and V of one layer, RoPE applied: [2, kv_heads, head_dim].
    A Layer Block is [block_tokens, row]; a Full Block is [layers, block_tokens, row].
    """

    fingerprint: str  # of the weights' content, hex
    dtype: str  # float32 | bfloat16
    layers: int
    kv_heads: int
    head_dim: int
    block_tokens: int

    @property
    def row_bytes(self) -> int:
        """Bytes of one token's K and V in one layer."""
        return 2 * self.kv_heads * self.head_dim * {"float32": 4, "bfloat16": 2}[self.dtype]

    @property
    def layer_block_bytes(self) -> int:
        """Bytes of one Layer Block."""
        return self.block_tokens * self.row_bytes

    @property
    def full_block_bytes(self) -> int:
        """Bytes of one Full Block."""
        return self.layers * self.layer_block_bytes

    def root(self) -> bytes:
        """The parent of every first block: sha256 of the canonical JSON of this layout."""
        return _root(self)


@lru_cache(maxsize=64)
def _root(layout: KvLayout) -> bytes:
    fields = {"kv": "rope-kv-token-major-1", **msgspec.structs.asdict(layout)}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).digest()


def all_keys(layout: KvLayout, tokens: Sequence[int], known: tuple[bytes, ...] = ()) -> tuple[bytes, ...]:
    """Keys of all complete blocks of `tokens` in a layout; those of the first blocks may be known."""
    block = layout.block_tokens
    parent = known[-1] if known else layout.root()
    return (*known, *block_keys(parent, tokens[len(known) * block :], block))


def block_keys(parent: bytes, tokens: Sequence[int], block_tokens: int) -> list[bytes]:
    """Keys of the complete blocks of `tokens`, chained from `parent`; a shorter tail has none."""
    packed = array("I", tokens)
    if byteorder == "big":
        packed.byteswap()
    data = memoryview(packed.tobytes())
    size = 4 * block_tokens
    keys = []
    for start, end in pairwise(range(0, len(data) + 1, size)):
        parent = hashlib.sha256(parent + data[start:end]).digest()
        keys.append(parent)
    return keys
