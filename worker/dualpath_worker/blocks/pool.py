"""The registered DRAM buffer of Full Block slots, and who may touch which slot.

States: FREE -> RESERVED -> IN_FLIGHT -> READY -> FREE, or -> QUARANTINED -> FREE.
A slot is IN_FLIGHT while something holds it: a storage read into it, a transfer into it, or a peer that was
told that it may read it. A slot can have several holds at once (layers arrive one by one); `begin` adds
one, `end` takes one away. A slot that its request gives up while it is held is QUARANTINED and becomes FREE
with the end of its last hold, never before: an abandoned transfer still lands (NIXL has no cancellation),
and bytes that land in a slot which somebody else already has would be a wrong answer.

Only the engine's own thread changes states; nothing here is locked. Memory: one anonymous private mapping,
so it is page aligned and untouched pages cost nothing.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Sequence
from enum import IntEnum

import numpy as np
import torch
from numpy.typing import NDArray

from dualpath_api.wire import PoolInfo
from dualpath_worker.blocks.runs import pick

Slots = NDArray[np.int64]


class SlotState(IntEnum):
    """State of one slot."""

    FREE = 0
    RESERVED = 1  # taken, holds nothing yet
    IN_FLIGHT = 2  # at least one hold
    READY = 3  # taken, no hold, has been filled
    QUARANTINED = 4  # given up, still held


class SlotError(RuntimeError):
    """A transition that the state machine does not have: a bug of the caller, never of the user."""


class BlockPool:
    """`slots` Full Blocks of `layers` Layer Blocks of `layer_block_bytes` bytes in one host buffer."""

    def __init__(self, *, slots: int, layers: int, layer_block_bytes: int) -> None:
        if min(slots, layers, layer_block_bytes) < 1:
            raise ValueError(f"empty pool: {slots} slots of {layers} x {layer_block_bytes} bytes")
        self.slots, self.layers, self.layer_block_bytes = slots, layers, layer_block_bytes
        self.full_block_bytes = layers * layer_block_bytes
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        self._memory = mmap.mmap(-1, slots * self.full_block_bytes, flags=flags)
        self._bytes = memoryview(self._memory)
        self.tensor = torch.frombuffer(self._memory, dtype=torch.uint8).view(slots, self.full_block_bytes)
        """uint8 [slots, layers * layer_block_bytes], contiguous, page aligned."""
        self.blocks = self.tensor.view(slots, layers, layer_block_bytes)
        """The same memory, [slots, layers, layer_block_bytes]."""
        self._state = np.zeros(slots, np.uint8)
        self._holds = np.zeros(slots, np.int32)
        self._generation = np.zeros(slots, np.int64)

    # ------------------------------------------------------------ transitions

    def reserve(self, n: int) -> list[int] | None:
        """`n` free slots (all or nothing, neighbours where possible), now RESERVED; None: not enough."""
        slots = pick(self._state == SlotState.FREE, n)
        if slots is not None:
            self._state[slots] = SlotState.RESERVED
        return slots

    def begin(self, slots: Sequence[int]) -> None:
        """Add a hold: RESERVED | READY | IN_FLIGHT -> IN_FLIGHT."""
        taken = self._check(slots, "begin", SlotState.RESERVED, SlotState.READY, SlotState.IN_FLIGHT)
        self._state[taken] = SlotState.IN_FLIGHT
        self._holds[taken] += 1

    def end(self, slots: Sequence[int]) -> None:
        """Take a hold away; with the last one IN_FLIGHT -> READY and QUARANTINED -> FREE."""
        held = self._check(slots, "end", SlotState.IN_FLIGHT, SlotState.QUARANTINED)
        self._holds[held] -= 1
        calm = held[self._holds[held] == 0]
        given_up = self._state[calm] == SlotState.QUARANTINED
        self._state[calm] = SlotState.READY
        self._to_free(calm[given_up])

    def free(self, slots: Sequence[int]) -> None:
        """RESERVED | READY -> FREE. Raises for a held slot: use `retire`."""
        self._to_free(self._check(slots, "free", SlotState.RESERVED, SlotState.READY))

    def retire(self, slots: Sequence[int]) -> list[int]:
        """Free what nothing holds, quarantine the rest until its holds have ended; returns the latter."""
        taken = self._check(slots, "retire", SlotState.RESERVED, SlotState.READY, SlotState.IN_FLIGHT)
        held = self._holds[taken] > 0
        self._state[taken[held]] = SlotState.QUARANTINED
        self._to_free(taken[~held])
        quarantined: list[int] = taken[held].tolist()
        return quarantined

    # ------------------------------------------------------------ reading

    def state(self, slot: int) -> SlotState:
        """State of one slot."""
        return SlotState(int(self._state[slot]))

    def holds(self, slot: int) -> int:
        """How many transfers, reads or peers hold the slot."""
        return int(self._holds[slot])

    def generation(self, slot: int) -> int:
        """How often the slot has been freed: (slot, generation) names one use of it."""
        return int(self._generation[slot])

    @property
    def total(self) -> int:
        """Slots in the pool."""
        return self.slots

    @property
    def quarantined(self) -> int:
        """Slots that wait for the end of an abandoned transfer."""
        return int(np.count_nonzero(self._state == SlotState.QUARANTINED))

    @property
    def available(self) -> int:
        """FREE slots."""
        return int(np.count_nonzero(self._state == SlotState.FREE))

    @property
    def used(self) -> int:
        """Slots of live requests: neither FREE nor QUARANTINED."""
        return self.total - self.available - self.quarantined

    def slot_view(self, slot: int) -> memoryview:
        """The bytes of one Full Block, writable, no copy."""
        start = slot * self.full_block_bytes
        return self._bytes[start : start + self.full_block_bytes]

    def layer_view(self, slot: int, layer: int) -> torch.Tensor:
        """The bytes of one Layer Block: uint8 [layer_block_bytes], no copy."""
        start = layer * self.layer_block_bytes
        return self.tensor[slot, start : start + self.layer_block_bytes]

    def info(self) -> PoolInfo:
        """What a peer needs to address these blocks."""
        return PoolInfo(
            base=self.tensor.data_ptr(),
            slots=self.slots,
            layers=self.layers,
            layer_block_bytes=self.layer_block_bytes,
        )

    # ------------------------------------------------------------ inside

    def _check(self, slots: Sequence[int], verb: str, *allowed: SlotState) -> Slots:
        """The slots as an array: a long prompt has thousands, and this runs on the event loop."""
        asked = np.asarray(slots, np.int64)
        if len(set(slots)) != len(slots):
            raise SlotError(f"cannot {verb} a slot twice in one call: {list(slots)}")
        for slot in asked[(asked < 0) | (asked >= self.slots)]:
            raise SlotError(f"cannot {verb} slot {slot}: the pool has {self.slots}")
        bits = sum(1 << state for state in allowed)
        for slot in asked[(bits >> self._state[asked].astype(np.int64)) & 1 == 0]:
            raise SlotError(f"cannot {verb} slot {slot}: it is {self.state(int(slot)).name}")
        return asked

    def _to_free(self, slots: Slots) -> None:
        self._state[slots] = SlotState.FREE
        self._generation[slots] += 1


def indices(pairs: Iterable[tuple[int, int]], layers: int) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    """Descriptor indices of (slot, layer) pairs for `TransferAgent.pull`: slot * layers + layer."""
    return np.fromiter((slot * layers + layer for slot, layer in pairs), np.int32)
