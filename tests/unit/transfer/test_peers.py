"""Incarnations and processes: when a connection is shared, kept, dropped and made anew."""

import pytest

from dualpath_api.wire import Peer, PoolInfo
from dualpath_worker.transfer.peers import Peers

POOL = PoolInfo(base=4096, slots=4, layers=2, layer_block_bytes=64)


class Network:
    """The part of NIXL that peers need: who is connected, in order."""

    def __init__(self):
        self.events = []
        self.unreachable = set()

    def connect(self, metadata, pool):
        name = metadata.decode()
        if name in self.unreachable:
            raise OSError("no route")
        self.events.append(f"+{name}")
        return name, object()

    def disconnect(self, name, descriptors):
        self.events.append(f"-{name}")


@pytest.fixture
def network():
    return Network()


@pytest.fixture
def lost():
    return []


@pytest.fixture
def peers(network, lost):
    return Peers(network, lambda engine, incarnation, reason: lost.append((engine, incarnation)))


def peer(engine, incarnation, process):
    return Peer(engine=engine, incarnation=incarnation, agent=f"{engine}/{process}".encode(), pool=b"")


def test_two_incarnations_of_one_process_share_its_connection(peers, network):
    peers.add(peer("d", "1", "a"), POOL)
    peers.add(peer("d", "2", "a"), POOL)
    peers.remove("d", "1")
    assert network.events == ["+d/a"]
    assert peers.find("d").name == "d/a"
    peers.remove("d", "2")
    assert network.events == ["+d/a", "-d/a"]
    assert peers.find("d") is None


def test_a_new_process_replaces_the_old_one(peers, network):
    peers.add(peer("d", "1", "a"), POOL)
    peers.add(peer("d", "2", "b"), POOL)
    assert network.events == ["+d/a", "+d/b", "-d/a"]
    assert peers.find("d").name == "d/b"
    assert peers.engine_of("d/a") is None
    assert peers.engine_of("d/b") == "d"


def test_a_process_is_not_disconnected_while_a_transfer_from_it_is_in_flight(peers, network):
    peers.add(peer("d", "1", "a"), POOL)
    old = peers.find("d")
    old.flights = 1
    peers.add(peer("d", "2", "b"), POOL)
    peers.tidy()
    assert network.events == ["+d/a", "+d/b"]
    old.flights = 0
    peers.tidy()
    assert network.events[-1] == "-d/a"


def test_a_lost_connection_is_reported_once_and_made_anew_by_the_next_add(peers, network, lost):
    peers.add(peer("d", "1", "a"), POOL)
    remote = peers.find("d")
    peers.lose(remote, "reset")
    peers.lose(remote, "reset")
    assert lost == [("d", "1")]
    peers.add(peer("d", "1", "a"), POOL)
    assert network.events == ["+d/a", "-d/a", "+d/a"]
    assert not peers.find("d").lost


def test_a_lost_connection_with_a_transfer_in_flight_is_not_made_anew_yet(peers, lost):
    peers.add(peer("d", "1", "a"), POOL)
    remote = peers.find("d")
    remote.flights = 1
    peers.lose(remote, "reset")
    peers.add(peer("d", "1", "a"), POOL)
    assert peers.find("d") is None
    assert lost == [("d", "1"), ("d", "1")]


def test_an_unreachable_peer_is_lost(peers, network, lost):
    network.unreachable.add("d/a")
    peers.add(peer("d", "1", "a"), POOL)
    assert lost == [("d", "1")]
    assert peers.find("d") is None


def test_a_sender_that_nobody_added_yet_is_known_by_its_name(peers):
    assert peers.engine_of("prefill-0-1/beef") == "prefill-0-1"
