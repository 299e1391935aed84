"""The memory in front of a store: what it answers itself, what it forgets, and that it never mixes blocks up."""

import threading
from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.storage.conftest import LAYOUT, SIZE, block_of, key_of

from dualpath_api.cluster import StorageSpec
from dualpath_api.errors import SpecError
from dualpath_worker.storage import FilesStore, ReadResult, StoreStats, WriteResult, open_store
from dualpath_worker.storage.tier import DramTier

BLOCKS = 3


@pytest.fixture
def store(open_files):
    return DramTier(open_files(), BLOCKS * SIZE + 1, LAYOUT)


def write(store, *numbers):
    for number in numbers:
        assert store.write_full(key_of(number), [block_of(number)]).ok


def tier_hits(store):
    return store.stats().tier_blocks


def test_what_was_written_or_read_is_read_from_memory(store, open_files, read_one):
    write(store, 1)
    write(open_files(), 2)  # by another process
    for number, result, hits in (
        (1, ReadResult.HELD, 1),
        (2, ReadResult.HIT, 1),  # of the store
        (2, ReadResult.HELD, 2),
    ):
        assert read_one(store, key_of(number)) == (result, block_of(number))
        assert tier_hits(store) == hits
    stats = store.stats()
    assert (stats.read_blocks, stats.tier_blocks, stats.tier_bytes) == (1, 2, 2 * SIZE)


def test_the_least_recently_used_block_makes_room(store, read_one):
    write(store, 1, 2, 3)
    read_one(store, key_of(1))
    write(store, 4)  # in the place of 2
    before = store.stats().read_blocks
    for number in (1, 3, 4):
        assert read_one(store, key_of(number)) == (ReadResult.HELD, block_of(number))
    assert store.stats().read_blocks == before
    assert read_one(store, key_of(2)) == (ReadResult.HIT, block_of(2))
    assert store.stats().read_blocks == before + 1


def test_layers_come_from_memory_too(store):
    layers = block_of(1)
    part = LAYOUT.layer_block_bytes
    assert (
        store.write_full(key_of(1), [layers[i : i + part] for i in range(0, SIZE, part)])
        is WriteResult.WRITTEN
    )
    into = [bytearray(part), bytearray(part)]
    assert store.read_layers(key_of(1), [2, 0], [memoryview(one) for one in into]) is ReadResult.HELD
    assert into == [layers[2 * part :], layers[:part]]
    assert (tier_hits(store), store.stats().tier_bytes) == (1, 2 * part)


def test_a_match_goes_on_below_where_the_memory_ends(store, open_files):
    write(store, 0, 1, 2, 3)  # 0 is only in the directory by now
    write(open_files(), 4)
    keys = [key_of(number) for number in range(6)]
    assert store.match_prefix(keys) == 5
    assert store.match_prefix(keys[1:]) == 4
    assert store.match_prefix(keys[2:4]) == 2
    assert store.match_prefix([]) == 0


def test_a_deleted_block_is_gone_from_both(store, read_one):
    write(store, 1)
    store.delete(key_of(1))
    assert read_one(store, key_of(1))[0] is ReadResult.MISS
    assert store.match_prefix([key_of(1)]) == 0


def test_a_block_that_the_store_refuses_is_kept_in_memory(tmp_path, read_one):
    inner = FilesStore(tmp_path / "kv", 4096, LAYOUT)  # one block
    store = DramTier(inner, BLOCKS * SIZE, LAYOUT)
    write(store, 1)
    store.write_full(key_of(2), [block_of(2)])
    assert read_one(store, key_of(1)) == (ReadResult.HELD, block_of(1))
    assert read_one(store, key_of(2)) == (ReadResult.HELD, block_of(2))
    store.close()


@given(st.lists(st.tuples(st.sampled_from(["write", "read", "delete"]), st.integers(0, 6)), max_size=60))
def test_it_answers_as_a_cache_of_that_size_would(steps):
    """Against a model: the inner store is a dictionary, the tier an ordered one."""
    inner, model, hits = Dictionary(), OrderedDict(), 0
    store = DramTier(inner, BLOCKS * SIZE, LAYOUT)
    for verb, number in steps:
        key = key_of(number)
        if verb == "write":
            store.write_full(key, [block_of(number)])
        elif verb == "delete":
            store.delete(key)
            model.pop(key, None)
            continue
        else:
            buffer = bytearray(SIZE)
            (result,) = store.read_full([key], [memoryview(buffer)])
            assert result.ok == (key in inner.blocks)
            assert not result.ok or buffer == block_of(number)
            if key in model:
                hits += 1
                model.move_to_end(key)
                continue
            if not result.ok:
                continue
        if key not in model:
            if len(model) == BLOCKS:
                model.popitem(last=False)
            model[key] = number
        assert store.stats().tier_blocks == hits
    assert store.match_prefix(list(model)) == len(model)


def test_many_threads_never_see_a_wrong_byte(store):
    wrong = []

    def work(seed):
        draw = np.random.default_rng(seed)
        buffer = bytearray(SIZE)
        for number in draw.integers(0, 8, 300).tolist():
            if draw.random() < 0.3:
                store.write_full(key_of(number), [block_of(number)])
            (result,) = store.read_full([key_of(number)], [memoryview(buffer)])
            if result.ok and buffer != block_of(number):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert tier_hits(store) > 0


def test_the_spec_sizes_it_for_all_ranks_of_a_group(tmp_path):
    spec = {"files": {"path": str(tmp_path / "kv"), "size": "1Mi"}, "dramTier": {"size": "1Mi"}}
    store = open_store(StorageSpec.model_validate(spec), LAYOUT, ranks=2)
    assert isinstance(store, DramTier)
    assert len(store._memory) == (1 << 19) // SIZE
    store.close()
    with pytest.raises(SpecError, match="less than one block"):
        open_store(StorageSpec.model_validate(spec), LAYOUT, ranks=1 << 20)
    del spec["dramTier"]
    plain = open_store(StorageSpec.model_validate(spec), LAYOUT)
    assert isinstance(plain, FilesStore)
    plain.close()


class Dictionary:
    """A store without bounds, for the model; stats are its own."""

    def __init__(self):
        self.blocks = {}

    def match_prefix(self, keys):
        return next((place for place, key in enumerate(keys) if key not in self.blocks), len(keys))

    def read_full(self, keys, into):
        for key, buffer in zip(keys, into, strict=True):
            buffer[:] = self.blocks.get(key, bytes(SIZE))
        return [ReadResult.HIT if key in self.blocks else ReadResult.MISS for key in keys]

    def write_full(self, key, data):
        self.blocks[key] = b"".join(map(bytes, data))
        return WriteResult.WRITTEN

    def delete(self, key):
        self.blocks.pop(key, None)

    def stats(self):
        return StoreStats()
