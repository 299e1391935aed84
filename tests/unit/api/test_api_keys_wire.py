"""Block keys chain; wire messages survive the wire, and newer senders."""

from __future__ import annotations

import hashlib
import struct
import sys

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualpath_api import keys, wire
from dualpath_api.errors import DualPathError, SpecError, UnsupportedError
from dualpath_api.keys import KvLayout, block_keys

LAYOUT = KvLayout(fingerprint="ab", dtype="bfloat16", layers=3, kv_heads=2, head_dim=8, block_tokens=4)
ids = st.lists(st.integers(0, 2**31), max_size=40)


def test_sizes_follow_from_the_layout():
    assert LAYOUT.row_bytes == 2 * 2 * 8 * 2
    assert LAYOUT.layer_block_bytes == 4 * LAYOUT.row_bytes
    assert LAYOUT.full_block_bytes == 3 * LAYOUT.layer_block_bytes


@pytest.mark.parametrize(
    "change", [{"fingerprint": "cd"}, {"dtype": "float32"}, {"layers": 4}, {"block_tokens": 8}]
)
def test_another_layout_has_another_root(change):
    assert msgspec.structs.replace(LAYOUT, **change).root() != LAYOUT.root()


@given(ids, ids, st.integers(1, 8))
def test_a_key_names_the_whole_prefix(prefix, tail, size):
    root = LAYOUT.root()
    keys = block_keys(root, prefix, size)
    assert len(keys) == len(prefix) // size
    longer = block_keys(root, prefix + tail, size)
    assert longer[: len(keys)] == keys
    whole = len(keys) * size
    assert block_keys(keys[-1] if keys else root, (prefix + tail)[whole:], size) == longer[len(keys) :]


@given(ids, st.data())
def test_a_change_ends_the_hit_exactly_there(tokens, data):
    keys = block_keys(LAYOUT.root(), tokens, 4)
    if not keys:
        return
    at = data.draw(st.integers(0, len(keys) * 4 - 1))
    changed = [*tokens[:at], tokens[at] ^ 1, *tokens[at + 1 :]]
    for index, (old, new) in enumerate(zip(keys, block_keys(LAYOUT.root(), changed, 4), strict=True)):
        assert (old == new) == (index < at // 4)


@pytest.mark.parametrize("order", ["little", "big"])
def test_tokens_are_hashed_in_the_same_bytes_on_any_machine(order, monkeypatch):
    monkeypatch.setattr(keys, "byteorder", order)
    packed = struct.pack("<2I" if order == sys.byteorder else ">2I", 1, 2)
    assert block_keys(b"root", [1, 2], 2) == [hashlib.sha256(b"root" + packed).digest()]


def test_messages_survive_the_wire():
    match = wire.Match(query=7, keys=(b"a", b"b"))
    assert wire.decode_to_engine(wire.encode(match)) == match
    failed = wire.Failed(request="r", attempt=1, reason="why")
    assert wire.decode_to_scheduler(wire.encode(failed)) == failed
    grant = wire.Grant(request="r", attempt=1, blocks=(3, 2))
    assert wire.decode_to_peer(wire.encode(grant)) == grant
    pool = wire.PoolInfo(base=1 << 40, slots=2, layers=3, layer_block_bytes=64)
    assert wire.decode_pool(wire.encode(pool)) == pool


def test_fields_of_a_newer_sender_are_ignored_and_nonsense_is_refused():
    newer = msgspec.msgpack.encode({"type": "Want", "request": "r", "attempt": 1, "colour": "blue"})
    assert wire.decode_to_peer(newer) == wire.Want(request="r", attempt=1)
    with pytest.raises(msgspec.DecodeError):
        wire.decode_to_peer(b"\xc1")
    with pytest.raises(msgspec.ValidationError):
        wire.decode_to_engine(wire.encode(wire.Want(request="r", attempt=1)))


@pytest.mark.parametrize("kind", [DualPathError, SpecError, UnsupportedError])
def test_an_error_says_what_why_and_what_to_do(kind):
    error = kind("it broke", cause="a stone", remedy="remove it")
    assert str(error) == "it broke\n  cause:  a stone\n  remedy: remove it"
    assert (error.what, error.cause, error.remedy) == ("it broke", "a stone", "remove it")
