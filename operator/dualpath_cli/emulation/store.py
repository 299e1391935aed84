"""The processes of an emulated block store: masters, nodes, and an etcd where masters are to be elected.

They run in the storage nodes and are reached at the addresses of snic0 only; probes and metrics are on mnic0.
Masters and etcd members are spread over the nodes, so a node's power failure can take one of each.
"""

from __future__ import annotations

import os
import shutil
from typing import Any

from dualpath_api.errors import UnsupportedError
from dualpath_cli.emulation.network import Network
from dualpath_cli.emulation.topology import DualPathEmulation, StorageNodes
from dualpath_cli.process import Command

MASTER_PORT, ETCD_PORT = 50051, 2379
ETCD_PROGRAM = "DUALPATH_ETCD"
"""This variable may name the etcd program; otherwise it is looked for in PATH."""
_APART = 10  # ports between two processes of a kind on one node


def storage_spec(emulation: DualPathEmulation) -> dict[str, Any] | None:
    """spec.storage of the cluster; None: its own."""
    storage = emulation.spec.storage
    if storage.kind == "files":
        return None
    address = emulation.layout.addresses
    if storage.etcd:
        ends = [
            f"{address[_node(storage, n), 'snic0']}:{_etcd_port(storage, n)}" for n in range(storage.etcd)
        ]
    else:
        ends = [f"{address['s0', 'snic0']}:{MASTER_PORT}"]  # in place of an etcd, it answers itself
    told = {"replicas": storage.nodes, "copies": storage.copies, "size": storage.size}
    return {"managed": {**told, "masters": storage.masters, "etcd": {"endpoints": ends}}}


def check_programs(storage: StorageNodes) -> None:
    """Raises UnsupportedError if there is no etcd and one is wanted."""
    if storage.etcd:
        etcd_program()


def etcd_program() -> str:
    """Its path. Raises UnsupportedError."""
    found = shutil.which(os.environ.get(ETCD_PROGRAM) or "etcd")
    if found is None:
        raise UnsupportedError(
            "the emulated store cannot have an etcd",
            cause=f"there is no program etcd in PATH, nor in the variable {ETCD_PROGRAM}",
            remedy="install etcd 3.5 or newer, or use one master without: spec.storage.etcd: 0",
        )
    return found


def store_stages(
    emulation: DualPathEmulation, network: Network, log_form: str
) -> tuple[tuple[Command, ...], ...]:
    """What is started, stage by stage."""
    storage = emulation.spec.storage
    if storage.kind == "files":
        return ()
    spec = storage_spec(emulation)
    assert spec is not None
    ends = ",".join(spec["managed"]["etcd"]["endpoints"])
    started = _Started(network, storage, log_form, ("--etcd" if storage.etcd else "--master", ends))
    etcds = tuple(started.etcd(number) for number in range(storage.etcd))
    masters = tuple(started.master(number) for number in range(storage.masters))
    return etcds, masters + tuple(started.node(number) for number in range(storage.nodes))


class _Started:
    """Commands of one store."""

    def __init__(
        self, network: Network, storage: StorageNodes, log_form: str, where: tuple[str, str]
    ) -> None:
        self._network, self._storage, self._log, self._where = network, storage, log_form, where

    def master(self, number: int) -> Command:
        turn = number // self._storage.nodes * _APART
        node = _node(self._storage, number)
        where = self._where if self._storage.etcd else ()
        listen = ("--host", self._network.address(node, "snic0"), "--port", str(MASTER_PORT + turn))
        name = "store-master" if self._storage.masters == 1 else f"store-master-{number}"
        return self._process(name, node, 9003 + turn, ("master", *listen, *where))

    def node(self, number: int) -> Command:
        size = ("--size", str(self._storage.size))
        arguments = ("node", *self._where, "--nics", "snic0", *size)
        return self._process(f"store-{number}", f"s{number}", 9004, arguments)

    def _process(self, name: str, node: str, port: int, arguments: tuple[str, ...]) -> Command:
        host = self._network.address(node)
        metrics = ("--metrics-host", host, "--metrics-port", str(port), "--log", self._log)
        return Command(
            name=name,
            arguments=("-P", "-m", "dualpath_worker.storage", *arguments, *metrics),
            prefix=tuple(self._network.command(node, ())),
            probe=f"http://{host}:{port}/readyz",
        )

    def etcd(self, number: int) -> Command:
        storage, name = self._storage, f"store-etcd-{number}"
        node, port = _node(storage, number), _etcd_port(storage, number)
        client, peer = self._urls(number)
        probe = f"http://{self._network.address(node)}:{port + 2}"
        cluster = ",".join(f"store-etcd-{n}={self._urls(n)[1]}" for n in range(storage.etcd))
        arguments = {
            "name": name,
            "data-dir": str(self._network.folder / name),
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "listen-metrics-urls": probe,
            "initial-cluster": cluster,
            "log-level": "warn",
        }
        return Command(
            name=name,
            program=etcd_program(),
            arguments=tuple(f"--{key}={value}" for key, value in arguments.items()),
            prefix=tuple(self._network.command(node, ())),
            probe=f"{probe}/health",
        )

    def _urls(self, number: int) -> tuple[str, str]:
        host, port = (
            self._network.address(_node(self._storage, number), "snic0"),
            _etcd_port(self._storage, number),
        )
        return f"http://{host}:{port}", f"http://{host}:{port + 1}"


def _node(storage: StorageNodes, number: int) -> str:
    return f"s{number % storage.nodes}"


def _etcd_port(storage: StorageNodes, number: int) -> int:
    return ETCD_PORT + number // storage.nodes * _APART
