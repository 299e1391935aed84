"""What weights a checkpoint holds, as one hash: other weights at the same path never hit the same blocks.

sha256 over config.json and the weight files' contents (each file hashed alone, in threads, then the digests
in name order). Digests are remembered in the user's cache directory under (real path, size, mtime, ctime,
inode), so only a changed file is read again. Concurrent processes are safe: entries are written aside and
renamed.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from dualpath_worker.models.weights import weight_files

_CHUNK = 1 << 22


def fingerprint(directory: Path) -> str:
    """Hex sha256 of the weights and the config in `directory`."""
    files = [directory / "config.json", *weight_files(directory)]
    with ThreadPoolExecutor(max_workers=min(len(files), os.cpu_count() or 1)) as pool:
        digests = list(pool.map(_file_digest, files))
    whole = hashlib.sha256()
    for digest in digests:
        whole.update(bytes.fromhex(digest))
    return whole.hexdigest()


def cache_directory() -> Path:
    """Where digests are remembered: $XDG_CACHE_HOME/dualpath/fingerprints, else under ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111 - never raises
    return Path(base) / "dualpath" / "fingerprints"


def _identity(path: Path) -> str:
    """Changes whenever the file may have changed."""
    stat = path.stat()
    fields = (os.path.realpath(path), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
    return hashlib.sha256(repr(fields).encode()).hexdigest()


def _file_digest(path: Path) -> str:
    entry = cache_directory() / _identity(path)
    with suppress(OSError):
        known = entry.read_text()
        if len(known) == 64:
            return known
    digest = _hash_file(path)
    # A file that changed while it was read is not remembered under either identity.
    if entry.name == _identity(path):
        _remember(entry, digest)
    return digest


def _hash_file(path: Path) -> str:
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(_CHUNK))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()


def _remember(entry: Path, digest: str) -> None:
    """A cache that cannot be written only costs time, so errors end here."""
    with suppress(OSError):
        entry.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=entry.parent, prefix=".new-")
        try:
            with os.fdopen(handle, "w") as file:
                file.write(digest)
            Path(name).replace(entry)
        except OSError:
            Path(name).unlink(missing_ok=True)
