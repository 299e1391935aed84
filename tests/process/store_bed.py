"""Block stores of all kinds, run for tests: what a back end has to bring to be put to test_store_conformance.py.

A bed is the store, outside of the test's own process where it has processes; `open` gives a client such as an
engine has. A new back end is one more class here and one more name in `BEDS`.
"""

import contextlib
import hashlib
import json
import os
import sys
import urllib.request

import numpy as np
import psutil
from processes import Process, free_ports
from waiting import until

from dualpath_api.keys import KvLayout
from dualpath_worker.storage import FilesStore
from dualpath_worker.storage.base import ReadResult
from dualpath_worker.storage.blockfile import BlockFormat
from dualpath_worker.storage.mooncake import MooncakeStore, Patience
from dualpath_worker.storage.mooncake_client import TCP
from dualpath_worker.storage.mooncake_link import StoreLink
from dualpath_worker.storage.tier import DramTier

LAYOUT = KvLayout(fingerprint="f", dtype="float32", layers=4, kv_heads=4, head_dim=64, block_tokens=32)
SIZE = LAYOUT.full_block_bytes  # 256 KiB
OBJECT = BlockFormat(LAYOUT).file_bytes
LIMIT = 64 << 20
IMPATIENT = Patience(call_s=1.0, ask_s=1.0, suspect_s=5.0)


def key_of(name):
    return hashlib.sha256(str(name).encode()).digest()


def block_of(name):
    return np.frombuffer(hashlib.shake_256(f"block {name}".encode()).digest(SIZE), np.uint8)


class FilesBed:
    """A directory."""

    keeps_blocks = True  # over `restart`

    def __init__(self, folder):
        self.root = folder / "kv"

    def open(self):
        return FilesStore(self.root, LIMIT, LAYOUT)

    def restart(self):
        """There is no process."""

    def corrupt(self, key):
        path = self._path(key)
        data = bytearray(path.read_bytes())
        data[SIZE // 2] ^= 1
        path.write_bytes(data)

    @contextlib.contextmanager
    def hanging(self, key):
        """Opening a pipe that nobody writes to hangs as a dead mount does."""
        path = self._path(key)
        aside = path.with_suffix(".aside")
        path.rename(aside)
        os.mkfifo(path)
        try:
            yield
        finally:
            writer = os.open(path, os.O_RDWR | os.O_NONBLOCK)  # lets the reader go on, into an empty file
            aside.rename(path)
            os.close(writer)

    def close(self):
        """Nothing runs."""

    def _path(self, key):
        name = key.hex()
        return self.root / "blocks" / name[0] / name[1:3] / name


class TierBed(FilesBed):
    """A little memory in front of a directory; a client that never saw a block still finds it below."""

    def open(self):
        return DramTier(super().open(), LIMIT // 4, LAYOUT)


class MooncakeBed:
    """A master and nodes on loopback. Every client of a bed has the domain that was set last."""

    keeps_blocks = False  # the master's memory is all there is

    def __init__(
        self, folder, *, nodes=2, copies=1, size=LIMIT, ttl=3, etcd=(), port=0, patience=IMPATIENT, path=None
    ):
        self.folder, self.copies, self.size, self.ttl = folder, copies, size, ttl
        self.etcd, self.patience, self.domain, self.path = etcd, patience, "default", path
        self.port, self.metrics_port = free_ports(2)
        self.port = port or self.port
        self.master = self.start_master(self.port, self.metrics_port)
        self.nodes = [self.start_node() for _ in range(nodes)]
        self.until_serving(nodes)

    def start_master(self, port, metrics_port):
        where = ("--etcd", ",".join(self.etcd)) if self.etcd else ()
        where += ("--offload",) if self.path else ()
        options = ("--lease", "0.2", "--node-ttl", str(self.ttl), "--port", str(port), *where)
        master = self._start("master", metrics_port, *options)
        master.metrics_port = metrics_port
        return master

    def start_node(self):
        (metrics_port,) = free_ports(1)
        where = ("--etcd", ",".join(self.etcd)) if self.etcd else ("--master", f"127.0.0.1:{self.port}")
        where += ("--medium", "NVMe", "--path", str(self.path)) if self.path else ()
        node = self._start("node", metrics_port, *where, "--size", str(self.size))
        node.metrics_port = metrics_port
        return node

    def _start(self, verb, metrics_port, *options):
        own = ("--host", "127.0.0.1", "--metrics-host", "127.0.0.1", "--metrics-port", str(metrics_port))
        module = (sys.executable, "-P", "-m", "dualpath_worker.storage")
        return Process(verb, [*module, verb, *own, *options], self.folder / f"{verb}-{metrics_port}.log")

    def until_serving(self, nodes):
        """The master knows that many nodes."""
        until(
            lambda: len(store_status(self.metrics_port).get("nodes", ())) == nodes,
            60,
            what="nodes of the store",
        )

    def open(self):
        endpoints = self.etcd or (f"127.0.0.1:{self.port}",)
        link = StoreLink(endpoints, TCP, copies=self.copies)
        assert link.wait(60)
        return MooncakeStore(link, LAYOUT, domain=self.domain, patience=self.patience)

    def restart(self):
        self.master.kill()
        self.master = self.start_master(self.port, self.metrics_port)
        self.until_serving(len(self.nodes))

    def master_program(self):
        """The library's own program: the child of our process."""
        (child,) = psutil.Process(self.master.pid).children()
        return child

    def corrupt(self, key):
        """Put other bytes under the same name, past the store."""
        link = StoreLink((f"127.0.0.1:{self.port}",), TCP)
        assert link.wait(60)
        client, name = link.client, f"{self.domain}/{key.hex()}"
        data = np.zeros(OBJECT, np.uint8)
        assert client.get(name, data.ctypes.data, OBJECT) == OBJECT
        data[SIZE // 2] ^= 1
        assert client.remove(name) == 0
        assert client.put(name, data.ctypes.data, OBJECT) == 0
        client.close()

    @contextlib.contextmanager
    def hanging(self, _key):
        for node in self.nodes:
            node.freeze()
        try:
            yield
        finally:
            for node in self.nodes:
                node.thaw()

    def close(self):
        for process in [*self.nodes, self.master]:
            with contextlib.suppress(ProcessLookupError):
                process.thaw()
            process.kill()


def store_status(metrics_port):
    """What a master says of its store; {}: it does not answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/status", timeout=5) as answer:
            return json.load(answer)
    except OSError:
        return {}


BEDS = {"files": FilesBed, "files-and-tier": TierBed, "mooncake": MooncakeBed}


def read(store, key):
    """One block: (result, bytes). From memory or not: a hit is a hit."""
    buffer = np.zeros(SIZE, np.uint8)
    (result,) = store.read_full([key], [buffer.data])
    return ReadResult.HIT if result.ok else result, buffer
