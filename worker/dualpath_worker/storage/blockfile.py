"""The bytes of one block file: data, then one crc32c for each Layer Block, then a trailer.

    data[layers * layer_block_bytes] | crc32c[layers] | trailer | crc32c
    trailer: magic, version, layers, length, key, crc32c(data)

The last checksum covers the table and the trailer. A whole block is checked by one checksum, piece by piece
while the piece is still in the cache; the table serves reads of single layers. The key makes a file under
a wrong name a miss. A file is written once and then renamed into place, never changed. There is no fdatasync:
after a power failure a block may be torn, which its checksums show; a cache need not pay for more.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from itertools import groupby

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from dualpath_api.keys import KvLayout
from dualpath_worker.storage.base import Buffer

_MAGIC = b"DPBLOCK\n"
_VERSION = 1
_TRAILER = struct.Struct("<8sIIQ32sI")
_SUM = struct.Struct("<I")
_IOV_MAX = 512
PIECE = 512 << 10  # a piece fits into the L2 cache of a core, so that its checksum costs no memory traffic


class CorruptBlockError(Exception):
    """The file is not the block that its name says."""


class BlockFormat:
    """Reads and writes block files of one layout."""

    def __init__(self, layout: KvLayout) -> None:
        self.layers = layout.layers
        self.layer_bytes = layout.layer_block_bytes
        self.data_bytes = layout.full_block_bytes
        self._table_bytes = 4 * layout.layers
        self.tail_bytes = self._table_bytes + _TRAILER.size + _SUM.size
        self.file_bytes = self.data_bytes + self.tail_bytes

    def write(self, fd: int, key: bytes, data: Sequence[Buffer]) -> None:
        """Write a new file. Raises OSError; ValueError if the buffers are not those of a block."""
        layers = self.split(data)
        parts = [*(layer.data for layer in layers), memoryview(self.seal(key, layers))]
        offset = 0
        for start in range(0, len(parts), _IOV_MAX):
            offset = _write_all(fd, parts[start : start + _IOV_MAX], offset)

    def seal(self, key: bytes, layers: Sequence[NDArray[np.uint8]]) -> bytes:
        """What stands behind the data of a block: `tail_bytes` bytes."""
        table, whole = np.zeros(self.layers, "<u4"), 0
        for number, layer in enumerate(layers):
            table[number] = google_crc32c.value(layer)
            whole = google_crc32c.extend(whole, layer)
        tail = table.tobytes() + _TRAILER.pack(_MAGIC, _VERSION, self.layers, self.data_bytes, key, whole)
        return tail + _SUM.pack(google_crc32c.value(tail))

    def read(self, fd: int, key: bytes, into: memoryview) -> None:
        """Read and check the whole block. Raises OSError and CorruptBlockError."""
        tail, whole = bytearray(self.tail_bytes), 0
        data = np.frombuffer(into, np.uint8)
        for start in range(0, self.data_bytes, PIECE):
            end = min(start + PIECE, self.data_bytes)
            parts = [into[start:end], memoryview(tail)] if end == self.data_bytes else [into[start:end]]
            if _read_all(fd, parts, start) != sum(part.nbytes for part in parts):
                raise CorruptBlockError("truncated")
            # numpy arrays are the only writable buffers that google_crc32c takes without a copy
            whole = google_crc32c.extend(whole, data[start:end])
        _, expected = self.check_tail(key, tail)
        if whole != expected:
            raise CorruptBlockError("data checksum")

    def read_layers(self, fd: int, key: bytes, layers: Sequence[int], into: Sequence[memoryview]) -> None:
        """Read and check some layers. Raises OSError and CorruptBlockError."""
        tail = bytearray(self.tail_bytes)
        if _read_all(fd, [memoryview(tail)], self.data_bytes) != self.tail_bytes:
            raise CorruptBlockError("truncated")
        table, _ = self.check_tail(key, tail)
        wanted = sorted(zip(layers, into, strict=True), key=lambda item: item[0])
        numbered = [(layer - i, layer, part) for i, (layer, part) in enumerate(wanted)]
        for _, run in groupby(numbered, key=lambda item: item[0]):
            members = list(run)
            parts = [part for _, _, part in members]
            if _read_all(fd, parts, members[0][1] * self.layer_bytes) != len(parts) * self.layer_bytes:
                raise CorruptBlockError("truncated")
            for _, layer, part in members:
                if google_crc32c.value(np.frombuffer(part, np.uint8)) != table[layer]:
                    raise CorruptBlockError("layer checksum")

    def split(self, data: Sequence[Buffer]) -> list[NDArray[np.uint8]]:
        """The layers of a block's buffers. Raises ValueError if they are not those of a block."""
        arrays = [np.frombuffer(part, np.uint8) for part in data]
        sizes = [array.nbytes for array in arrays]
        if sizes == [self.data_bytes]:
            return list(arrays[0].reshape(self.layers, self.layer_bytes))
        if sizes != [self.layer_bytes] * self.layers:
            raise ValueError(f"buffers of {sizes} bytes are not {self.layers} x {self.layer_bytes}")
        return arrays

    def check_tail(self, key: bytes, tail: bytes | bytearray) -> tuple[list[int], int]:
        """Checksums of the layers and of the whole block. Raises CorruptBlockError."""
        body, end = bytes(tail[: -_SUM.size]), len(tail) - _SUM.size
        (expected,) = _SUM.unpack_from(tail, end)
        if google_crc32c.value(body) != expected:
            raise CorruptBlockError("trailer checksum")
        *found, whole = _TRAILER.unpack_from(body, self._table_bytes)
        if found != [_MAGIC, _VERSION, self.layers, self.data_bytes, key]:
            raise CorruptBlockError("another block, layout or version")
        return np.frombuffer(body, "<u4", self.layers).tolist(), whole


def _write_all(fd: int, parts: list[memoryview], offset: int) -> int:
    while parts:
        written = os.pwritev(fd, parts, offset)
        offset += written
        parts = _after(parts, written)
    return offset


def _read_all(fd: int, parts: list[memoryview], offset: int) -> int:
    total = 0
    while parts:
        got = os.preadv(fd, parts[:_IOV_MAX], offset + total)
        if got == 0:
            break
        total += got
        parts = _after(parts, got)
    return total


def _after(parts: list[memoryview], count: int) -> list[memoryview]:
    """What is left of a gather list after `count` bytes."""
    for index, part in enumerate(parts):
        if count < part.nbytes:
            return [part[count:], *parts[index + 1 :]]
        count -= part.nbytes
    return []
