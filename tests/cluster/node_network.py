"""The network of real nodes: a bridge beside the control plane, a namespace with one interface for each node.

Names and addresses are fixed, so that whatever an aborted run left behind is found and removed by the next one.
Nothing in it has a way out of the machine.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from controlplane import SERVICES

BRIDGE = "dpt0"
GATEWAY = "10.213.0.1"
NODES = 4
NETNS = Path("/run/netns")


def node_name(number: int) -> str:
    """The name of a node, of its network namespace and of its control groups."""
    return f"dpt-node-{number}"


def node_address(number: int) -> str:
    """The address of a node on the bridge."""
    return f"10.213.0.{10 + number}"


def pod_range(number: int) -> str:
    """The addresses of a node's pods."""
    return f"10.213.{10 + number}.0/24"


def create(nodes: int) -> None:
    """Make the bridge, the namespaces and all routes: machine and nodes reach every node, pod and service."""
    _ip("link", "add", BRIDGE, "type", "bridge")
    _ip("addr", "add", f"{GATEWAY}/24", "dev", BRIDGE)
    _ip("link", "set", BRIDGE, "up")
    for number in range(nodes):
        _create_node(number, nodes)
    _ip("route", "replace", SERVICES, "via", node_address(0))  # that node's kube-proxy knows the services


def remove() -> None:
    """Remove all of it; what is not there is no error."""
    for link in _links():  # before the namespaces, whose own removal of their ends comes later
        _ip("link", "del", link)
    for number in range(NODES):
        if (NETNS / node_name(number)).exists():
            _ip("netns", "del", node_name(number))


def exists() -> bool:
    """Whether anything of it is there."""
    return bool(_links()) or any((NETNS / node_name(one)).exists() for one in range(NODES))


def processes_of(number: int) -> list[int]:
    """The processes in a node's network namespace, as ids of this machine."""
    if not (NETNS / node_name(number)).exists():
        return []
    return [int(word) for word in _ip("netns", "pids", node_name(number)).split()]


def set_link(number: int, *, up: bool) -> None:
    """Plug a node's cable in, or pull it."""
    _ip("link", "set", _cable(number), "up" if up else "down")


def _create_node(number: int, nodes: int) -> None:
    name, cable = node_name(number), _cable(number)
    _ip("netns", "add", name)
    _ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", name)
    _ip("link", "set", cable, "master", BRIDGE, "up")
    _ip("-n", name, "link", "set", "lo", "up")
    _ip("-n", name, "addr", "add", f"{node_address(number)}/24", "dev", "eth0")
    _ip("-n", name, "link", "set", "eth0", "up")
    _ip(
        "-n", name, "route", "add", SERVICES, "dev", "eth0"
    )  # a route must exist before kube-proxy's rewriting
    for other in range(nodes):
        if other != number:
            _ip("-n", name, "route", "add", pod_range(other), "via", node_address(other))
    _ip("route", "add", pod_range(number), "via", node_address(number))
    _ip("netns", "exec", name, "sysctl", "-qw", "net.ipv4.ip_forward=1")


def _cable(number: int) -> str:
    return f"dpt-{number}"


def _links() -> list[str]:
    names = [BRIDGE, *(_cable(number) for number in range(NODES))]
    return [name for name in names if Path(f"/sys/class/net/{name}").exists()]


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout
