"""A process that works on a `files` store until it is told to stop or killed.

storage_worker.py write DIR LIMIT SEED COUNT: write COUNT of 64 keys (0: for ever), reading others in between; says
"ready", then one line of JSON with what became of the writes and reads. A wrong byte ends it with exit code 3.
storage_worker.py fill DIR LIMIT: write ten blocks on a disk that is full, make room, write again.
storage_worker.py start DIR LIMIT: open a store on a disk that is full, write one, make room, write again.

STORE_NODE=NAME: as on another node of a mount whose locks each node sees for itself; NAME=lockless: it has none.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import random
import sys
from collections import Counter
from pathlib import Path

from dualpath_api.keys import KvLayout
from dualpath_worker.storage import FilesStore, ReadResult, WriteResult, places

LAYOUT = KvLayout(fingerprint="f", dtype="float32", layers=4, kv_heads=4, head_dim=64, block_tokens=32)
SIZE = LAYOUT.full_block_bytes  # 256 KiB
KEYS = 64


def key_of(number):
    return hashlib.sha256(str(number).encode()).digest()


def block_of(number):
    return hashlib.sha256(f"block {number}".encode()).digest() * (SIZE // 32)


def check(store, number, counts):
    buffer = memoryview(bytearray(SIZE))
    (result,) = store.read_full([key_of(number)], [buffer])
    counts[f"read {result}"] += 1
    if result is ReadResult.HIT and buffer != block_of(number):
        print(f"wrong bytes in block {number}", flush=True)
        sys.exit(3)


def write(root, limit, seed, count):
    store, draw, counts = FilesStore(Path(root), limit, LAYOUT), random.Random(seed), Counter()
    print("ready", flush=True)
    done = 0
    while count == 0 or done < count:
        number = draw.randrange(KEYS)
        counts[f"write {store.write_full(key_of(number), [block_of(number)])}"] += 1
        check(store, draw.randrange(KEYS), counts)
        if draw.random() < 0.05:
            store.delete(key_of(draw.randrange(KEYS)))
        done += 1
    print(json.dumps(counts), flush=True)
    store.close()


def fill(root, limit):
    store, counts = FilesStore(Path(root), limit, LAYOUT), Counter()
    ballast = Path(root) / "ballast"
    free = os.statvfs(root)
    ballast.write_bytes(bytes(free.f_bavail * free.f_frsize - SIZE // 2))
    for number in range(10):
        counts[f"squeezed {store.write_full(key_of(number), [block_of(number)])}"] += 1
        check(store, number, Counter())
    counts["full"] = int(store.stats().full)
    ballast.unlink()
    for number in range(100, 160):
        result = store.write_full(key_of(number), [block_of(number)])
        counts[f"roomy {result}"] += 1
        if result is WriteResult.WRITTEN:
            check(store, number, counts)
    counts["refused"] = store.stats().refused_blocks
    print(json.dumps(counts), flush=True)
    store.close()


def start(root, limit):
    ballast = Path(root) / "ballast"
    free = os.statvfs(root)
    ballast.write_bytes(bytes(free.f_bavail * free.f_frsize))
    store, counts = FilesStore(Path(root), limit, LAYOUT), Counter()
    counts[f"squeezed {store.write_full(key_of(0), [block_of(0)])}"] += 1
    ballast.unlink()
    counts[f"roomy {store.write_full(key_of(0), [block_of(0)])}"] += 1
    check(store, 0, counts)
    print(json.dumps(counts), flush=True)
    store.close()


def on_another_node(name):
    """Locks never meet those of other processes, and the kernel is another."""

    def flock(fd, flags):
        if name == "lockless":
            raise OSError(errno.ENOLCK, "no locks available")

    fcntl.flock = flock
    places.kernel = lambda: name


if __name__ == "__main__":
    if node := os.environ.get("STORE_NODE"):
        on_another_node(node)
    verb, root, limit, *rest = sys.argv[1:]
    {"write": write, "fill": fill, "start": start}[verb](root, int(limit), *map(int, rest))
