"""What a network consists of: nodes, their NICs, the fabrics that connect them. Values only, nothing is made.

Every fabric is a switch that all its NICs are plugged into. A NIC's cable is limited at both ends, as by a
port of that rate. Names: `p0.snic0` is NIC snic0 of node p0.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from dualpath_api.errors import SpecError

STORAGE, COMPUTE, MANAGEMENT = "storage", "compute", "management"
MOST_NODES = 200
FIRST_HOST = 2
"""Last number of the first node's addresses."""
_LONGEST_DEVICE = 15  # bytes of a device's name in Linux


@dataclass(frozen=True, slots=True, kw_only=True)
class Nic:
    """A NIC of a node. `bits_per_s` None: never limited, and it cannot be."""

    name: str
    fabric: str
    bits_per_s: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A machine: one network namespace."""

    name: str
    nics: tuple[Nic, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A network. `host_fabric` is the fabric that this machine itself is plugged into; None: none."""

    name: str
    nodes: tuple[Node, ...]
    host_fabric: str | None = MANAGEMENT

    def __post_init__(self) -> None:
        """Names are as they must be. Raises SpecError."""
        _check_name("network", self.name, 32)
        names = [node.name for node in self.nodes]
        if len(set(names)) != len(names) or not 1 <= len(names) <= MOST_NODES:
            raise _bad(
                f"a network of nodes {names}", f"it needs 1 to {MOST_NODES} nodes with different names"
            )
        for node in self.nodes:
            _check_name("node", node.name, 9)
            nics = [nic.name for nic in node.nics]
            if len(set(nics)) != len(nics):
                raise _bad(f"node {node.name} with NICs {nics}", "two of them have one name")
            for nic in node.nics:
                _check_name("NIC", nic.name, _LONGEST_DEVICE - len(node.name) - 1)

    @property
    def fabrics(self) -> tuple[str, ...]:
        """All fabrics that a NIC is plugged into, by name."""
        return tuple(sorted({nic.fabric for node in self.nodes for nic in node.nics}))

    @property
    def addresses(self) -> dict[tuple[str, str], str]:
        """By node and NIC; not on the fabric of this machine, whose range differs from run to run."""
        ranges = [STORAGE, COMPUTE]
        ranges += [name for name in self.fabrics if name not in (STORAGE, COMPUTE, self.host_fabric)]
        return {
            (node.name, nic.name): f"10.{10 * (ranges.index(nic.fabric) + 1)}.0.{FIRST_HOST + number}"
            for number, node in enumerate(self.nodes)
            for nic in node.nics
            if nic.fabric != self.host_fabric
        }


def engine_node(name: str, *, snic: int, cnic: int) -> Node:
    """A prefill or decode node; rates in bit/s."""
    nics = (
        Nic(name="snic0", fabric=STORAGE, bits_per_s=snic),
        Nic(name="cnic0", fabric=COMPUTE, bits_per_s=cnic),
        Nic(name="mnic0", fabric=MANAGEMENT),
    )
    return Node(name=name, nics=nics)


def storage_node(name: str, *, snic: int) -> Node:
    """A node of the block store; rate in bit/s."""
    nics = (
        Nic(name="snic0", fabric=STORAGE, bits_per_s=snic),
        Nic(name="mnic0", fabric=MANAGEMENT),
    )
    return Node(name=name, nics=nics)


def gateway_node(name: str = "g0") -> Node:
    """Where gateway and scheduler run: the management network only."""
    return Node(name=name, nics=(Nic(name="mnic0", fabric=MANAGEMENT),))


def _check_name(kind: str, name: str, longest: int) -> None:
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", name) or len(name) > longest:
        raise _bad(
            f"the {kind} name {name!r}", f"names are a-z, 0-9 and - inside, here at most {longest} characters"
        )


def _bad(what: str, cause: str) -> SpecError:
    return SpecError(f"{what} cannot be made", cause=cause, remedy="choose other names")
