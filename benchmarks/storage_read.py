"""How fast blocks come out of the `files` store, against a plain preadv of the same files and NIXL POSIX.

Usage: python benchmarks/storage_read.py [DIRECTORY] [--blocks 256] [--layers 28] [--layer-kib 64]

All take turns in the same process, from the page cache; the figure is the median of the rounds. On one
thread: `pread` reads into new bytes objects, `preadv` into memory that has been touched before, as all others
do; `store` checks the checksums as well; `nixl` registers the files and reads them all in one transfer.
`queue` is what an engine does: the same as `store`, through the threads of its read queue.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dualpath_api.keys import KvLayout
from dualpath_worker.blocks import BlockPool
from dualpath_worker.storage import FilesStore
from dualpath_worker.storage.io import ReadQueue


def main() -> None:
    """Print one line for each way of reading."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", nargs="?", type=Path)
    parser.add_argument("--blocks", type=int, default=256)
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--layer-kib", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="print GB/s of each way as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as scratch:
        measure(Path(scratch), options)


def measure(root: Path, options: argparse.Namespace) -> None:
    """Write the blocks, then read them in turns."""
    layout = KvLayout(
        fingerprint="benchmark",
        dtype="bfloat16",
        layers=options.layers,
        kv_heads=options.layer_kib * 1024 // (64 * 2 * 2 * 64),
        head_dim=64,
        block_tokens=64,
    )
    pool = BlockPool(slots=options.blocks, layers=layout.layers, layer_block_bytes=layout.layer_block_bytes)
    pool.tensor.random_(0, 256)
    keys = [hashlib.sha256(str(number).encode()).digest() for number in range(options.blocks)]
    views = [pool.slot_view(slot) for slot in range(options.blocks)]
    store = FilesStore(root, 1 << 40, layout)
    for key, view in zip(keys, views, strict=True):
        store.write_full(key, [view])
    paths = [next((root / "blocks").rglob(key.hex())) for key in keys]

    def read_store() -> None:
        if not all(result.ok for result in store.read_full(keys, views)):
            sys.exit("the store did not find what it wrote")

    queue = ReadQueue(store)

    def read_queue() -> None:
        outcome = asyncio.run(queue.read(keys, views, on_settled=lambda: None))
        if len(outcome.ok) != len(keys):
            sys.exit("the queue did not find what was written")

    ways: dict[str, Callable[[], None]] = {
        "pread": lambda: plain_pread(paths, layout.full_block_bytes),
        "preadv": lambda: plain_preadv(paths, views),
        "store": read_store,
        "queue": read_queue,
        "nixl": nixl_posix(paths, pool),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.rounds + 1):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - began)
    size = options.blocks * layout.full_block_bytes
    if options.json:
        speeds = {name: size / statistics.median(values[1:]) / 1e9 for name, values in seconds.items()}
        print(json.dumps(speeds))  # noqa: T201
        return
    base = [statistics.median(seconds[name][1:]) for name in ("pread", "preadv")]
    for name, values in seconds.items():
        median = statistics.median(values[1:])
        shares = f"{base[0] / median:5.2f} of pread {base[1] / median:5.2f} of preadv"
        print(f"{name:6} {size / median / 1e9:6.2f} GB/s {shares}")  # noqa: T201
    store.close()


def plain_pread(paths: list[Path], size: int) -> None:
    """Open, pread, close."""
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        os.pread(fd, size, 0)
        os.close(fd)


def plain_preadv(paths: list[Path], views: list[memoryview]) -> None:
    """Open, preadv, close."""
    for path, view in zip(paths, views, strict=True):
        fd = os.open(path, os.O_RDONLY)
        os.preadv(fd, [view], 0)
        os.close(fd)


def nixl_posix(paths: list[Path], pool: BlockPool) -> Callable[[], None]:
    """Open, register, one READ of all, deregister, close."""
    from nixl._api import nixl_agent, nixl_agent_config

    agent = nixl_agent("benchmark", nixl_agent_config(backends=[], enable_prog_thread=False))
    agent.create_backend("POSIX")
    agent.register_memory(pool.tensor)
    size, base = pool.full_block_bytes, pool.tensor.data_ptr()
    rows = np.zeros((pool.slots, 3), np.uint64)
    rows[:, 0] = base + np.arange(pool.slots) * size
    rows[:, 1] = size
    local = agent.get_xfer_descs(rows, "DRAM")

    def read() -> None:
        fds = [os.open(path, os.O_RDONLY) for path in paths]
        registered = agent.register_memory([(0, size, fd, "") for fd in fds], "FILE")
        remote = agent.get_xfer_descs([(0, size, fd) for fd in fds], "FILE")
        handle = agent.initialize_xfer("READ", local, remote, "benchmark")
        state = agent.transfer(handle)
        while state == "PROC":
            state = agent.check_xfer_state(handle)
        agent.release_xfer_handle(handle)
        agent.deregister_memory(registered)
        for fd in fds:
            os.close(fd)
        if state != "DONE":
            sys.exit("NIXL could not read")

    return read


if __name__ == "__main__":
    main()
