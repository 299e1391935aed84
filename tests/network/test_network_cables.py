"""A pulled cable: the node sees it, nothing passes, and connections go on once it is back."""

from __future__ import annotations

from networks import MBIT
from test_network_rates import output
from traffic import send
from waiting import until


def test_a_cut_nic_loses_its_carrier_and_keeps_its_address(net):
    net.cut("p0.snic0")
    assert output(net, "p0", "cat", "/sys/class/net/snic0/carrier") == "0\n"
    assert net.address("p0", "snic0") in output(net, "p0", "ip", "addr", "show", "dev", "snic0")
    assert not net.links()["p0.snic0"].up
    assert net.links()["p0.cnic0"].up
    net.restore("p0.snic0")
    until(lambda: output(net, "p0", "cat", "/sys/class/net/snic0/carrier") == "1\n", 10)


def test_a_connection_survives_a_cut(net):
    transfer = send(net, "s0", "p0", "snic0", 4 << 20, tell=512 << 10)
    assert transfer.arrived() >= 512 << 10
    net.cut("p0.snic0")
    before = net.counters("p0.snic0").rx_bytes
    send(net, "d0", "s0", "snic0", 1 << 20, port=9001).bits_per_s()  # takes as long as what is still missing
    assert net.counters("p0.snic0").rx_bytes == before
    assert transfer.receiver.poll() is None
    net.restore("p0.snic0")
    transfer.bits_per_s()


def test_only_the_cut_nic_is_cut(net):
    net.cut("p0.snic0")
    send(net, "d0", "p0", "cnic0", 1 << 20).bits_per_s()
    send(net, "s0", "d0", "snic0", 1 << 20).bits_per_s()


def test_the_rate_outlives_a_cut(net):
    net.set_rate("p0.snic0", "50mbit")
    net.cut("p0.snic0")
    net.restore("p0.snic0")
    assert net.links()["p0.snic0"].bits_per_s == 50_000_000
    assert send(net, "s0", "p0", "snic0", 2 << 20).bits_per_s() < 55 * MBIT
