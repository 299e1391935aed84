"""Locks of a `files` store, on whatever file system it is.

Some shared file systems have locks that are seen by one node only, or none at all. So a lock here saves work
that two would do, and never stands between a block and its bytes: without it everything is still right.
"""

from __future__ import annotations

import errno
import fcntl
from pathlib import Path

_NONE = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)


def lock(fd: int, *, wait: bool) -> bool:
    """Take the lock of an open file; false: somebody has it, and `wait` was not asked for. Raises OSError."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NONE:
            raise
    return True


def unlock(fd: int) -> None:
    """Give the lock back. Raises OSError."""
    try:
        fcntl.flock(fd, fcntl.LOCK_UN)
    except OSError as error:
        if error.errno not in _NONE:
            raise


def abandoned(fd: int) -> bool | None:
    """Whether nobody of this kernel has the lock of an open file; None: it has no locks. Raises OSError."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NONE:
            raise
        return None
    return True


def kernel() -> str:
    """Names the kernel that knows our locks: other nodes of a shared mount have another."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")[:12]
