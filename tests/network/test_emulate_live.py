"""What people are shown of a network is what its queues and cables do."""

from __future__ import annotations

import io

import pytest
from networks import MBIT
from rich.console import Console
from traffic import send
from waiting import until

from dualpath_api.errors import UnsupportedError
from dualpath_cli.emulation import iproute
from dualpath_cli.emulation.live import Meter, View, drawn
from dualpath_cli.emulation.rates import UNLIMITED

BAR = "\N{BOX DRAWINGS LIGHT VERTICAL}"


def shown(net, nics) -> dict[str, list[str]]:
    """The table's cells by NIC."""
    console = Console(file=io.StringIO(), width=120)
    console.print(drawn(View(network=net, url="http://api", token=""), nics))
    lines = [line.split(BAR)[1:-1] for line in console.file.getvalue().splitlines() if line.startswith(BAR)]
    return {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in lines}


def test_a_nic_at_its_rate_is_shown_as_busy_and_the_others_are_not(net):
    meter, seen = Meter(net), {}
    transfer = send(net, "s0", "p0", "snic0", 100 * MBIT // 8, tell=1 << 20)
    for _ in range(3):  # the first seconds of a connection are over
        transfer.arrived()
    meter.read()

    def busy() -> bool:
        seen.update({nic.nic: nic for nic in meter.read()})
        return 0.9 < (seen["p0.snic0"].utilisation or 0) < 1.1

    until(busy, 10, what="a NIC that is fully used")
    transfer.bits_per_s()
    assert seen["p0.snic0"].waiting > 0
    assert (seen["p0.cnic0"].utilisation or 0) < 0.05
    cells = shown(net, seen.values())
    assert cells["p0.snic0"][0] == "100mbit"
    assert float(cells["p0.snic0"][1].split()[0]) == pytest.approx(12.5, rel=0.1)


def test_cut_and_unlimited_nics_are_shown_as_such(net):
    net.cut("p0.snic0")
    net.set_rate("d0.cnic0", UNLIMITED)
    cells = shown(net, Meter(net).read())
    assert cells["p0.snic0"][0] == "cut"
    assert (cells["d0.cnic0"][0], cells["d0.cnic0"][3]) == ("unlimited", "-")


def test_a_kernel_without_the_queue_is_told_as_such(net):
    with pytest.raises(UnsupportedError, match="no tbf"):
        iproute.batch("tc", [["qdisc", "add", "dev", "lo", "root", "nosuchqueue"]], net.namespace("p0"))
