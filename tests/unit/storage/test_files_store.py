"""The `files` store in one process: contents, misses, damage, size limit, full medium."""

import os
import shutil
import threading
import time

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from waiting import until

from dualpath_api.cluster import StorageSpec
from dualpath_api.errors import SpecError
from dualpath_worker.storage import ReadResult, WriteResult, open_store
from dualpath_worker.storage.locks import kernel

PAGE = 4096


def files_of(root):
    return sorted(path for path in (root / "kv/blocks").rglob("*") if path.is_file())


def file_of(root, key):
    return next(path for path in files_of(root) if path.name == key.hex())


def test_a_written_block_is_read_back(open_files, blocks, read_one, tmp_path):
    key_of, block_of = blocks
    store = open_files()
    assert store.write_full(key_of(1), [block_of(1)]) is WriteResult.WRITTEN
    assert read_one(store, key_of(1)) == (ReadResult.HIT, block_of(1))
    assert read_one(store, key_of(2))[0] is ReadResult.MISS
    (path,) = files_of(tmp_path)
    name = key_of(1).hex()
    assert path == tmp_path / "kv/blocks" / name[0] / name[1:3] / name


def test_pages_of_a_cache_are_gathered_into_a_block(open_files, blocks, read_one):
    key_of, block_of = blocks
    store = open_files()
    pages = [
        np.frombuffer(bytes(block_of(1))[i * 256 :][:256], np.float32).reshape(8, 2, 4) for i in range(3)
    ]
    assert store.write_full(key_of(1), pages).ok
    assert read_one(store, key_of(1)) == (ReadResult.HIT, block_of(1))
    with pytest.raises(ValueError, match="are not 3 x 256"):
        store.write_full(key_of(2), pages[:2])


def test_layers_can_be_read_alone_in_any_order(open_files, blocks):
    key_of, block_of = blocks
    store = open_files()
    store.write_full(key_of(1), [block_of(1)])
    for layers in ([2, 0], [0, 1, 2], [1], []):
        buffers = [memoryview(bytearray(256)) for _ in layers]
        assert store.read_layers(key_of(1), layers, buffers) is ReadResult.HIT
        assert [bytes(b) for b in buffers] == [bytes(block_of(1)[256 * n :][:256]) for n in layers]


def test_a_match_ends_at_the_first_block_that_is_missing(open_files, blocks):
    key_of, block_of = blocks
    store = open_files()
    for number in (0, 1, 3):
        store.write_full(key_of(number), [block_of(number)])
    assert store.match_prefix([key_of(n) for n in range(5)]) == 2
    assert store.match_prefix([key_of(n) for n in (3, 0)]) == 2
    assert store.match_prefix([key_of(9)]) == 0
    assert store.match_prefix([]) == 0


def test_a_second_write_changes_nothing(open_files, blocks, read_one):
    key_of, block_of = blocks
    store = open_files()
    store.write_full(key_of(1), [block_of(1)])
    assert store.write_full(key_of(1), [block_of(2)]) is WriteResult.EXISTS
    assert read_one(store, key_of(1)) == (ReadResult.HIT, block_of(1))


@pytest.mark.parametrize("damage", ["truncated", "empty", "shorter by one", "another block's content"])
def test_a_damaged_block_is_a_miss_is_deleted_and_written_anew(
    open_files, blocks, read_one, tmp_path, damage
):
    key_of, block_of = blocks
    store = open_files()
    for number in (1, 2):
        store.write_full(key_of(number), [block_of(number)])
    path = file_of(tmp_path, key_of(1))
    content = path.read_bytes()
    replacement = {
        "truncated": content[:300],
        "empty": b"",
        "shorter by one": content[:-1],
        "another block's content": file_of(tmp_path, key_of(2)).read_bytes(),
    }
    path.write_bytes(replacement[damage])
    assert read_one(store, key_of(1))[0] is ReadResult.CORRUPT
    assert not path.exists()
    assert read_one(store, key_of(1))[0] is ReadResult.MISS
    assert store.write_full(key_of(1), [block_of(1)]) is WriteResult.WRITTEN
    assert read_one(store, key_of(1)) == (ReadResult.HIT, block_of(1))
    assert store.stats().corrupt_blocks == 1


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_no_flipped_bit_goes_unseen(open_files, blocks, read_one, tmp_path, where, bit):
    key_of, block_of = blocks
    store = open_files()
    store.write_full(key_of(1), [block_of(1)])
    path = file_of(tmp_path, key_of(1))
    content = bytearray(path.read_bytes())
    content[int(where * len(content))] ^= 1 << bit
    path.write_bytes(content)
    assert read_one(store, key_of(1))[0] is ReadResult.CORRUPT


def test_a_damaged_layer_is_seen_by_a_read_of_that_layer(open_files, blocks, tmp_path):
    key_of, block_of = blocks
    store = open_files()
    store.write_full(key_of(1), [block_of(1)])
    path = file_of(tmp_path, key_of(1))
    content = bytearray(path.read_bytes())
    content[300] ^= 1
    path.write_bytes(content)
    buffer = memoryview(bytearray(256))
    assert store.read_layers(key_of(1), [0], [buffer]) is ReadResult.HIT
    assert store.read_layers(key_of(1), [1], [buffer]) is ReadResult.CORRUPT
    assert not path.exists()


def test_another_layout_never_reads_a_block_as_its_own(open_files, blocks, layout):
    key_of, block_of = blocks
    open_files().write_full(key_of(1), [block_of(1)])
    smaller = msgspec.structs.replace(layout, layers=2)
    buffer = memoryview(bytearray(smaller.full_block_bytes))
    assert open_files(layout=smaller).read_full([key_of(1)], [buffer]) == [ReadResult.CORRUPT]


def test_the_least_recently_used_blocks_go_first(open_files, blocks, tmp_path):
    key_of, block_of = blocks
    store = open_files(limit=21 * PAGE)
    for number in range(19):
        store.write_full(key_of(number), [block_of(number)])
        os.utime(file_of(tmp_path, key_of(number)), (1000 + number, 1000 + number))
    assert store.match_prefix([key_of(0), key_of(1)]) == 2
    for number in range(19, 22):
        assert store.write_full(key_of(number), [block_of(number)]) is WriteResult.WRITTEN
    left = {path.name for path in files_of(tmp_path)}
    assert {key_of(n).hex() for n in (0, 1, 19, 20, 21)} <= left
    assert key_of(2).hex() not in left


def test_the_store_never_grows_beyond_its_limit(open_files, blocks, tmp_path):
    key_of, block_of = blocks
    store = open_files(limit=7 * PAGE)
    for number in range(40):
        assert store.write_full(key_of(number), [block_of(number)]).ok
        assert len(files_of(tmp_path)) <= 7
    stats = store.stats()
    assert stats.evicted_blocks == 40 - len(files_of(tmp_path))
    assert stats.used_bytes == len(files_of(tmp_path)) * PAGE


def test_a_chain_that_was_used_together_loses_its_tail_first(open_files, blocks, tmp_path):
    key_of, block_of = blocks
    store = open_files(limit=20 * PAGE)
    for number in range(18):
        store.write_full(key_of(number), [block_of(number)])
        os.utime(file_of(tmp_path, key_of(number)), (1000, 1000))
    chain = [key_of(n) for n in range(18)]
    assert store.match_prefix(chain) == 18
    for number in range(18, 21):
        store.write_full(key_of(number), [block_of(number)])
    kept = store.match_prefix(chain)
    assert 0 < kept < 18
    assert not any(store.match_prefix([key]) for key in chain[kept:])


def test_a_block_stays_readable_for_who_has_opened_it(open_files, blocks, tmp_path):
    key_of, block_of = blocks
    store = open_files(limit=3 * PAGE)
    store.write_full(key_of(0), [block_of(0)])
    with file_of(tmp_path, key_of(0)).open("rb") as reader:
        for number in range(1, 8):
            store.write_full(key_of(number), [block_of(number)])
        assert not (tmp_path / "kv/blocks" / key_of(0).hex()).exists()
        assert reader.read(768) == block_of(0)


def test_a_lost_usage_figure_is_counted_again(open_files, blocks, tmp_path):
    key_of, block_of = blocks
    store = open_files()
    for number in range(3):
        store.write_full(key_of(number), [block_of(number)])
    (tmp_path / "kv/usage").unlink()
    assert open_files().stats().used_bytes == 3 * PAGE


def test_a_wrong_usage_figure_is_put_right_by_the_next_eviction(open_files, blocks, tmp_path):
    key_of, block_of = blocks
    store = open_files(limit=10 * PAGE)
    store.write_full(key_of(0), [block_of(0)])
    for path in files_of(tmp_path):
        path.unlink()
    (tmp_path / "kv/usage").write_bytes((10 * PAGE).to_bytes(8, "little"))
    assert store.write_full(key_of(1), [block_of(1)]).ok
    assert store.stats().used_bytes == PAGE


def test_scratch_of_a_dead_process_is_swept_and_that_of_a_live_one_is_not(open_files, tmp_path):
    dead = tmp_path / f"kv/scratch/{kernel()}-12345-abcdef.lock"
    dead.parent.mkdir(parents=True)
    dead.touch()
    dead.with_suffix("").mkdir()
    (dead.with_suffix("") / "0").write_bytes(b"half a block")
    live = open_files()
    open_files()
    patience = time.monotonic() + 30
    while dead.exists() or dead.with_suffix("").exists():
        assert time.monotonic() < patience
        threading.Event().wait(0.01)
    assert len(list((tmp_path / "kv/scratch").glob("*.lock"))) == 2
    assert live.stats().write_errors == 0


def test_scratch_of_another_node_is_swept_by_its_age_as_the_file_system_s_clock_has_it(open_files, tmp_path):
    open_files()
    scratch, day = tmp_path / "kv/scratch", 86400
    now = (scratch / "young.lock").touch() or (scratch / "young.lock").stat().st_mtime
    for name, age in (("0123456789ab-7-young", day - 600), ("0123456789ab-7-old", day + 600)):
        (scratch / name).mkdir()
        (scratch / f"{name}.lock").touch()
        os.utime(scratch / f"{name}.lock", (now - age, now - age))
    open_files()
    until(lambda: not (scratch / "0123456789ab-7-old").exists(), 30)
    assert (scratch / "0123456789ab-7-young").exists()


def test_an_emptied_directory_is_filled_again(open_files, blocks, read_one, tmp_path):
    key_of, block_of = blocks
    store = open_files()
    store.write_full(key_of(1), [block_of(1)])
    for child in (tmp_path / "kv").iterdir():
        shutil.rmtree(child) if child.is_dir() else child.unlink()
    assert read_one(store, key_of(1))[0] is ReadResult.MISS
    assert store.write_full(key_of(1), [block_of(1)]) is WriteResult.WRITTEN
    assert read_one(store, key_of(1))[0] is ReadResult.HIT


def test_a_deleted_block_is_gone_and_its_room_is_free(open_files, blocks, read_one):
    key_of, block_of = blocks
    store = open_files()
    store.write_full(key_of(1), [block_of(1)])
    store.delete(key_of(1))
    store.delete(key_of(1))
    assert read_one(store, key_of(1))[0] is ReadResult.MISS
    assert store.stats().used_bytes == 0


def test_a_limit_below_one_block_is_refused_at_start(tmp_path, layout):
    layout = msgspec.structs.replace(layout, kv_heads=8192)
    spec = StorageSpec.model_validate({"files": {"path": str(tmp_path), "size": "4Mi"}})
    with pytest.raises(SpecError, match="less than one block") as error:
        open_store(spec, layout)
    assert "64 blocks" in error.value.remedy


def test_a_path_that_is_a_file_is_refused_at_start(tmp_path, layout):
    (tmp_path / "kv").write_text("not a directory")
    spec = StorageSpec.model_validate({"files": {"path": str(tmp_path / "kv"), "size": "1Mi"}})
    with pytest.raises(SpecError, match="cannot use"):
        open_store(spec, layout)
