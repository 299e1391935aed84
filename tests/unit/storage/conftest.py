"""A small layout and blocks with content that depends on the key."""

import hashlib

import pytest

from dualpath_api.keys import KvLayout
from dualpath_worker.storage import FilesStore

LAYOUT = KvLayout(fingerprint="f", dtype="float32", layers=3, kv_heads=1, head_dim=4, block_tokens=8)
SIZE = LAYOUT.full_block_bytes  # 768 bytes: one page of 4 KiB in the store


def key_of(number):
    return hashlib.sha256(str(number).encode()).digest()


def block_of(number):
    return bytearray(hashlib.shake_256(str(number).encode()).digest(SIZE))


@pytest.fixture
def layout():
    return LAYOUT


@pytest.fixture
def blocks():
    """Functions (key of a number, content of a number)."""
    return key_of, block_of


@pytest.fixture
def open_files(tmp_path):
    """Opens stores in one directory; closes them at the end."""
    opened = []

    def opener(limit=1 << 20, path=tmp_path / "kv", layout=LAYOUT):
        opened.append(FilesStore(path, limit, layout))
        return opened[-1]

    yield opener
    for store in opened:
        store.close()


@pytest.fixture
def read_one():
    """Reads one block: (result, bytes)."""

    def reader(store, key):
        buffer = memoryview(bytearray(SIZE))
        (result,) = store.read_full([key], [buffer])
        return result, bytearray(buffer)

    return reader
