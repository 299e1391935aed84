"""Where things are below the root directory of a `files` store.

blocks/a/bc/abc...      one file a Full Block, named by its key; 16 x 256 directories, made when needed
scratch/<token>/        unfinished files of one process, beside scratch/<token>.lock which it keeps locked
usage                   bytes in use, shared by all processes
evict.lock              held by the one process that evicts
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path


class Places:
    """Paths of one store, and this process's own scratch directory."""

    def __init__(self, root: Path) -> None:
        """Makes what is missing. Raises OSError."""
        self.root = root
        self.blocks = root / "blocks"
        self.scratch = root / "scratch"
        self.usage = root / "usage"
        self.evict_lock = root / "evict.lock"
        self.blocks.mkdir(parents=True, exist_ok=True)
        self.scratch.mkdir(exist_ok=True)
        self.evict_lock.touch()
        self._prefix = str(self.blocks)
        self._numbers = itertools.count()
        self._lock_fd, self._mine = self._own_scratch()

    def block(self, key: bytes) -> str:
        """Path of a block; a plain string, as this is called for every key of a match."""
        name = key.hex()
        return f"{self._prefix}/{name[0]}/{name[1:3]}/{name}"

    def create_scratch(self) -> tuple[str, int]:
        """A new empty file to write into: path and descriptor. Raises OSError."""
        path = f"{self._mine}/{next(self._numbers)}"
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
        try:
            return path, os.open(path, flags, 0o644)
        except FileNotFoundError:  # somebody has emptied the store under us
            Path(self._mine).mkdir(parents=True, exist_ok=True)
            return path, os.open(path, flags, 0o644)

    def scan(self) -> Iterator[os.DirEntry[str]]:
        """All block files."""
        yield from _files(self._prefix, depth=2)

    def sweep_scratch(self) -> int:
        """Remove the scratch directories of processes that are gone; how many."""
        removed = 0
        for lock in self.scratch.glob("*.lock"):
            with contextlib.suppress(OSError):
                fd = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
                try:
                    # the kernel drops a dead process's lock, however it died
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
                    lock.unlink()
                    removed += 1
                finally:
                    os.close(fd)
        return removed

    def close(self) -> None:
        """Remove this process's scratch."""
        shutil.rmtree(self._mine, ignore_errors=True)
        with contextlib.suppress(OSError):
            Path(self._mine + ".lock").unlink()
        os.close(self._lock_fd)

    def _own_scratch(self) -> tuple[int, str]:
        while True:
            lock = self.scratch / f"{os.getpid()}-{secrets.token_hex(4)}.lock"
            fd = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o644)
            fcntl.flock(fd, fcntl.LOCK_EX)
            if lock.exists():  # else a sweeper took it between the two calls
                mine = lock.with_suffix("")
                mine.mkdir(exist_ok=True)
                return fd, str(mine)
            os.close(fd)


def _files(directory: str, depth: int) -> Iterator[os.DirEntry[str]]:
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            if depth:
                yield from _files(entry.path, depth - 1)
            else:
                yield entry
