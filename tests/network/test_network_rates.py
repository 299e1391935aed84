"""NICs are as fast as they are told to be: measured with real bytes over real sockets."""

from __future__ import annotations

import subprocess

import pytest
from networks import MBIT
from traffic import send

from dualpath_api.errors import SpecError
from dualpath_cli.emulation.network import Network

WITHIN = 0.1


def output(net: Network, node: str, *command: str) -> str:
    """What a command in a node prints."""
    return subprocess.run(net.command(node, command), stdout=subprocess.PIPE, text=True, check=True).stdout


@pytest.mark.parametrize(("source", "target"), [("s0", "p0"), ("p0", "s0")], ids=["towards", "away"])
@pytest.mark.parametrize("rate", [10, 100, 400])
def test_a_rate_is_kept_in_both_directions(net, rate, source, target):
    net.set_rate("p0.snic0", f"{rate}mbit")
    speed = send(net, source, target, "snic0", rate * MBIT // 8 // 2).bits_per_s()
    assert speed == pytest.approx(rate * MBIT, rel=WITHIN)


def test_both_nics_of_a_node_are_independent(net):
    storage = send(net, "s0", "p0", "snic0", 8 << 20)
    compute = send(net, "d0", "p0", "cnic0", 32 << 20)
    assert storage.bits_per_s() == pytest.approx(100 * MBIT, rel=WITHIN)
    assert compute.bits_per_s() == pytest.approx(400 * MBIT, rel=WITHIN)


def test_two_nodes_read_with_twice_the_rate_of_one(net):
    both = [send(net, "s0", node, "snic0", 8 << 20, port=9000 + i) for i, node in enumerate(("p0", "d0"))]
    assert sum(one.bits_per_s() for one in both) == pytest.approx(200 * MBIT, rel=WITHIN)


def test_a_rate_set_while_bytes_flow_holds_from_then_on(net):
    net.set_rate("p0.snic0", "20mbit")
    transfer = send(net, "s0", "p0", "snic0", 12 << 20, tell=256 << 10)
    assert transfer.arrived() < 2 << 20
    net.set_rate("p0.snic0", "200mbit")
    assert net.links()["p0.snic0"].bits_per_s == 200 * MBIT
    assert transfer.bits_per_s() == pytest.approx(200 * MBIT, rel=WITHIN)


def test_counters_see_every_byte_on_both_ends(net):
    size = 4 << 20
    send(net, "s0", "p0", "snic0", size).bits_per_s()
    p0, s0 = net.counters("p0.snic0"), net.counters("s0.snic0")
    assert size < p0.rx_bytes < 1.02 * size
    assert size < s0.tx_bytes < 1.3 * size  # what p0's port had to drop was sent twice
    assert p0.tx_bytes < 0.02 * size
    assert net.counters("d0.snic0").rx_bytes < 0.01 * size


def test_the_node_sees_its_bytes_where_the_kernel_shows_them(net):
    size = 4 << 20
    send(net, "s0", "p0", "snic0", size).bits_per_s()
    seen = int(output(net, "p0", "cat", "/sys/class/net/snic0/statistics/rx_bytes"))
    assert seen == pytest.approx(net.counters("p0.snic0").rx_bytes, rel=0.01)
    assert set(output(net, "p0", "ls", "/sys/class/net").split()) == {"cnic0", "lo", "mnic0", "snic0"}


def test_unlimited_is_faster_than_any_rate_of_the_tests(net):
    for nic in ("p0.cnic0", "d0.cnic0"):
        net.set_rate(nic, "unlimited")
    assert send(net, "d0", "p0", "cnic0", 256 << 20).bits_per_s() > 800 * MBIT


@pytest.mark.parametrize("rate", ["fast", "0mbit", "10", "-5mbit", "1000gbit", "5 mbit", ""])
def test_what_is_no_rate_is_refused(net, rate):
    with pytest.raises(SpecError, match="cannot be used"):
        net.set_rate("p0.snic0", rate)


@pytest.mark.parametrize("nic", ["p9.snic0", "p0", "p0.mnic0", "g0.snic0"])
def test_what_is_no_nic_is_refused_with_those_that_are(net, nic):
    with pytest.raises(SpecError, match=r"p0\.snic0"):
        net.set_rate(nic, "5mbit")
