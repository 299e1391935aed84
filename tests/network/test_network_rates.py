"""NICs are as fast as they are told to be: measured with real bytes over real sockets."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from functools import partial

import pytest
from networks import MBIT
from traffic import Transfer, send
from waiting import until

from dualpath_api.errors import SpecError
from dualpath_cli.emulation.live import Meter
from dualpath_cli.emulation.network import Network

WITHIN = 0.1


def output(net: Network, node: str, *command: str) -> str:
    """What a command in a node prints."""
    return subprocess.run(net.command(node, command), stdout=subprocess.PIPE, text=True, check=True).stdout


def keeps(rate: float, *measure: Callable[[], Transfer]) -> bool:
    """Whether what was sent at the same time came with this rate together; more than that is an error."""
    speed = sum(transfer.bits_per_s() for transfer in [one() for one in measure])
    if speed > (1 + WITHIN) * rate:
        raise ValueError(f"{speed / MBIT:.1f} Mbit/s over NICs of {rate / MBIT:g}")
    return speed > (1 - WITHIN) * rate


@pytest.mark.parametrize(("source", "target"), [("s0", "p0"), ("p0", "s0")], ids=["towards", "away"])
@pytest.mark.parametrize("rate", [10, 100, 400])
def test_a_rate_is_kept_in_both_directions(net, rate, source, target):
    net.set_rate("p0.snic0", f"{rate}mbit")
    size = max(rate, 20) * MBIT // 8 // 2
    until(lambda: keeps(rate * MBIT, lambda: send(net, source, target, "snic0", size)))


def test_both_nics_of_a_node_are_independent(net):
    def storage() -> Transfer:
        return send(net, "s0", "p0", "snic0", 8 << 20)

    def compute() -> Transfer:
        return send(net, "d0", "p0", "cnic0", 32 << 20)

    until(lambda: keeps(500 * MBIT, storage, compute))


def test_two_nodes_read_with_twice_the_rate_of_one(net):
    until(lambda: keeps(200 * MBIT, *(
        partial(send, net, "s0", node, "snic0", 8 << 20, port=9000 + number)
        for number, node in enumerate(("p0", "d0"))
    )))  # fmt: skip


def test_a_rate_set_while_bytes_flow_holds_from_then_on(net):
    transfer, meter = send(net, "s0", "p0", "snic0", 500 << 20, tell=1 << 20), Meter(net)
    transfer.arrived()
    for rate in (50, 300, 20):
        net.set_rate("p0.snic0", f"{rate}mbit")
        assert net.links()["p0.snic0"].bits_per_s == rate * MBIT
        until(partial(seen_at, meter, rate * MBIT / 8), 20)
    with transfer:
        assert transfer.sender.poll() is None


def seen_at(meter: Meter, rate: float) -> bool:
    """Whether the NIC has received at this rate since the last look."""
    (nic,) = [nic for nic in meter.read() if nic.nic == "p0.snic0"]
    return nic.rx == pytest.approx(rate, rel=WITHIN)


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
    until(lambda: send(net, "d0", "p0", "cnic0", 256 << 20).bits_per_s() > 800 * MBIT)


@pytest.mark.parametrize("rate", ["fast", "0mbit", "10", "-5mbit", "1000gbit", "5 mbit", ""])
def test_what_is_no_rate_is_refused(net, rate):
    with pytest.raises(SpecError, match="cannot be used"):
        net.set_rate("p0.snic0", rate)


@pytest.mark.parametrize("nic", ["p9.snic0", "p0", "p0.mnic0", "g0.snic0"])
def test_what_is_no_nic_is_refused_with_those_that_are(net, nic):
    with pytest.raises(SpecError, match=r"p0\.snic0"):
        net.set_rate(nic, "5mbit")
