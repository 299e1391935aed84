"""The work queue: one worker per key, nothing lost, the earliest time counts. The clock is virtual."""

from __future__ import annotations

import asyncio

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st
from virtual_time import run

from dualpath_operator.workqueue import WorkQueue

SETTLE_S = 0.25
ADDS = st.lists(
    st.tuples(
        st.floats(0, 20).map(lambda t: round(t, 2)),  # when
        st.sampled_from("abcd"),
        st.none() | st.floats(0, 10).map(lambda t: round(t, 2)),  # after how long
    ),
    min_size=1,
    max_size=20,
)


class Log:
    """What workers did."""

    def __init__(self, *, takes_s: float = 0.0) -> None:
        self.starts: list[tuple[float, str]] = []
        self.busy: set[str] = set()
        self.takes_s = takes_s

    async def handle(self, key: str) -> float | None:
        assert key not in self.busy
        self.busy.add(key)
        self.starts.append((asyncio.get_running_loop().time(), key))
        await asyncio.sleep(self.takes_s)
        self.busy.discard(key)
        return None


async def played(adds, log: Log, workers: int) -> list[tuple[float, str]]:
    """The starts, when all is done."""
    queue: WorkQueue[str] = WorkQueue(SETTLE_S)
    tasks = [asyncio.create_task(queue.work(log.handle)) for _ in range(workers)]
    loop = asyncio.get_running_loop()
    for at, key, after in adds:
        loop.call_at(at, queue.add, key, after)
    await asyncio.sleep(1000)
    assert len(queue) == 0
    for task in tasks:
        assert not task.done()
        task.cancel()
    return log.starts


@given(adds=ADDS, workers=st.integers(1, 3), takes_s=st.sampled_from([0.0, 0.5, 3.0]))
def test_every_key_that_is_added_is_worked_on_afterwards_by_one_worker_at_a_time(adds, workers, takes_s):
    starts = run(played(adds, Log(takes_s=takes_s), workers))
    for at, key, _ in adds:
        assert any(start >= at - 1e-6 and name == key for start, name in starts)
    assert len(starts) <= len(adds)


@given(adds=ADDS)
def test_with_workers_to_spare_a_key_starts_when_its_earliest_time_has_come(adds):
    starts = run(played(adds, Log(), 4))
    for at, key, after in adds:
        due = at + (SETTLE_S if after is None else after)
        assert any(at - 1e-6 <= start <= due + 1e-6 and name == key for start, name in starts)


@pytest.mark.parametrize(("first", "second"), [(5.0, 1.0), (1.0, 5.0)])
def test_the_earlier_of_two_times_counts(first, second):
    assert run(played([(0.0, "a", first), (0.0, "a", second)], Log(), 1)) == [(1.0, "a")]


def test_a_burst_becomes_one_pass():
    assert run(played([(0.1 * i, "a", None) for i in range(3)], Log(), 2)) == [(0.25, "a")]


def test_what_is_added_while_it_is_worked_on_is_worked_on_once_more():
    starts = run(played([(0.0, "a", 0.0), (1.0, "a", 0.0), (1.5, "a", 0.0)], Log(takes_s=4.0), 2))
    assert starts == [(0.0, "a"), (4.25, "a")]


def test_a_worker_says_when_it_wants_a_key_again():
    async def story() -> list[float]:
        queue: WorkQueue[str] = WorkQueue()
        starts: list[float] = []

        async def handle(_: str) -> float | None:
            starts.append(asyncio.get_running_loop().time())
            return 7.0 if len(starts) < 3 else None

        worker = asyncio.create_task(queue.work(handle))
        queue.add("a")
        await asyncio.sleep(100)
        worker.cancel()
        return starts

    assert run(story()) == [0.0, 7.0, 14.0]


def test_the_loop_of_the_operator_will_do():
    async def story() -> None:
        queue: WorkQueue[str] = WorkQueue()
        log = Log()
        worker = asyncio.create_task(queue.work(log.handle))
        queue.add("a", 0.0)  # a handle of uvloop does not tell its time
        queue.add("a", 0.0)
        async with asyncio.timeout(10):
            while not log.starts:  # noqa: ASYNC110  the queue tells nobody
                await asyncio.sleep(0.001)
        worker.cancel()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(story())
