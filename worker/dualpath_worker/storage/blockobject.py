"""A block as one object in memory: the very bytes of its file, packed and unpacked with their checksums."""

from __future__ import annotations

from collections.abc import Sequence

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from dualpath_worker.storage.base import Buffer
from dualpath_worker.storage.blockfile import PIECE, BlockFormat, CorruptBlockError

Bytes = NDArray[np.uint8]


def pack(shape: BlockFormat, key: bytes, data: Sequence[Buffer], into: Bytes) -> None:
    """Make the object. Raises ValueError if the buffers are not those of a block."""
    layers = into[: shape.data_bytes].reshape(shape.layers, shape.layer_bytes)
    for target, source in zip(layers, shape.split(data), strict=True):
        target[:] = source
    into[shape.data_bytes : shape.file_bytes] = np.frombuffer(shape.seal(key, list(layers)), np.uint8)


def unpack(shape: BlockFormat, key: bytes, source: Bytes, into: memoryview) -> None:
    """Copy and check the whole block. Raises CorruptBlockError.

    What is checked is the copy: the source may still change.
    """
    _, expected = shape.check_tail(key, source[shape.data_bytes : shape.file_bytes].tobytes())
    target, whole = np.frombuffer(into, np.uint8), 0
    for start in range(0, shape.data_bytes, PIECE):
        end = min(start + PIECE, shape.data_bytes)
        target[start:end] = source[start:end]
        whole = google_crc32c.extend(whole, target[start:end])
    if whole != expected:
        raise CorruptBlockError("data checksum")


def unpack_layers(
    shape: BlockFormat, key: bytes, layers: Sequence[int], source: Bytes, into: Sequence[memoryview]
) -> None:
    """Copy and check layers, which lie in `source` one behind the other and before the tail.

    Raises CorruptBlockError.
    """
    end = len(layers) * shape.layer_bytes
    table, _ = shape.check_tail(key, source[end : end + shape.tail_bytes].tobytes())
    for place, (layer, part) in enumerate(zip(layers, into, strict=True)):
        target = np.frombuffer(part, np.uint8)
        target[:] = source[place * shape.layer_bytes : (place + 1) * shape.layer_bytes]
        if google_crc32c.value(target) != table[layer]:
            raise CorruptBlockError("layer checksum")
