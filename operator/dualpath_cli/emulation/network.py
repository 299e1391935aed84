"""Makes a network of nodes on this machine and removes it again, whatever happens.

with Network(layout) as net:
    net.run("p0", ["ping", "-c1", net.address("d0", "cnic0")]).wait()
    net.set_rate("p0.snic0", "50mbit")

Every node is a network namespace; one more holds the fabrics, each a bridge. NICs are veth pairs with a
token bucket at both ends. Nodes have no route out of the machine. Only namespaces (`dpe.NETWORK.NODE`), one
veth to this machine and a folder below /run exist outside; they are written down before they are made, and
every start first removes what killed owners have left. A network's processes are those in its namespaces.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Self

from dualpath_api.errors import SpecError
from dualpath_cli.emulation import iproute, leftovers, places
from dualpath_cli.emulation.layout import FIRST_HOST, Layout
from dualpath_cli.emulation.places import State, Wire
from dualpath_cli.emulation.rates import bucket
from dualpath_cli.emulation.wires import Wires

MTU = 9000
"""Jumbo frames: headers stay below 1 %, and a large packet costs as much processor time as a small one."""

_HOST_NET = "10.232"
"""Its /24s are for fabrics that this machine is plugged into; each network gets one of its own."""


class Network(Wires):
    """A network that this process owns. Raises DualPathError where it cannot be made."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._lock: int | None = None
        super().__init__(State(
            name=layout.name, pid=os.getpid(), slot=0, host_link="", host_address="", namespaces={}, wires=[]
        ))  # fmt: skip

    def __enter__(self) -> Self:
        """Make it; what went wrong in between is removed again."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove it."""
        self.close()

    @property
    def folder(self) -> Path:
        """A folder for files of whoever runs the network; it is removed with it."""
        return self.state.folder

    def start(self) -> None:
        """Make it. Raises SpecError when a network of this name is running."""
        iproute.check()
        with places.alone():
            leftovers.remove_all()
            self._lock = places.lock(self.name)
            if self._lock is None:
                raise SpecError(
                    f"network {self.name} is running already",
                    cause=f"its files are in {places.ROOT / self.name}",
                    remedy="stop it, or choose another name",
                )
            try:
                plugged = self._layout.host_fabric in self._layout.fabrics
                super().__init__(plan(self._layout, _free_slot() if plugged else 0))
                _check_names(self.state)
                self.state.write()
                _make(self.state, self._layout)
            except BaseException:
                self._remove()
                raise

    def close(self) -> None:
        """End all processes in it and remove all of it."""
        if self._lock is None:
            return
        with places.alone():  # who starts one of this name meanwhile would lose its files
            self._remove()

    def _remove(self) -> None:
        leftovers.remove(self.state)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def plan(layout: Layout, slot: int) -> State:
    """Names and addresses of everything."""
    inside = layout.addresses
    wires = [
        Wire(
            node=node.name,
            nic=nic.name,
            fabric=nic.fabric,
            address=inside.get((node.name, nic.name)) or f"{_HOST_NET}.{slot}.{FIRST_HOST + number}",
            port=f"{nic.name}.{node.name}",
            limited=nic.bits_per_s is not None,
        )
        for number, node in enumerate(layout.nodes)
        for nic in node.nics
    ]
    plugged = layout.host_fabric in layout.fabrics
    return State(
        name=layout.name,
        pid=os.getpid(),
        slot=slot,
        host_link=f"dpe{slot}" if plugged else "",
        host_address=f"{_HOST_NET}.{slot}.1" if plugged else "",
        namespaces={
            "": f"dpe.{layout.name}",
            **{node.name: f"dpe.{layout.name}.{node.name}" for node in layout.nodes},
        },
        wires=wires,
    )


def _free_slot() -> int:
    """A /24 that no device, route or other network of this machine uses."""
    taken = {state.slot for name in places.names() if (state := places.read(name)) is not None}
    addresses = iproute.query("ip", "addr", "show")
    used = [info.get("local", "") for device in addresses for info in device.get("addr_info", ())]
    used += [route["dst"] for route in iproute.query("ip", "route", "show", "table", "all")]
    links = {device["ifname"] for device in addresses}
    for slot in range(256):
        prefix = f"{_HOST_NET}.{slot}."
        if slot not in taken and f"dpe{slot}" not in links and not any(u.startswith(prefix) for u in used):
            return slot
    raise SpecError(
        "no range of addresses is free",
        cause=f"all of {_HOST_NET}.0.0/16 is in use",
        remedy="stop other emulated networks, or what else uses these addresses",
    )


def _check_names(state: State) -> None:
    """What has one of our names and is not written down is somebody else's."""
    for name in state.namespaces.values():
        if (iproute.NETNS / name).exists():
            state.namespaces.clear()  # nothing of it is ours to remove
            raise SpecError(
                f"network {state.name} cannot be made",
                cause=f"a network namespace {name} is there already",
                remedy=f"remove it (ip netns del {name}), or choose another name",
            )


def _make(state: State, layout: Layout) -> None:
    iproute.batch("ip", [["netns", "add", name] for name in state.namespaces.values()])
    state.inodes = {name: (iproute.NETNS / name).stat().st_ino for name in state.namespaces.values()}
    state.write()
    fabrics = state.namespaces[""]
    iproute.batch("ip", _fabric_lines(state, layout), fabrics)
    if state.host_link:
        device = ["dev", state.host_link]
        iproute.batch(
            "ip",
            [["addr", "add", f"{state.host_address}/24", *device], ["link", "set", state.host_link, "up"]],
        )
    rates = {(node.name, nic.name): nic.bits_per_s for node in layout.nodes for nic in node.nics}
    queues = [(wire, bits) for wire in state.wires if (bits := rates[wire.node, wire.nic]) is not None]
    iproute.batch("tc", [_queue(wire.port, bits) for wire, bits in queues], fabrics)
    for node in layout.nodes:
        lines = [["link", "set", "lo", "up"]]
        for wire in state.wires:
            if wire.node == node.name:
                lines.append(["addr", "add", f"{wire.address}/24", "dev", wire.nic])
                lines.append(["link", "set", wire.nic, "up"])
        namespace = state.namespaces[node.name]
        iproute.batch("ip", lines, namespace)
        own = [_queue(wire.nic, bits) for wire, bits in queues if wire.node == node.name]
        iproute.batch("tc", own, namespace)


def _fabric_lines(state: State, layout: Layout) -> list[list[str]]:
    """Bridges, and all cables, with their other ends already in the nodes."""
    lines = [["link", "set", "lo", "up"]]
    for fabric in layout.fabrics:
        lines.append(["link", "add", fabric, "mtu", str(MTU), "type", "bridge"])
        lines.append(["link", "set", fabric, "up"])
    for wire in state.wires:
        lines += _cable(wire.port, wire.fabric, wire.nic, state.namespaces[wire.node])
    if state.host_link:
        # this process's own namespace, in which the other end appears
        lines += _cable("host", layout.host_fabric or "", state.host_link, str(os.getpid()))
    return lines


def _cable(port: str, fabric: str, device: str, namespace: str) -> list[list[str]]:
    peer = ["peer", "name", device, "mtu", str(MTU), "netns", namespace]
    return [
        ["link", "add", port, "mtu", str(MTU), "type", "veth", *peer],
        ["link", "set", port, "master", fabric, "up"],
    ]


def _queue(device: str, bits: int) -> list[str]:
    return ["qdisc", "replace", "dev", device, "root", *bucket(bits)]
