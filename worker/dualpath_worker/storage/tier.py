"""An optional tier of memory in front of a store: blocks that this process has read or written lately.

Its hits cost neither storage NIC nor disk and are counted apart. It belongs to one process: ranks of a group
do not share theirs, so a block may be held by each. A block that only the tier has is still a hit: its key
says what is in it.
"""

from __future__ import annotations

import mmap
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dualpath_api.errors import SpecError
from dualpath_api.keys import KvLayout
from dualpath_api.units import format_bytes
from dualpath_worker.storage.base import BlockStore, Buffer, ReadResult, StoreStats, WriteResult
from dualpath_worker.storage.counts import StoreCounts


@dataclass(slots=True, eq=False)
class _Place:
    number: int
    pins: int = 0  # copies under way
    ready: bool = False  # false: is being filled


class DramTier:
    """Keeps `size` bytes of another one's blocks in memory; the least recently used go first."""

    def __init__(self, inner: BlockStore, size: int, layout: KvLayout) -> None:
        """Raises SpecError if the size does not hold a block."""
        block = layout.full_block_bytes
        if size < block:
            raise SpecError(
                f"spec.storage.dramTier.size is {format_bytes(size)} for a rank, less than one block",
                cause=f"a block of this model takes {block} bytes",
                remedy=f"set it to at least {format_bytes(64 * block)} (64 blocks) for each rank of a group",
            )
        self._inner, self._layers = inner, layout.layers
        memory = mmap.mmap(-1, size // block * block)  # untouched pages cost nothing
        self._memory = np.frombuffer(memory, np.uint8).reshape(-1, block)
        self._free = list(range(len(self._memory)))
        self._places: OrderedDict[bytes, _Place] = OrderedDict()  # the youngest last
        self._lock = threading.Lock()
        self._counts = StoreCounts()

    # ------------------------------------------------------------ reading

    def match_prefix(self, keys: Sequence[bytes]) -> int:
        """See `BlockStore.match_prefix`; asks the store only for what comes after the tier's own."""
        with self._lock:
            own = next((place for place, key in enumerate(keys) if not self._has(key)), len(keys))
        return own + self._inner.match_prefix(keys[own:]) if own < len(keys) else own

    def read_full(self, keys: Sequence[bytes], into: Sequence[memoryview]) -> list[ReadResult]:
        """See `BlockStore.read_full`."""
        return [self._read_one(key, buffer) for key, buffer in zip(keys, into, strict=True)]

    def _read_one(self, key: bytes, into: memoryview) -> ReadResult:
        place = self._pinned(key)
        if place is not None:
            np.frombuffer(into, np.uint8)[:] = self._memory[place.number]
            self._unpin(place)
            self._counts.add(tier_blocks=1, tier_bytes=into.nbytes)
            return ReadResult.HELD
        (result,) = self._inner.read_full([key], [into])
        if result is ReadResult.HIT:
            self._keep(key, [into])
        return result

    def read_layers(self, key: bytes, layers: Sequence[int], into: Sequence[memoryview]) -> ReadResult:
        """See `BlockStore.read_layers`."""
        place = self._pinned(key)
        if place is None:
            return self._inner.read_layers(key, layers, into)
        rows = self._memory[place.number].reshape(self._layers, -1)
        for layer, part in zip(layers, into, strict=True):
            np.frombuffer(part, np.uint8)[:] = rows[layer]
        self._unpin(place)
        self._counts.add(tier_blocks=1, tier_bytes=sum(part.nbytes for part in into))
        return ReadResult.HELD

    # ------------------------------------------------------------ writing

    def write_full(self, key: bytes, data: Sequence[Buffer]) -> WriteResult:
        """See `BlockStore.write_full`. The block is kept here as well, also if the store does not take it."""
        result = self._inner.write_full(key, data)
        self._keep(key, data)
        return result

    def delete(self, key: bytes) -> None:
        """See `BlockStore.delete`."""
        with self._lock:
            place = self._places.get(key)
            if place is not None and place.ready and not place.pins:
                self._free.append(self._places.pop(key).number)
        self._inner.delete(key)

    def stats(self) -> StoreStats:
        """See `BlockStore.stats`."""
        own = self._counts.values()
        return replace(
            self._inner.stats(),
            tier_blocks=own.get("tier_blocks", 0),
            tier_bytes=own.get("tier_bytes", 0),
        )

    def close(self) -> None:
        """See `BlockStore.close`."""
        self._inner.close()

    # ------------------------------------------------------------ places

    def _keep(self, key: bytes, data: Sequence[Buffer]) -> None:
        """Copy a block in, unless it is there or all places are in use at this moment."""
        with self._lock:
            if key in self._places or (number := self._taken()) is None:
                return
            self._places[key] = place = _Place(number)
        row, end = self._memory[place.number], 0
        for part in data:
            piece = np.frombuffer(part, np.uint8)
            row[end : end + piece.nbytes] = piece
            end += piece.nbytes
        with self._lock:
            place.ready = True

    def _taken(self) -> int | None:
        """A free place, or that of the oldest block that nobody copies now."""
        if self._free:
            return self._free.pop()
        oldest = next((key for key, place in self._places.items() if place.ready and not place.pins), None)
        return None if oldest is None else self._places.pop(oldest).number

    def _has(self, key: bytes) -> bool:
        place = self._places.get(key)
        return place is not None and place.ready

    def _pinned(self, key: bytes) -> _Place | None:
        with self._lock:
            if not self._has(key):
                return None
            self._places.move_to_end(key)
            place = self._places[key]
            place.pins += 1
            return place

    def _unpin(self, place: _Place) -> None:
        with self._lock:
            place.pins -= 1
