"""What its owner, or anybody else with root, can do to a network that is there: rates, cables, counters.

All truth is the kernel's: rates are read back from the queues, cables from the ports. So several processes
may change one network, and nobody has to be told.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dualpath_api.errors import SpecError
from dualpath_cli.emulation import iproute
from dualpath_cli.emulation.places import State, Wire, find
from dualpath_cli.emulation.rates import bucket, parse_rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """Bytes on the wire of one NIC, headers included, seen from its node; since the network was made."""

    rx_bytes: int
    tx_bytes: int
    rx_waiting: int  # bytes in the queue towards the node
    tx_waiting: int
    dropped: int  # packets, both directions


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """How a NIC is set now. `bits_per_s` None: not limited by us."""

    bits_per_s: int | None
    up: bool


class Wires:
    """The NICs of one network."""

    def __init__(self, state: State) -> None:
        self.state = state
        self._wires = {wire.name: wire for wire in state.wires}

    @classmethod
    def of(cls, name: str | None = None) -> Wires:
        """Those of a running network; without a name the only one. Raises SpecError."""
        iproute.check()
        return cls(find(name))

    @property
    def name(self) -> str:
        """The network's name."""
        return self.state.name

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of all nodes."""
        return tuple(name for name in self.state.namespaces if name)

    @property
    def nics(self) -> tuple[str, ...]:
        """Names of all NICs whose rate can be set and that can be cut."""
        return tuple(wire.name for wire in self.state.wires if wire.limited)

    def namespace(self, node: str) -> str:
        """The node's network namespace, as `ip netns` knows it. Raises SpecError."""
        if not node or node not in self.state.namespaces:
            raise SpecError(
                f"there is no node {node!r}",
                cause=f"network {self.name} has {', '.join(self.nodes)}",
                remedy="use one of them",
            )
        return self.state.namespaces[node]

    def address(self, node: str, nic: str = "mnic0") -> str:
        """The IP address of a NIC. Raises SpecError."""
        return self._wire(f"{node}.{nic}").address

    def set_rate(self, nic: str, rate: str | int) -> None:
        """Limit a NIC, both directions; the connections over it go on. Raises SpecError."""
        wire, bits = self._limited(nic), parse_rate(rate)
        for namespace, device in self._ends(wire):
            iproute.batch("tc", [["qdisc", "replace", "dev", device, "root", *bucket(bits)]], namespace)

    def cut(self, nic: str) -> None:
        """Pull its cable: the node sees that the link is down, its address stays. Raises SpecError."""
        self._plug(nic, "down")

    def restore(self, nic: str) -> None:
        """Plug its cable in again. Raises SpecError."""
        self._plug(nic, "up")

    def links(self) -> dict[str, Link]:
        """How all NICs of `nics` are set now."""
        queues = self._queues("")
        ports = {port["ifname"]: port for port in self._query("ip", "", "link", "show")}
        return {
            wire.name: Link(
                bits_per_s=_rate(queues.get(wire.port)), up="UP" in ports.get(wire.port, {}).get("flags", ())
            )
            for wire in self.state.wires
            if wire.limited
        }

    def counters(self, nic: str) -> Counters:
        """What went over one NIC. Raises SpecError."""
        wire = self._limited(nic)
        return self._counted([wire])[wire.name]

    def all_counters(self) -> dict[str, Counters]:
        """What went over all NICs of `nics`."""
        return self._counted([wire for wire in self.state.wires if wire.limited])

    def command(self, node: str, argv: Sequence[str]) -> list[str]:
        """The command line that runs `argv` in a node, with the node's own /sys. Raises SpecError."""
        return [iproute.program("ip"), "netns", "exec", self.namespace(node), *argv]

    def run(
        self,
        node: str,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        stdin: Any = subprocess.DEVNULL,
        stdout: Any = None,
        stderr: Any = None,
        text: bool | None = None,
    ) -> subprocess.Popen[Any]:
        """Start a process in a node, in a process group of its own. `env` is added to ours. Raises SpecError.

        It ends with the network at the latest.
        """
        return subprocess.Popen(
            self.command(node, argv),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            text=text,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )

    def _counted(self, wires: Sequence[Wire]) -> dict[str, Counters]:
        towards = self._queues("")
        leaving = {node: self._queues(node) for node in dict.fromkeys(wire.node for wire in wires)}
        none: dict[str, Any] = {"bytes": 0, "backlog": 0, "drops": 0}
        found = {}
        for wire in wires:
            rx, tx = towards.get(wire.port, none), leaving[wire.node].get(wire.nic, none)
            found[wire.name] = Counters(
                rx_bytes=rx["bytes"],
                tx_bytes=tx["bytes"],
                rx_waiting=rx["backlog"],
                tx_waiting=tx["backlog"],
                dropped=rx["drops"] + tx["drops"],
            )
        return found

    def _queues(self, node: str) -> dict[str, dict[str, Any]]:
        """The root queues of a namespace, by device."""
        found = self._query("tc", node, "-s", "qdisc", "show")
        return {queue["dev"]: queue for queue in found if queue.get("root")}

    def _query(self, tool: str, node: str, *arguments: str) -> list[dict[str, Any]]:
        return iproute.query(tool, *arguments, namespace=self.state.namespaces[node])

    def _plug(self, nic: str, word: str) -> None:
        """Its port goes down, so the node's end loses its carrier, as with a real cable."""
        port = self._limited(nic).port
        iproute.batch("ip", [["link", "set", port, word]], self.state.namespaces[""])

    def _ends(self, wire: Wire) -> tuple[tuple[str, str], tuple[str, str]]:
        spaces = self.state.namespaces
        return (spaces[wire.node], wire.nic), (spaces[""], wire.port)

    def _wire(self, nic: str) -> Wire:
        if nic not in self._wires:
            raise SpecError(
                f"there is no NIC {nic!r}",
                cause=f"network {self.name} has {', '.join(self._wires)}",
                remedy="use one of them",
            )
        return self._wires[nic]

    def _limited(self, nic: str) -> Wire:
        wire = self._wire(nic)
        if not wire.limited:
            raise SpecError(
                f"{nic} is not emulated",
                cause="it only carries messages between the processes, and is never limited or cut",
                remedy=f"use one of {', '.join(self.nics)}",
            )
        return wire


def _rate(queue: Mapping[str, Any] | None) -> int | None:
    """Bit/s of a queue; tc tells bytes."""
    rate = queue.get("options", {}).get("rate") if queue else None
    return None if rate is None else int(rate) * 8
