"""The `files` store: one file a Full Block in a directory that all engines see.

Safe by construction: a block appears by a rename of a finished file, so a process may be killed at any
instant; checksums and the key inside show everything else. Any file system will do that has rename. Locks
only save work: several nodes may share a mount whose locks they do not see of each other.

Plain preadv and pwritev: NIXL's POSIX plug-in reads at the same speed (benchmarks/storage_read.py), but wants
every file registered first, and knows neither single blocks that fail nor checksums.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from dualpath_api.errors import SpecError
from dualpath_api.keys import KvLayout
from dualpath_api.units import format_bytes
from dualpath_worker.storage.base import Buffer, ReadResult, StoreStats, WriteResult
from dualpath_worker.storage.blockfile import BlockFormat, CorruptBlockError
from dualpath_worker.storage.counts import StoreCounts
from dualpath_worker.storage.evict import Evictor
from dualpath_worker.storage.places import Places
from dualpath_worker.storage.usage import Usage, footprint

log = logging.getLogger(__name__)

TOUCH_S = 60.0
SQUEEZE_SHARE = 0.1  # of the time at most goes into evictions because others have filled the medium
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class FilesStore:
    """A `BlockStore` in the directory `path`, of at most `limit` bytes."""

    def __init__(self, path: Path, limit: int, layout: KvLayout) -> None:
        """Raises SpecError if the directory cannot be used or cannot hold a single block."""
        self._format = BlockFormat(layout)
        self._size = footprint(self._format.file_bytes)
        if self._size > limit:
            raise SpecError(
                f"spec.storage.files.size is {format_bytes(limit)}, less than one block",
                cause=f"a block of this model takes {self._size} bytes",
                remedy=f"set spec.storage.files.size to at least {format_bytes(64 * self._size)} (64 blocks)",
            )
        try:
            self._places = Places(path)
            self._usage = Usage(self._places.usage)
        except OSError as error:
            raise SpecError(
                f"cannot use {path} as block store",
                cause=str(error),
                remedy=f"let user {os.geteuid()} write to it, or set spec.storage.files.path to another",
            ) from error
        self._evictor = Evictor(self._places, self._usage, limit)
        self._counts = StoreCounts()
        self._full = False
        self._next_squeeze = 0.0
        if self._usage.fresh:
            self._evictor.recount()
        self._evictor.wake()

    # ------------------------------------------------------------ reading

    def match_prefix(self, keys: Sequence[bytes]) -> int:
        """How many leading keys exist. Blocks near the root are marked as the youngest: they go last."""
        now, stale = time.time_ns(), []
        for index, key in enumerate(keys):
            path = self._places.block(key)
            try:
                if now - os.stat(path).st_mtime_ns > TOUCH_S * 1e9:  # noqa: PTH116 - 2,000 keys a call
                    stale.append((index, path))
            except OSError:
                break
        else:
            index = len(keys)
        for position, path in stale:
            _touch(path, now - 1000 * position)
        return index if keys else 0

    def read_full(self, keys: Sequence[bytes], into: Sequence[memoryview]) -> list[ReadResult]:
        """See `BlockStore.read_full`."""
        return [self._read_one(key, buffer) for key, buffer in zip(keys, into, strict=True)]

    def read_layers(self, key: bytes, layers: Sequence[int], into: Sequence[memoryview]) -> ReadResult:
        """See `BlockStore.read_layers`."""
        size = len(layers) * self._format.layer_bytes
        return self._read(key, lambda fd: self._format.read_layers(fd, key, layers, into), size)

    def _read_one(self, key: bytes, into: memoryview) -> ReadResult:
        return self._read(key, lambda fd: self._format.read(fd, key, into), self._format.data_bytes)

    def _read(self, key: bytes, read: Callable[[int], None], size: int) -> ReadResult:
        path = self._places.block(key)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            self._counts.add(missed_blocks=1)
            return ReadResult.MISS
        except OSError as error:
            return self._read_error(path, error)
        try:
            read(fd)
        except CorruptBlockError as error:
            log.warning("deleted block %s: %s", path, error)
            self._counts.add(corrupt_blocks=1)
            self._remove(path, same_as=fd)
            return ReadResult.CORRUPT
        except OSError as error:
            return self._read_error(path, error)
        finally:
            os.close(fd)
        self._counts.add(read_blocks=1, read_bytes=size)
        return ReadResult.HIT

    def _read_error(self, path: str, error: OSError) -> ReadResult:
        log.warning("cannot read block %s: %s", path, error)
        self._counts.add(read_errors=1)
        return ReadResult.ERROR

    # ------------------------------------------------------------ writing

    def write_full(self, key: bytes, data: Sequence[Buffer]) -> WriteResult:
        """See `BlockStore.write_full`. Evicts first if there is no room."""
        path = self._places.block(key)
        if os.path.exists(path):  # noqa: PTH110
            return WriteResult.EXISTS
        try:
            room = self._evictor.make_room(self._size)
            if room:
                self._write(path, key, data)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                log.warning("cannot write block %s: %s", path, error)
                self._counts.add(write_errors=1)
                return WriteResult.ERROR
            room = self._squeeze() and self._written(path, key, data)
        self._say_full(not room)
        if not room:
            self._counts.add(refused_blocks=1)
            return WriteResult.FULL
        self._counts.add(written_blocks=1, written_bytes=self._format.data_bytes)
        return WriteResult.WRITTEN

    def _write(self, path: str, key: bytes, data: Sequence[Buffer]) -> None:
        scratch, fd = self._places.create_scratch()
        try:
            try:
                self._format.write(fd, key, data)
            finally:
                os.close(fd)
            _rename(scratch, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(scratch)  # noqa: PTH108
            raise
        self._evictor.wrote(self._size)

    def _written(self, path: str, key: bytes, data: Sequence[Buffer]) -> bool:
        try:
            self._write(path, key, data)
        except OSError:
            return False
        return True

    def _squeeze(self) -> bool:
        """The medium is full although we are below our limit: give up some old blocks for the new ones."""
        began = time.monotonic()
        if began < self._next_squeeze:
            return False
        limit = max(self._size, self._usage.bytes() - self._size)
        room = False
        with contextlib.suppress(OSError):
            room = self._evictor.make_room(self._size, limit=limit)
        ended = time.monotonic()
        self._next_squeeze = ended + (ended - began) / SQUEEZE_SHARE
        return room

    def _say_full(self, full: bool) -> None:
        if full and not self._full:
            log.warning("block store %s is full: new blocks are not stored", self._places.root)
        if self._full and not full:
            log.info("block store %s has room again", self._places.root)
        self._full = full

    # ------------------------------------------------------------ the rest

    def delete(self, key: bytes) -> None:
        """See `BlockStore.delete`."""
        self._remove(self._places.block(key))

    def _remove(self, path: str, same_as: int | None = None) -> None:
        """Unlink a block, unless it has been replaced since it was opened."""
        with contextlib.suppress(OSError):
            stat = os.stat(path)  # noqa: PTH116
            if same_as is None or os.fstat(same_as).st_ino == stat.st_ino:
                os.unlink(path)  # noqa: PTH108
                self._usage.add(-footprint(stat.st_size))

    def stats(self) -> StoreStats:
        """See `BlockStore.stats`."""
        return StoreStats(
            **self._counts.values(),
            evicted_blocks=self._evictor.evicted_blocks,
            evicted_bytes=self._evictor.evicted_bytes,
            used_bytes=self._usage.bytes(),
            limit_bytes=self._evictor.limit,
            full=self._full,
        )

    def close(self) -> None:
        """See `BlockStore.close`."""
        self._evictor.close()
        self._places.close()
        self._usage.close()


def _touch(path: str, when_ns: int) -> None:
    with contextlib.suppress(OSError):
        os.utime(path, ns=(when_ns, when_ns))


def _rename(scratch: str, path: str) -> None:
    try:
        os.rename(scratch, path)  # noqa: PTH104
    except FileNotFoundError:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        os.rename(scratch, path)  # noqa: PTH104
