"""What a pull reports when its peer dies, hangs, comes back, or is replaced."""

import msgspec
import pytest
from process.transfer_peer import TransferProcess

from dualpath_api.wire import Peer

BIG = dict(slots=400, layers=4, block=262_144)  # 400 MB: more than all socket buffers


@pytest.fixture
def start():
    started = []

    def starter(*args, **kwargs):
        started.append(TransferProcess(*args, **kwargs))
        return started[-1]

    yield starter
    for process in started:
        process.close()


def incarnation(process):
    return msgspec.msgpack.decode(bytes.fromhex(process.peer), type=Peer).incarnation


def test_a_killed_peer_fails_its_pulls_and_is_reported_lost_once(start):
    source, target = start("decode-0-0", **BIG), start("prefill-0-0", **BIG)
    target.meet(source)
    blocks = list(range(1600))
    target.pull(source, blocks[:4], blocks[:4], name="warm")
    assert target.wait("done", name="warm")["outcome"] == "done"
    source.stop()
    for part in range(3):
        target.pull(source, blocks, blocks, name=f"part{part}")
    source.kill()
    assert target.wait("lost")["incarnation"] == incarnation(source)
    for part in range(3):
        assert target.wait("done", name=f"part{part}")["outcome"] == "failed"
    target.pull(source, [0], [0], name="later")
    assert target.wait("done", name="later")["outcome"] == "failed"
    assert [e for e in target.kept() if e["event"] == "lost"] == []


def test_a_stopped_peer_makes_a_pull_overdue_and_settles_it_when_it_goes_on(start):
    source, target = start("decode-0-0"), start("prefill-0-0")
    source.ask("fill", seed=3)
    target.meet(source)
    target.pull(source, [0], [0], name="warm")
    target.wait("done", name="warm")
    source.stop()
    target.pull(source, [5, 6], [7, 8], deadline=0.3)
    assert target.wait("done", name="pull")["outcome"] == "overdue"
    assert target.ask("stats")["in_flight"] == 1
    while target.ask("stats")["stuck_s"] < 0.5:  # more than a round of the thread takes
        pass
    source.go_on()
    assert target.wait("settled")["outcome"] == "done"
    assert target.ask("stats")["in_flight"] == 0
    while target.ask("stats")["stuck_s"] >= 0.5:
        pass
    assert target.crcs([5, 6]) == source.crcs([7, 8])


def test_a_restarted_peer_of_the_same_name_serves_at_once(start):
    first, target = start("decode-0-0"), start("prefill-0-0")
    target.meet(first)
    target.pull(first, [0], [0], name="first")
    target.wait("done", name="first")
    first.kill()
    second = start("decode-0-0")
    second.ask("fill", seed=9)
    target.meet(second)
    second.meet(target)
    target.pull(second, [1, 2], [3, 4], name="second", notify="taken")
    assert target.wait("done", name="second")["outcome"] == "done"
    assert target.crcs([1, 2]) == second.crcs([3, 4])
    assert second.wait("notified")["data"] == "taken"
    second.tell("notify", peer=target.engine, data="back")
    assert target.wait("notified", data="back")["peer"] == "decode-0-0"


def test_removing_the_old_incarnation_later_does_not_touch_the_new_one(start):
    first, target = start("decode-0-0"), start("prefill-0-0")
    target.meet(first)
    first.kill()
    second = start("decode-0-0")
    target.meet(second)
    target.tell("remove", peer="decode-0-0", incarnation=incarnation(first))
    target.pull(second, [0], [0])
    assert target.wait("done")["outcome"] == "done"


def test_removing_a_peer_leaves_its_overdue_pull_tracked(start):
    source, target = start("decode-0-0"), start("prefill-0-0")
    target.meet(source)
    target.pull(source, [0], [0], name="warm")
    target.wait("done", name="warm")
    source.stop()
    target.pull(source, [1], [2], deadline=0.2, name="late")
    assert target.wait("done", name="late")["outcome"] == "overdue"
    target.tell("remove", peer=source.engine, incarnation=incarnation(source))
    target.pull(source, [3], [3], name="after")
    assert target.wait("done", name="after")["outcome"] == "failed"
    source.go_on()
    assert target.wait("settled", name="late")["outcome"] == "done"


def test_a_peer_that_is_dead_before_it_is_added_is_lost(start):
    source, target = start("decode-0-0"), start("prefill-0-0")
    source.kill()
    target.meet(source)
    target.pull(source, [0], [0])
    assert target.wait("done")["outcome"] == "failed"
    assert target.wait("lost")["peer"] == "decode-0-0"


def test_a_process_that_registers_again_is_reached_by_both_names_and_reaches_back(start):
    a, b = start("prefill-0-0"), start("decode-0-0")
    a.ask("fill", seed=1)
    b.ask("fill", seed=2)
    a.meet(b)
    b.meet(a)
    a.pull(b, [0], [0], name="a1")
    b.pull(a, [1], [1], name="b1")
    assert a.wait("done", name="a1")["outcome"] == b.wait("done", name="b1")["outcome"] == "done"
    again = b.ask("reconnect", incarnation="second")["peer"]
    a.tell("remove", peer=b.engine, incarnation=incarnation(b))
    a.ask("add", peer=again)
    a.pull(b, [2], [3], name="a2", notify="from a")
    assert a.wait("done", name="a2")["outcome"] == "done"
    assert b.wait("notified")["data"] == "from a"
    assert a.crcs([2]) == b.crcs([3])
    b.meet(a)  # as the next request does: a connection that a's change of mind has cut is made anew
    b.pull(a, [4], [5], name="b2", notify="from b")
    assert b.wait("done", name="b2")["outcome"] == "done"
    assert a.wait("notified")["data"] == "from b"
