"""Bytes and notifications between real processes, over TCP and over cross-memory reads."""

import random

import pytest
from process.transfer_peer import TransferProcess


@pytest.fixture
def start():
    started = []

    def starter(*args, **kwargs):
        started.append(TransferProcess(*args, **kwargs))
        return started[-1]

    yield starter
    for process in started:
        process.close()


@pytest.mark.parametrize("tls", ["tcp,self", "tcp,cma,self"])
def test_every_byte_of_an_odd_set_of_blocks_arrives_and_nothing_else_changes(start, tls):
    source = start("decode-0-0", slots=9, tls=tls)
    target = start("prefill-0-0", slots=6, tls=tls)
    source.ask("fill", seed=1)
    target.ask("fill", seed=2)
    target.meet(source)
    theirs, before = source.crcs(), target.crcs()
    draw = random.Random(5)
    local = draw.sample(range(6 * 5), 17)
    remote = draw.sample(range(9 * 5), 17)
    target.pull(source, local, remote, notify="taken")
    assert target.wait("done")["outcome"] == "done"
    expected = dict(enumerate(before)) | {i: theirs[r] for i, r in zip(local, remote, strict=True)}
    assert target.crcs() == list(expected.values())


def test_the_source_hears_of_a_finished_pull(start):
    source, target = start("decode-0-0"), start("prefill-0-0")
    source.meet(target)
    target.meet(source)
    target.pull(source, [0, 1], [7, 3], notify="taken")
    assert source.wait("notified") == {"event": "notified", "peer": "prefill-0-0", "data": "taken"}


def test_notifications_of_one_sender_keep_their_order_whatever_their_size(start):
    a, b = start("prefill-0-0"), start("decode-0-0")
    a.meet(b)
    sizes = [1, 70_000, 3, 20_000, 9_000, 1, 200_000, 2] * 5
    for number, size in enumerate(sizes):
        a.tell("notify", peer=b.engine, data=f"{number} " + "x" * size)
    got = [b.wait("notified")["data"].split()[0] for _ in sizes]
    assert got == [str(n) for n in range(len(sizes))]


def test_many_pulls_from_several_peers_at_once(start):
    sources = [start(f"decode-{i}-0") for i in range(3)]
    target = start("prefill-0-0", slots=24)
    for number, source in enumerate(sources):
        source.ask("fill", seed=10 + number)
    target.meet(*sources)
    for block in range(40):
        for number, source in enumerate(sources):
            target.pull(source, [number * 40 + block], [39 - block], name=f"{number}.{block}")
    for block in range(40):
        for number in range(3):
            assert target.wait("done", name=f"{number}.{block}")["outcome"] == "done"
    for number, source in enumerate(sources):
        assert target.crcs(range(number * 40, number * 40 + 40)) == source.crcs()[::-1]


def test_a_pull_of_nothing_is_done_and_one_outside_the_peer_fails(start):
    source, target = start("decode-0-0"), start("prefill-0-0")
    target.meet(source)
    target.pull(source, [], [], name="nothing")
    target.pull(source, [0], [40], name="outside")
    assert target.wait("done", name="nothing")["outcome"] == "done"
    outside = target.wait("done", name="outside")
    assert outside["outcome"] == "failed"
    assert "outside of 0..39" in outside["why"]


def test_a_peer_with_blocks_of_another_shape_is_refused(start):
    source, target = start("decode-0-0", layers=4), start("prefill-0-0", layers=5)
    target.tell("add", peer=source.peer)
    assert "another shape" in target.wait("refused")["why"]


def test_a_process_with_an_agent_ends_with_its_own_exit_code(start):
    assert start("decode-0-0").close() == 0
