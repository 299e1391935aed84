"""What stands between a caller and a library that hangs: the pool of calls, landings, suspects, packed blocks."""

import asyncio
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.storage.conftest import LAYOUT, SIZE, block_of, key_of
from waiting import until

from dualpath_worker.storage.blockfile import BlockFormat, CorruptBlockError
from dualpath_worker.storage.blockobject import pack, unpack, unpack_layers
from dualpath_worker.storage.calls import CallPool, CallsExhaustedError
from dualpath_worker.storage.landing import LandingZone
from dualpath_worker.storage.suspects import Suspects

SHAPE = BlockFormat(LAYOUT)


@pytest.fixture
def gate():
    """What hung calls wait for; open at the end."""
    event = threading.Event()
    yield event
    event.set()


def test_a_call_gives_its_result_or_its_error():
    calls = CallPool(2, "test")
    assert calls.submit(lambda: 7).result(30) == 7
    with pytest.raises(ZeroDivisionError):
        calls.submit(lambda: 1 // 0).result(30)
    assert calls.wait_idle(30)
    calls.close()


def test_a_hung_call_leaves_the_others_alone_until_there_are_too_many(gate):
    calls = CallPool(3, "test")
    hung = [calls.submit(gate.wait) for _ in range(2)]
    with pytest.raises(TimeoutError):
        hung[0].result(0.01)
    assert [calls.submit(lambda: 7).result(30) for _ in range(5)] == [7] * 5
    assert calls.outstanding == 2
    hung.append(calls.submit(gate.wait))
    with pytest.raises(CallsExhaustedError):
        calls.submit(lambda: 7)
    assert not calls.wait_idle(0.01)
    gate.set()
    assert [future.result(30) for future in hung] == [True] * 3
    until(lambda: calls.submit(lambda: 7).result(30) == 7)


async def test_one_who_stops_waiting_does_not_harm_the_pool(gate):
    calls = CallPool(2, "test")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.wrap_future(calls.submit(gate.wait)), 0.01)
    gate.set()
    assert await asyncio.to_thread(calls.wait_idle, 30)
    assert [calls.submit(lambda: 7).result(30) for _ in range(5)] == [7] * 5
    calls.close()


def test_a_landing_is_used_by_one_at_a_time_and_a_lost_one_never_again():
    told = []
    zone = LandingZone(100, 2, lambda address, size: told.append((address, size)) or True)
    one, two = zone.take(), zone.take()
    assert one.memory.size == two.memory.size == 100
    assert told == [(one.address, 100), (two.address, 100)]
    assert zone.take() is None
    zone.give_back(one)
    assert zone.take() is one
    zone.lose(one)
    zone.give_back(two)
    assert zone.take() is two
    assert zone.take() is None
    assert zone.lost == 1


def test_a_landing_that_the_library_refuses_can_be_asked_for_again():
    answers = [False, True]
    zone = LandingZone(100, 1, lambda address, size: answers.pop(0))
    assert zone.take() is None
    assert zone.take() is not None


def test_a_suspect_is_forgotten_after_its_time():
    now = [0.0]
    suspects = Suspects(10.0, lambda: now[0])
    assert not suspects
    assert suspects.add("a")
    assert not suspects.add("a"), "nothing new"
    assert suspects
    assert "a" in suspects
    assert "b" not in suspects
    now[0] = 10.0
    assert "a" not in suspects
    assert not suspects
    assert suspects.add("a")


def packed(number):
    memory = np.zeros(SHAPE.file_bytes, np.uint8)
    pack(SHAPE, key_of(number), [block_of(number)], memory)
    return memory


def test_an_object_has_the_bytes_of_the_block_s_file(open_files, tmp_path):
    store = open_files()
    store.write_full(key_of(1), [block_of(1)])
    (file,) = (path for path in (tmp_path / "kv" / "blocks").rglob("*") if path.is_file())
    assert packed(1).tobytes() == file.read_bytes()


def test_a_packed_block_is_unpacked_whole_and_by_layers():
    memory, whole = packed(1), bytearray(SIZE)
    unpack(SHAPE, key_of(1), memory, memoryview(whole))
    assert whole == block_of(1)
    size = LAYOUT.layer_block_bytes
    some = np.concatenate([memory[2 * size : 3 * size], memory[:size], memory[SIZE:]])
    into = [bytearray(size), bytearray(size)]
    unpack_layers(SHAPE, key_of(1), [2, 0], some, [memoryview(part) for part in into])
    assert into == [block_of(1)[2 * size :], block_of(1)[:size]]
    with pytest.raises(CorruptBlockError):
        unpack_layers(SHAPE, key_of(1), [0, 2], some, [memoryview(part) for part in into])


@given(st.integers(0, SHAPE.file_bytes - 1), st.integers(0, 7))
def test_no_flipped_bit_of_an_object_goes_unseen(where, bit):
    memory = packed(1)
    memory[where] ^= 1 << bit
    with pytest.raises(CorruptBlockError):
        unpack(SHAPE, key_of(1), memory, memoryview(bytearray(SIZE)))


def test_the_object_of_another_key_is_corrupt():
    with pytest.raises(CorruptBlockError):
        unpack(SHAPE, key_of(2), packed(1), memoryview(bytearray(SIZE)))
