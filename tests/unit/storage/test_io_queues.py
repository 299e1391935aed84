"""Queues in front of the store: batches, deadlines with a hanging medium, bounded writes, priority."""

import asyncio
import threading

import pytest
from waiting import until

from dualpath_worker.storage import ReadResult, StoreStats, WriteResult
from dualpath_worker.storage.io import SPARE_THREADS, ReadQueue, WriteQueue

PATIENCE_S = 30


class Medium:
    """A store in a dictionary whose reads and writes hang while their gate is closed."""

    def __init__(self):
        self.blocks = {}
        self.reading, self.writing = threading.Event(), threading.Event()
        self.reading.set()
        self.writing.set()
        self.dead = set()  # keys that hang although the gate is open
        self.begun = threading.Semaphore(0)
        self.revived = threading.Event()
        self.order = []

    def match_prefix(self, keys):
        return 0

    def read_full(self, keys, into):
        self.begun.release()
        assert self.reading.wait(PATIENCE_S)
        assert self.dead.isdisjoint(keys) or self.revived.wait(PATIENCE_S)
        results = []
        for key, buffer in zip(keys, into, strict=True):
            self.order.append(("read", key))
            if key in self.blocks:
                buffer[:] = self.blocks[key]
            results.append(ReadResult.HIT if key in self.blocks else ReadResult.MISS)
        return results

    def read_layers(self, key, layers, into):
        return ReadResult.MISS

    def write_full(self, key, data):
        self.begun.release()
        assert self.writing.wait(PATIENCE_S)
        self.order.append(("write", key))
        self.blocks[key] = b"".join(data)
        return WriteResult.WRITTEN

    def delete(self, key):
        self.blocks.pop(key, None)

    def stats(self):
        return StoreStats()

    def close(self):
        pass


@pytest.fixture
def medium():
    return Medium()


@pytest.fixture
def queue_of(medium):
    opened = []

    def opener(**settings):
        opened.append(ReadQueue(medium, **settings))
        return opened[-1]

    yield opener
    medium.reading.set()
    medium.writing.set()
    medium.revived.set()
    for queue in opened:
        queue.close()


def buffers(n):
    return [memoryview(bytearray(4)) for _ in range(n)]


async def test_a_batch_says_what_was_there_and_what_was_not(medium, queue_of):
    medium.blocks = {b"a": b"AAAA", b"c": b"CCCC"}
    into, settled = buffers(3), threading.Event()
    outcome = await queue_of().read([b"a", b"b", b"c"], into, on_settled=settled.set)
    assert (outcome.ok, outcome.failed, outcome.late, outcome.bytes) == ((0, 2), (1,), (), 8)
    assert [bytes(b) for b in into] == [b"AAAA", b"\0\0\0\0", b"CCCC"]
    assert settled.is_set()


async def test_an_empty_batch_is_settled_at_once(queue_of):
    settled = threading.Event()
    outcome = await queue_of().read([], [], on_settled=settled.set)
    assert outcome.bytes == 0
    assert settled.is_set()


async def test_a_hanging_read_is_late_and_settles_only_when_it_returns(medium, queue_of):
    medium.blocks = {b"a": b"AAAA", b"b": b"BBBB"}
    medium.reading.clear()
    queue = queue_of(threads=1, deadline_s=0.1)
    settled, into = threading.Event(), buffers(2)
    outcome = await queue.read([b"a", b"b"], into, on_settled=settled.set)
    assert (outcome.ok, outcome.late) == ((), (0, 1))
    assert queue.queued_bytes == 0
    assert not settled.is_set()
    medium.reading.set()
    assert await asyncio.to_thread(settled.wait, PATIENCE_S)
    assert bytes(into[0]) == b"AAAA"
    again = await queue.read([b"b"], buffers(1), on_settled=lambda: None)
    assert again.ok == (0,)
    assert bytes(into[1]) == b"\0\0\0\0", "a read that had not begun was not given up"


async def test_a_block_behind_a_hanging_one_is_late_but_settled(medium, queue_of):
    medium.dead = {b"a"}
    queue = queue_of(threads=1, deadline_s=0.1)
    settled, into = threading.Event(), buffers(2)
    outcome = await queue.read([b"a", b"b"], into, on_settled=settled.set)
    assert outcome.late == (0, 1)
    assert not settled.is_set()
    medium.revived.set()
    assert await asyncio.to_thread(settled.wait, PATIENCE_S)
    assert ("read", b"b") not in medium.order


async def test_hanging_threads_are_replaced_and_do_not_hold_up_other_batches(medium, queue_of):
    medium.blocks, medium.dead = {b"b": b"BBBB"}, {b"a"}
    queue = queue_of(threads=2, deadline_s=0.3)
    for _ in range(4):
        late = await queue.read([b"a", b"a"], buffers(2), on_settled=lambda: None)
        assert late.late == (0, 1)
        assert (await queue.read([b"b"], buffers(1), on_settled=lambda: None)).ok == (0,)
    assert queue.threads == 2 + 8
    medium.revived.set()
    await asyncio.to_thread(until, lambda: queue.threads == 2, what="the replaced threads to end")
    assert (await queue.read([b"b"], buffers(1), on_settled=lambda: None)).ok == (0,)


async def test_not_more_threads_are_started_than_the_bound_says(medium, queue_of):
    medium.dead = {b"a"}
    queue = queue_of(threads=1, deadline_s=0.01)
    for _ in range(SPARE_THREADS + 3):
        await queue.read([b"a"], buffers(1), on_settled=lambda: None)
    assert queue.threads == 1 + SPARE_THREADS
    medium.revived.set()


async def test_queued_bytes_count_what_is_not_read_yet(medium, queue_of):
    medium.blocks = {b"a": b"AAAA"}
    medium.reading.clear()
    queue = queue_of()
    reading = asyncio.create_task(queue.read([b"a", b"b"], buffers(2), on_settled=lambda: None))
    assert await asyncio.to_thread(medium.begun.acquire, timeout=PATIENCE_S)
    assert queue.queued_bytes == 8
    medium.reading.set()
    await reading
    assert queue.queued_bytes == 0
    assert not queue.busy


async def test_a_full_write_queue_drops_its_oldest_block(medium):
    queue, done = WriteQueue(medium, limit=2), []
    medium.writing.clear()
    queue.put(b"0", [b"0000"], done.append)
    assert await asyncio.to_thread(medium.begun.acquire, timeout=PATIENCE_S)
    for key in (b"1", b"2", b"3"):
        queue.put(key, [key * 4], done.append)
    assert (queue.dropped, done, queue.pending) == (1, [b"1"], 3)
    medium.writing.set()
    queue.close(PATIENCE_S)
    assert sorted(medium.blocks) == [b"0", b"2", b"3"]
    assert sorted(done) == [b"0", b"1", b"2", b"3"]


async def test_closing_drops_what_a_hanging_medium_does_not_take(medium):
    queue, done = WriteQueue(medium), []
    medium.writing.clear()
    for key in (b"0", b"1"):
        queue.put(key, [key * 4], done.append)
    assert await asyncio.to_thread(medium.begun.acquire, timeout=PATIENCE_S)
    queue.close(0.05)
    assert (queue.dropped, done) == (1, [b"1"])
    medium.writing.set()


async def test_a_failing_callback_does_not_stop_the_writes(medium, caplog):
    queue = WriteQueue(medium)
    queue.put(b"0", [b"0000"], lambda key: 1 / 0)
    queue.put(b"1", [b"1111"], lambda key: None)
    queue.close(PATIENCE_S)
    assert sorted(medium.blocks) == [b"0", b"1"]
    assert "callback" in caplog.text


async def test_writes_wait_for_reads(medium, queue_of):
    reads = queue_of(threads=1)
    medium.reading.clear()
    reading = asyncio.create_task(reads.read([b"r"], buffers(1), on_settled=lambda: None))
    assert await asyncio.to_thread(medium.begun.acquire, timeout=PATIENCE_S)
    writes = WriteQueue(medium, reads, yield_s=PATIENCE_S)
    writes.put(b"w", [b"wwww"], lambda key: None)
    medium.reading.set()
    await reading
    await asyncio.to_thread(writes.close, PATIENCE_S)
    assert medium.order == [("read", b"r"), ("write", b"w")]


async def test_a_cancelled_reader_still_has_its_batch_settled(medium, queue_of):
    medium.reading.clear()
    settled = threading.Event()
    reading = asyncio.create_task(queue_of().read([b"a"], buffers(1), on_settled=settled.set))
    assert await asyncio.to_thread(medium.begun.acquire, timeout=PATIENCE_S)
    reading.cancel()
    medium.reading.set()
    assert await asyncio.to_thread(settled.wait, PATIENCE_S)
