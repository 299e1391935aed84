"""Where things are below the root directory of a `files` store.

blocks/a/bc/abc...      one file a Full Block, named by its key; 16 x 256 directories, made when needed
scratch/<kernel>-<token>/   unfinished files of one process, beside its .lock which it keeps locked
usage                   bytes in use, shared by all processes
evict.lock              held by the one process that evicts

On a shared mount the locks of other nodes may not be visible: whether a process of another kernel lives is
seen by its lock file's age, against the file system's own clock, as clocks of nodes differ.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from dualpath_worker.storage.locks import abandoned, kernel, lock

FOREIGN_DEAD_S = 86400.0
"""A process of another node that has not shown itself for so long is taken for dead."""


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
        self._kernel = kernel()
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
        for path in self.scratch.glob("*.lock"):
            with contextlib.suppress(OSError):
                if str(path) != self._mine + ".lock" and self._is_dead(path):
                    shutil.rmtree(path.with_suffix(""), ignore_errors=True)
                    path.unlink()
                    removed += 1
        return removed

    def _is_dead(self, path: Path) -> bool:
        """Whether the owner of a lock file is. Raises OSError."""
        if path.name.startswith(f"{self._kernel}-"):
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                verdict = abandoned(fd)  # the kernel drops a dead process's lock, however it died
            finally:
                os.close(fd)
            if verdict is not None:
                return verdict
        os.utime(self._lock_fd)  # the file system's time, and a sign of life for other nodes
        return os.fstat(self._lock_fd).st_mtime - path.stat().st_mtime > FOREIGN_DEAD_S

    def close(self) -> None:
        """Remove this process's scratch."""
        shutil.rmtree(self._mine, ignore_errors=True)
        with contextlib.suppress(OSError):
            Path(self._mine + ".lock").unlink()
        os.close(self._lock_fd)

    def _own_scratch(self) -> tuple[int, str]:
        while True:
            path = self.scratch / f"{self._kernel}-{os.getpid()}-{secrets.token_hex(4)}.lock"
            fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o644)
            lock(fd, wait=True)
            if path.exists():  # else a sweeper took it between the two calls
                mine = path.with_suffix("")
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
