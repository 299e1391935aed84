"""What a block store can do. Full Blocks under their keys, and nothing else.

Calls block and are made from I/O threads (`dualpath_worker.storage.io`); every store is thread-safe and
shared by all engine processes. It is a cache: each failure to read is a miss that ends in recomputation,
each failure to write is counted and forgotten. No call raises for what the medium does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Buffer = memoryview | bytearray | NDArray[np.uint8]
"""Contiguous bytes; torch tensors come in through `.numpy()`."""


class ReadResult(StrEnum):
    """What became of one block that was to be read; anything but HIT leaves garbage in the buffer."""

    HIT = "hit"
    HELD = "held"  # was in memory already: says nothing about the medium
    MISS = "miss"  # not there
    CORRUPT = "corrupt"  # was there, with other bytes than were written; it has been deleted
    ERROR = "error"  # the medium failed

    @property
    def ok(self) -> bool:
        """Whether the buffer holds the block."""
        return self in (ReadResult.HIT, ReadResult.HELD)


class WriteResult(StrEnum):
    """What became of one block that was to be written."""

    WRITTEN = "written"
    EXISTS = "exists"  # nothing to do
    FULL = "full"  # no room, even after eviction
    ERROR = "error"  # the medium failed

    @property
    def ok(self) -> bool:
        """Whether the block is in the store now."""
        return self in (WriteResult.WRITTEN, WriteResult.EXISTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreStats:
    """Counters of this process since start; used and limit are of the whole store."""

    read_blocks: int = 0
    read_bytes: int = 0
    missed_blocks: int = 0
    skipped_blocks: int = 0  # of those missed: not asked for, as their node or the store fails
    corrupt_blocks: int = 0
    read_errors: int = 0
    written_blocks: int = 0
    written_bytes: int = 0
    refused_blocks: int = 0  # no room
    write_errors: int = 0
    evicted_blocks: int = 0
    evicted_bytes: int = 0
    tier_blocks: int = 0  # read from the memory in front of the store; not among the read ones
    tier_bytes: int = 0
    used_bytes: int = 0
    limit_bytes: int = 0
    full: bool = False  # the last write found no room


class BlockStore(Protocol):
    """Blocks by key. Buffers are those of the caller and are not kept."""

    def match_prefix(self, keys: Sequence[bytes]) -> int:
        """How many leading keys exist. Marks them as recently used."""

    def read_full(self, keys: Sequence[bytes], into: Sequence[memoryview]) -> list[ReadResult]:
        """Read whole blocks; each buffer has full_block_bytes. One result for each key, in order."""

    def read_layers(self, key: bytes, layers: Sequence[int], into: Sequence[memoryview]) -> ReadResult:
        """Read some layers of one block; each buffer has layer_block_bytes."""

    def write_full(self, key: bytes, data: Sequence[Buffer]) -> WriteResult:
        """Write a block from one buffer of full_block_bytes, or from one of layer_block_bytes for each layer.

        The block becomes visible whole or not at all. Writing a key that exists changes nothing.
        """

    def delete(self, key: bytes) -> None:
        """Remove a block, if it is there."""

    def stats(self) -> StoreStats:
        """Counters."""

    def close(self) -> None:
        """Release what this process holds; the blocks stay."""
