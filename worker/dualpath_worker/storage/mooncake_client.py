"""The client of a Mooncake Store: its environment, its addresses, its calls and their codes.

Importing this module sets the library's environment and does not load it: that is done by `connect`.
"""

from __future__ import annotations

import ctypes
import logging
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dualpath_api.errors import UnsupportedError

log = logging.getLogger(__name__)

ENVIRONMENT = {
    # a transfer ends, one way or the other, before the 60 s after which the library walks away from it
    "MC_TCP_PROGRESS_TIMEOUT_SEC": "5",
    "MC_TCP_STATUS_TIMEOUT_SEC": "5",
    "MC_RPC_TIMEOUT_MS": "3000",
    "MC_RPC_CONNECT_TIMEOUT_MS": "1000",
    "MC_STORE_CLIENT_SETUP_RETRIES": "1",
    "MC_LOG_LEVEL": "ERROR",  # what follows from a failure is told by us
    "MC_STORE_CLIENT_METRIC": "0",
}
"""What the library reads; a variable that is set already wins."""

ETCD = "etcd://"
ABANDONED_S = 50.0
"""A failure that took so long may be the library's own 60 s deadline, after which bytes may still arrive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreNetwork:
    """How KV travels between the store and this process."""

    protocol: str = "tcp"  # or rdma
    devices: tuple[str, ...] = ()  # RDMA devices; () with rdma: those that the library finds
    host: str = ""  # own address; "": the one on the route to the master


TCP = StoreNetwork()


class Code:
    """Results of calls; the library has many more, all negative."""

    INTERNAL = -1
    NO_SPACE = -200
    NOT_READY, NOT_FOUND, EXISTS = -703, -704, -705
    NO_REPLICA, REPLICA_GONE = -710, -712
    TRANSFER = -800
    RPC, RPC_TIMEOUT = -900, -901

    MISSES = frozenset({NOT_READY, NOT_FOUND, NO_REPLICA, REPLICA_GONE})
    UNREACHABLE = frozenset({RPC, RPC_TIMEOUT})


class MooncakeClient:
    """One client of one store. All calls block; all but `connect` return codes and raise nothing."""

    def __init__(self, library: Any, store: Any, copies: int, *, elected: bool, directory: str) -> None:
        self._store, self._elected, self._directory = store, elected, directory
        self._segments: list[str] = []
        self._config = library.ReplicateConfig()
        self._config.replica_num = copies

    def register(self, address: int, size: int) -> bool:
        """Tell the library of memory that it will transfer from and to."""
        return bool(self._store.register_buffer(address, size) == 0)

    def exist(self, names: Sequence[str]) -> list[int]:
        """For each name 1, 0 or a negative code."""
        return [int(code) for code in self._store.batch_is_exist(list(names))]

    def get(self, name: str, address: int, size: int) -> int:
        """Read an object; its size or a negative code."""
        return int(self._store.batch_get_into([name], [address], [size])[0])

    def get_ranges(self, name: str, address: int, ranges: Sequence[tuple[int, int]]) -> int:
        """Read (offset, size) pieces, one behind the other; the bytes or the first negative code."""
        targets, end = [], 0
        for _, size in ranges:
            targets.append(end)
            end += size
        sources, sizes = [[offset for offset, _ in ranges]], [[size for _, size in ranges]]
        (((*codes,),),) = self._store.get_into_ranges([address], [[name]], [[targets]], [sources], [sizes])
        return int(next((code for code in codes if code < 0), sum(codes)))

    def put(self, name: str, address: int, size: int) -> int:
        """Write an object; 0 (also if it exists) or a negative code."""
        return int(self._store.batch_put_from([name], [address], [size], self._config)[0])

    def remove(self, name: str) -> int:
        """Remove an object, also one that is being read."""
        return int(self._store.remove(name, True))

    def holder(self, name: str) -> str:
        """Address of the node that a read would go to; "": unknown."""
        for replica in self._store.get_replica_desc(name):
            if replica.status.name == "COMPLETE" and replica.is_memory_replica():
                return str(replica.get_memory_descriptor().buffer_descriptor.transport_endpoint)
        return ""

    def holders(self, names: Sequence[str]) -> dict[str, list[str]]:
        """Addresses of the nodes that hold each of the objects in memory."""
        return {
            name: [
                str(replica.get_memory_descriptor().buffer_descriptor.transport_endpoint)
                for replica in replicas
                if replica.status.name == "COMPLETE" and replica.is_memory_replica()
            ]
            for name, replicas in self._store.batch_get_replica_desc(list(names)).items()
        }

    def move(self, name: str, source: str, target: str) -> Any:
        """Let the nodes move an object; a task for `moved`, None if that is refused."""
        task, code = self._store.create_move_task(name, source, target)
        return task if code == 0 else None

    def moved(self, task: Any) -> bool | None:
        """Whether the object has been moved; None: not yet."""
        answer, code = self._store.query_task(task)
        state = answer.status.name if code == 0 and answer is not None else "FAILED"
        return {"SUCCESS": True, "FAILED": False}.get(state)

    def healthy(self) -> bool:
        """Whether the master answers."""
        return bool(self._store.health_check() == 0)

    def give(self, size: int, protocol: str) -> bool:
        """Give memory to the store, until `close`."""
        made = self._store.allocate_and_mount_segment(size, protocol, "")
        self._segments = list(made["segment_ids"])
        return bool(made["ret"] == 0)

    def close(self) -> None:
        """Leave the store, and take back what was given to it.

        One that watches an etcd would hold the interpreter's lock for 30 s: it stays until the process ends.
        """
        if self._segments:
            self._store.unmount_and_free_segment(self._segments, 0)
        if self._directory:
            self._store.unmount_local_disk_segment(0)
        if self._elected:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._store))
        else:
            self._store.close()


def library() -> Any:
    """The binding. Raises UnsupportedError where it is not installed or cannot be loaded."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import mooncake.store
    except ImportError as error:
        raise UnsupportedError(
            "the Mooncake Store client cannot be loaded",
            cause=str(error),
            remedy="pip install 'dualpath[worker]'; on Debian: apt-get install libibverbs1 libnuma1 libcurl4",
        ) from error
    return mooncake.store


def connect(
    master: str,
    network: StoreNetwork,
    *,
    name: str,
    copies: int = 1,
    segment: int = 0,
    directory: str = "",
) -> MooncakeClient | None:
    """Join the store of a master ("host:port", "etcd://..."); None: there is none now.

    `name`: our address, with a port if that is fixed. `segment`: bytes of memory that this process gives to
    the store, `directory`: where it keeps what does not fit there. Raises UnsupportedError.
    """
    binding = library()
    store = binding.MooncakeDistributedStore()
    settings: dict[str, Any] = {
        "local_hostname": name,
        "metadata_server": "P2PHANDSHAKE",
        "global_segment_size": 0,
        "local_buffer_size": 0,
        "protocol": network.protocol,
        "rdma_devices": ",".join(network.devices),
        "master_server_addr": master,
    }
    if directory:
        settings |= {"enable_ssd_offload": True, "ssd_offload_path": directory}
    if store.setup(settings) != 0:
        store.close()
        return None
    client = MooncakeClient(binding, store, copies, elected=master.startswith(ETCD), directory=directory)
    if segment and not client.give(segment, network.protocol):
        client.close()
        return None
    return client


def own_address(towards: str) -> str:
    """This host's address on the route to host:port; "127.0.0.1" if there is no route."""
    name, _, port = towards.rpartition(":")
    try:
        family, _, _, _, where = socket.getaddrinfo(name.strip("[]"), int(port), type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(where)  # sends nothing
            return str(probe.getsockname()[0])
    except (OSError, ValueError):
        return "127.0.0.1"
