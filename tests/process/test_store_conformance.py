"""What every block store has to do, whichever it is. A back end joins by a class in store_bed.py."""

import asyncio
import itertools
import threading
from collections import Counter

import numpy as np
import pytest
from process.store_bed import BEDS, LAYOUT, LIMIT, SIZE, block_of, key_of, read
from waiting import until

from dualpath_worker.storage import ReadResult, WriteResult
from dualpath_worker.storage.io import ReadQueue

NUMBERS = itertools.count()


@pytest.fixture(scope="module", params=BEDS)
def bed(request, tmp_path_factory):
    made = BEDS[request.param](tmp_path_factory.mktemp(request.param))
    yield made
    made.close()


@pytest.fixture
def names():
    """Names of blocks that no other test has: beds are shared."""
    mine = next(NUMBERS)
    return lambda count: [f"{mine}-{number}" for number in range(count)]


@pytest.fixture
def open_store(bed):
    opened = []

    def opener():
        opened.append(bed.open())
        return opened[-1]

    yield opener
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store):
    return open_store()


@pytest.fixture
def writer(open_store):
    """Another client: the one that reads shall know nothing of what is written."""
    return open_store()


def write_all(store, names):
    return Counter(store.write_full(key_of(name), [block_of(name)]) for name in names)


def test_a_block_is_read_back_by_another_client(open_store, names):
    (name,) = names(1)
    one, other = open_store(), open_store()
    assert read(other, key_of(name))[0] is ReadResult.MISS
    assert one.write_full(key_of(name), [block_of(name)]) is WriteResult.WRITTEN
    result, data = read(other, key_of(name))
    assert result is ReadResult.HIT
    assert np.array_equal(data, block_of(name))
    stats = other.stats()
    assert (stats.read_blocks, stats.read_bytes, stats.missed_blocks) == (1, SIZE, 1)
    assert (one.stats().written_blocks, one.stats().written_bytes) == (1, SIZE)


def test_a_match_ends_at_the_first_block_that_is_missing(store, names):
    all_names = names(6)
    write_all(store, [*all_names[:4], all_names[5]])
    keys = [key_of(name) for name in all_names]
    assert store.match_prefix(keys) == 4
    assert store.match_prefix(keys[:3]) == 3
    assert store.match_prefix([keys[4]]) == 0
    assert store.match_prefix([]) == 0


def test_a_block_is_written_from_its_layers_and_layers_are_read_in_any_order(store, names):
    (name,) = names(1)
    layers = block_of(name).reshape(LAYOUT.layers, -1)
    assert store.write_full(key_of(name), list(layers)) is WriteResult.WRITTEN
    assert np.array_equal(read(store, key_of(name))[1], block_of(name))
    into = np.zeros((2, LAYOUT.layer_block_bytes), np.uint8)
    assert store.read_layers(key_of(name), [3, 1], [row.data for row in into]).ok
    assert np.array_equal(into, layers[[3, 1]])
    assert store.read_layers(key_of("none"), [0], [into[0].data]) is ReadResult.MISS


def test_of_many_writers_of_one_key_all_succeed(open_store, names):
    stores, shared, results = [open_store(), open_store()], names(8), Counter()

    def write(store):
        results.update(write_all(store, shared * 2))

    writers = [threading.Thread(target=write, args=(store,)) for store in stores * 2]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert set(results) == {WriteResult.WRITTEN, WriteResult.EXISTS}
    assert results.total() == 4 * 16
    for name in shared:
        result, data = read(stores[0], key_of(name))
        assert result is ReadResult.HIT
        assert np.array_equal(data, block_of(name))


def test_a_part_of_a_batch_that_fails_leaves_the_rest_right(bed, writer, store, names):
    present, gone, broken = names(3)
    write_all(writer, [present, broken])
    bed.corrupt(key_of(broken))
    into = np.zeros((4, SIZE), np.uint8)
    keys = [key_of(name) for name in (gone, present, broken, present)]
    results = store.read_full(keys, [row.data for row in into])
    results = [ReadResult.HIT if result.ok else result for result in results]
    assert results == [ReadResult.MISS, ReadResult.HIT, ReadResult.CORRUPT, ReadResult.HIT]
    assert np.array_equal(into[1], block_of(present))
    assert np.array_equal(into[3], block_of(present))


def test_a_corrupt_block_is_a_miss_is_deleted_and_written_anew(bed, writer, store, names):
    (name,) = names(1)
    write_all(writer, [name])
    bed.corrupt(key_of(name))
    assert read(store, key_of(name))[0] is ReadResult.CORRUPT
    assert read(store, key_of(name))[0] is ReadResult.MISS
    assert store.stats().corrupt_blocks == 1
    assert store.write_full(key_of(name), [block_of(name)]) is WriteResult.WRITTEN
    assert np.array_equal(read(store, key_of(name))[1], block_of(name))


def test_a_corrupt_layer_is_seen_by_a_read_of_that_layer(bed, writer, store, names):
    (name,) = names(1)
    write_all(writer, [name])
    bed.corrupt(key_of(name))  # in the middle: layer 2
    into = np.zeros(LAYOUT.layer_block_bytes, np.uint8)
    assert store.read_layers(key_of(name), [0], [into.data]).ok
    assert store.read_layers(key_of(name), [2], [into.data]) is ReadResult.CORRUPT
    assert read(store, key_of(name))[0] is ReadResult.MISS


def test_a_deleted_block_is_gone(store, names):
    (name,) = names(1)
    write_all(store, [name])
    store.delete(key_of(name))
    store.delete(key_of(name))
    assert read(store, key_of(name))[0] is ReadResult.MISS
    assert store.match_prefix([key_of(name)]) == 0


def test_a_full_store_takes_new_blocks_or_refuses_them_and_never_lies(open_store, names):
    """Three times its size goes through it, read while it evicts."""
    store, reader = open_store(), open_store()
    written, done, wrong, seen = names(3 * LIMIT // SIZE), threading.Event(), [], Counter()

    def watch():
        draw = np.random.default_rng(0)
        while not done.is_set():
            name = written[draw.integers(len(written))]
            result, data = read(reader, key_of(name))
            seen[result] += 1
            if result is ReadResult.HIT and not np.array_equal(data, block_of(name)):
                wrong.append(name)

    watcher = threading.Thread(target=watch)
    watcher.start()
    results = write_all(store, written)
    done.set()
    watcher.join()
    assert wrong == []
    assert set(results) <= {WriteResult.WRITTEN, WriteResult.FULL}
    assert results[WriteResult.WRITTEN] > LIMIT // SIZE  # it made room
    assert set(seen) <= {ReadResult.HIT, ReadResult.MISS, ReadResult.ERROR}
    until(lambda: write_all(store, ["after"])[WriteResult.FULL] == 0, 30)


def test_a_restart_leaves_the_blocks_or_none_and_works_on(bed, store, open_store, names):
    before, after = names(16)[:8], names(16)[8:]
    write_all(store, before)
    bed.restart()
    for client in (store, open_store()):
        found = Counter()
        for name in before:
            result, data = read(client, key_of(name))
            found[result] += 1
            assert result is not ReadResult.HIT or np.array_equal(data, block_of(name))
        assert bed.keeps_blocks == (found == {ReadResult.HIT: 8})

    def work():
        return write_all(store, after).keys() <= {WriteResult.WRITTEN, WriteResult.EXISTS}

    until(work, 30)
    assert np.array_equal(read(store, key_of(after[0]))[1], block_of(after[0]))


async def test_a_store_that_hangs_holds_a_reader_no_longer_than_its_deadline(bed, writer, store, names):
    """And it writes into the reader's buffer no more, once that is said to be settled."""
    held, free = names(2)
    write_all(writer, [held, free])
    queue = ReadQueue(store, threads=2, deadline_s=0.5)
    settled, buffer = asyncio.Event(), np.zeros(SIZE, np.uint8)
    loop = asyncio.get_running_loop()
    with bed.hanging(key_of(held)):
        outcome = await asyncio.wait_for(
            queue.read(
                [key_of(held)], [buffer.data], on_settled=lambda: loop.call_soon_threadsafe(settled.set)
            ),
            20,
        )
        assert outcome.ok == ()
    await asyncio.wait_for(settled.wait(), 60)
    buffer[:] = 7

    def readable():
        return read(store, key_of(free))[0] in (ReadResult.HIT, ReadResult.MISS)

    await asyncio.to_thread(until, readable, 60)
    assert (buffer == 7).all()
    queue.close()
