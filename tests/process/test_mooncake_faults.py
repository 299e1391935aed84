"""A Mooncake Store whose processes are killed and frozen: reads end in time, in the right bytes or in none."""

import time
from collections import Counter

import kube_tools
import numpy as np
import pytest
from process.store_bed import LAYOUT, SIZE, MooncakeBed, block_of, key_of, read, store_status
from process.store_client import ask
from processes import Process, free_ports
from waiting import until

from dualpath_worker.storage import ReadResult, WriteResult
from dualpath_worker.storage.mooncake import MooncakeStore
from dualpath_worker.storage.mooncake_client import TCP
from dualpath_worker.storage.mooncake_link import StoreLink

NAMES = [str(number) for number in range(32)]
IN_TIME_S = 15.0
"""For a call: its deadlines are some seconds here; the library alone would take 20 to 60."""


@pytest.fixture
def beds(tmp_path):
    """Starts stores; all their processes end with the test."""
    made = []

    def make(**how):
        made.append(MooncakeBed(tmp_path, **how))
        return made[-1]

    yield make
    for bed in made:
        bed.close()


@pytest.fixture
def opened():
    stores = []

    def open_from(bed):
        stores.append(bed.open())
        return stores[-1]

    yield open_from
    for store in stores:
        store.close()


@pytest.fixture
def etcd(tmp_path):
    client, peer = free_ports(2)
    url = f"http://127.0.0.1:{client}"
    process = Process(
        "etcd",
        [
            str(kube_tools.path("etcd")), "--data-dir", str(tmp_path / "etcd"), "--listen-client-urls", url,
            "--advertise-client-urls", url, "--listen-peer-urls", f"http://127.0.0.1:{peer}",
            "--log-level", "error",
        ],
        tmp_path / "etcd.log",
    )  # fmt: skip
    yield f"127.0.0.1:{client}"
    process.kill()


def write_all(store, names=NAMES):
    return Counter(store.write_full(key_of(name), [block_of(name)]) for name in names)


def read_all(store, names=NAMES):
    """Results of all blocks. Raises for a wrong byte, and for a read that is not over in time."""
    found = Counter()
    for name in names:
        began = time.monotonic()
        result, data = read(store, key_of(name))
        assert time.monotonic() - began < IN_TIME_S
        assert result is not ReadResult.HIT or np.array_equal(data, block_of(name)), name
        found[result] += 1
    return found


def all_right(store):
    return read_all(store) == {ReadResult.HIT: len(NAMES)}


def all_written(store):
    return write_all(store).keys() <= {WriteResult.WRITTEN, WriteResult.EXISTS}


def test_a_killed_node_takes_its_blocks_along_and_a_new_one_takes_new_ones(beds, opened):
    bed = beds(nodes=1)
    store = opened(bed)
    assert all_written(store)
    bed.nodes[0].kill()
    assert read_all(store)[ReadResult.HIT] == 0
    until(lambda: store.match_prefix([key_of(NAMES[0])]) == 0, 30, what="the master gives the node up")
    assert read_all(store) == {ReadResult.MISS: len(NAMES)}
    assert store.write_full(key_of("new"), [block_of("new")]) is not WriteResult.WRITTEN
    bed.nodes = [bed.start_node()]
    until(lambda: all_written(store), 60)
    assert all_right(store)


def test_with_two_copies_no_block_is_lost_with_a_node(beds, opened):
    bed = beds(nodes=2, copies=2)
    store = opened(bed)
    assert all_written(store)
    bed.nodes[0].kill()
    assert ReadResult.CORRUPT not in read_all(store)
    until(lambda: all_right(store), 30, what="reads go to the copies")


def test_a_frozen_node_is_asked_once_and_then_left_alone(beds, opened):
    bed = beds(nodes=1, ttl=60)  # the master notices nothing
    store = opened(bed)
    assert all_written(store)
    bed.nodes[0].freeze()
    assert read(store, key_of(NAMES[0]))[0] is ReadResult.ERROR
    skipped_before = store.stats().skipped_blocks
    for name in NAMES[:8]:
        assert read(store, key_of(name))[0] is ReadResult.MISS
    assert store.stats().skipped_blocks == skipped_before + 8
    bed.nodes[0].thaw()
    until(lambda: all_right(store), 60)


def test_the_blocks_of_the_other_node_are_read_while_one_is_frozen(beds, opened):
    bed = beds(nodes=2, ttl=60)
    store = opened(bed)
    assert all_written(store)
    bed.nodes[0].freeze()
    until(lambda: read_all(store).keys() == {ReadResult.HIT, ReadResult.MISS}, 60)
    assert read_all(store)[ReadResult.HIT] >= 4


def test_a_write_to_a_frozen_node_ends_in_time(beds, opened):
    bed = beds(nodes=1, ttl=60)
    store = opened(bed)
    bed.nodes[0].freeze()
    began = time.monotonic()
    assert store.write_full(key_of("a"), [block_of("a")]) is WriteResult.ERROR
    assert time.monotonic() - began < IN_TIME_S
    bed.nodes[0].thaw()
    until(lambda: all_written(store), 60)


def test_a_master_alone_forgets_everything_and_its_clients_come_back(beds, opened):
    bed = beds()
    store = opened(bed)
    assert all_written(store)
    bed.master.kill()
    assert store.match_prefix([key_of(NAMES[0])]) == 0
    assert read_all(store)[ReadResult.HIT] == 0
    assert not all_written(store)
    bed.restart()
    until(lambda: all_written(store), 60)
    assert all_right(store)


def test_a_frozen_master_holds_nobody(beds, opened):
    bed = beds(nodes=1)
    store = opened(bed)
    assert all_written(store)
    bed.master_program().suspend()
    began = time.monotonic()
    assert store.match_prefix([key_of(name) for name in NAMES]) == 0
    assert read_all(store)[ReadResult.HIT] == 0
    assert time.monotonic() - began < 4 * IN_TIME_S
    bed.master_program().resume()
    until(lambda: all_right(store) or all_written(store), 60)


def test_with_etcd_the_blocks_outlive_the_leading_master(beds, etcd):
    bed = beds(nodes=2, copies=2, etcd=(etcd,))
    standby = bed.start_master(*free_ports(2))
    try:
        assert ask(etcd, 2, "write", NAMES) == {"written": len(NAMES)}
        until(lambda: store_status(standby.metrics_port).get("role") == "standby", 60)
        bed.master.kill()

        def all_there():
            found = ask(etcd, 2, "read", NAMES)
            assert "wrong" not in found
            return found == {"hit": len(NAMES)}

        until(all_there, 90, what="the new leader knows all blocks")
    finally:
        standby.kill()


def test_a_node_with_a_directory_gives_its_blocks_back_after_a_restart(beds, opened, tmp_path):
    bed = beds(nodes=1, size=512 << 20, path=tmp_path / "blocks")
    store, many = opened(bed), [str(number) for number in range(256)]
    assert write_all(store, many) == {WriteResult.WRITTEN: len(many)}

    until(
        lambda: any(path.stat().st_size for path in bed.path.rglob("*.meta")), 90, what="a file is complete"
    )
    bed.nodes[0].stop()
    bed.nodes = [bed.start_node()]
    until(lambda: read_all(store, many)[ReadResult.HIT] > 0, 60, what="blocks come back")
    assert ReadResult.CORRUPT not in read_all(store, many)


def test_an_engine_starts_without_a_store_and_joins_it_later(tmp_path, beds):
    (port,) = free_ports(1)
    link = StoreLink((f"127.0.0.1:{port}",), TCP)
    store = MooncakeStore(link, LAYOUT)
    assert not link.wait(0.1)
    assert store.match_prefix([key_of("a")]) == 0
    assert read(store, key_of("a"))[0] is ReadResult.MISS
    assert store.write_full(key_of("a"), [block_of("a")]) is WriteResult.ERROR
    beds(nodes=1, port=port)
    until(lambda: store.write_full(key_of("a"), [block_of("a")]).ok, 60)
    assert np.array_equal(read(store, key_of("a"))[1], block_of("a"))
    store.close()


def test_the_status_of_a_master_counts_nodes_bytes_and_keys(beds, opened):
    bed = beds(nodes=2)
    assert all_written(opened(bed))
    status = store_status(bed.metrics_port)
    assert (status["role"], status["serving"], status["keys"]) == ("leader", True, len(NAMES))
    assert [node["sizeBytes"] for node in status["nodes"]] == [bed.size] * 2
    assert sum(node["usedBytes"] for node in status["nodes"]) >= SIZE * len(NAMES)
