"""`dualpath emulate status`: the networks that run, and what each NIC has carried so far."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from dualpath_cli.emulation.rates import format_rate
from dualpath_cli.emulation.wires import Wires


def once(network: Wires) -> list[dict[str, Any]]:
    """All NICs now, with what they have carried so far; for scripts."""
    counters, links = network.all_counters(), network.links()
    return [
        {
            "nic": nic,
            "address": network.address(*nic.split(".")),
            "up": links[nic].up,
            "rate": None if (bits := links[nic].bits_per_s) is None else format_rate(bits),
            "rxBytes": counted.rx_bytes,
            "txBytes": counted.tx_bytes,
            "queueBytes": counted.rx_waiting + counted.tx_waiting,
            "droppedPackets": counted.dropped,
        }
        for nic, counted in counters.items()
    ]


def print_status(networks: Sequence[tuple[Wires, str]], *, as_json: bool) -> None:
    """All networks, for people or as JSON. With each goes the URL of its API."""
    if as_json:
        found = [{"name": n.name, "openai": url, "nics": once(n)} for n, url in networks]
        sys.stdout.write(json.dumps(found) + "\n")
        return
    console = Console(highlight=False, markup=False)
    for network, url in networks:
        shown = Table("NIC", "address", "rate", "received", "sent", "queue", title=f"{network.name}: {url}")
        for nic in once(network):
            shown.add_row(
                nic["nic"],
                nic["address"],
                nic["rate"] if nic["up"] else "cut",
                f"{nic['rxBytes'] / 1e6:.1f} MB",
                f"{nic['txBytes'] / 1e6:.1f} MB",
                f"{nic['queueBytes'] / 1024:.0f} KiB",
            )
        console.print(shown)
    if not networks:
        console.print("no emulated network is running")
