"""NIXL as far as we use it: one UCX back end, one registered pool, READs by index, notifications.

Every call must come from one thread. NIXL without its own progress thread is not thread-safe in its default
mode, and its locking modes cost more than a thread of ours that owns it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dualpath_api.errors import UnsupportedError
from dualpath_api.wire import PoolInfo
from dualpath_worker.blocks import BlockPool
from dualpath_worker.transfer.environment import engine_config

Indices = NDArray[np.int32]


class PeerLostError(Exception):
    """The connection to a peer is broken."""


class PortError(Exception):
    """NIXL refused a call."""


class NixlPort:
    """A NIXL agent called `name`, bound to the network device `device` (None: UCX chooses).

    `options` are more of UCX's settings, see `environment.engine_config`.
    """

    def __init__(self, name: str, device: str | None, options: Mapping[str, str]) -> None:
        from nixl._api import nixl_agent, nixl_agent_config
        from nixl._bindings import nixlRemoteDisconnectError

        self._disconnected: type[Exception] = nixlRemoteDisconnectError
        self._agent: Any = nixl_agent(name, nixl_agent_config(backends=[], enable_prog_thread=False))
        config = engine_config(device, options)
        try:
            self._agent.create_backend("UCX", {"engine_config": config} if config else {})
        except Exception as error:
            raise UnsupportedError(
                f"cannot open network device {device!r} for transfers",
                cause=f"UCX found no usable transport there ({error})",
                remedy="check the name with `ip link`, and UCX_TLS and UCX_NET_DEVICES in the environment",
            ) from error
        self._local: Any = None

    def register(self, pool: BlockPool) -> None:
        """Make the pool readable for peers and writable for our READs."""
        self._agent.register_memory(pool.tensor)
        self._local = self._agent.prep_xfer_dlist("NIXL_INIT_AGENT", _whole(pool.info()), "DRAM")

    def register_rows(self, tensors: Sequence[torch.Tensor]) -> None:
        """Make the rows of several tensors readable and writable for our own transfers, counted through."""
        kind = "VRAM" if tensors[0].is_cuda else "DRAM"
        for tensor in tensors:
            self._agent.register_memory(tensor)
        rows = np.array(
            [[t.data_ptr(), t[0].nbytes, max(0, t.get_device()), t[0].nbytes, t.shape[0]] for t in tensors],
            np.uint64,
        )
        self._local = self._agent.prep_xfer_dlist("NIXL_INIT_AGENT", rows, kind)

    def metadata(self) -> bytes:
        """What a peer needs to reach this agent; complete only after `register`."""
        return bytes(self._agent.get_agent_metadata())

    def connect(self, metadata: bytes, pool: PoolInfo) -> tuple[str, Any]:
        """Load a peer: its agent name, and the descriptors of its whole pool (slot * layers + layer)."""
        name = self._agent.add_remote_agent(metadata)
        name = name.decode() if isinstance(name, bytes) else str(name)
        return name, self._agent.prep_xfer_dlist(name, _whole(pool), "DRAM")

    def disconnect(self, name: str, descriptors: Any) -> None:
        """Forget a peer. Not a fence: only for peers to which no transfer is in flight."""
        descriptors.release()
        self._agent.remove_remote_agent(name)

    def post(
        self, descriptors: Any, local: Indices, remote: Indices, *, write: bool = False
    ) -> tuple[Any, bool]:
        """Start a READ, or a WRITE: its handle, and whether it is finished already.

        Raises PeerLostError or PortError.
        """
        verb = "WRITE" if write else "READ"
        try:
            handle = self._agent.make_prepped_xfer(verb, self._local, local, descriptors, remote, b"")
        except Exception as error:
            raise PortError(f"NIXL refused the transfer: {error}") from error
        try:
            return handle, self._finished(self._agent.transfer(handle))
        except (PeerLostError, PortError):
            raise
        except Exception as error:
            raise self._translated(error) from error

    def finished(self, handle: Any) -> bool:
        """Whether a posted READ is finished. Raises PeerLostError or PortError if it has failed."""
        try:
            return self._finished(self._agent.check_xfer_state(handle))
        except PortError:
            raise
        except Exception as error:
            raise self._translated(error) from error

    def send(self, name: str, data: bytes) -> None:
        """Send a notification. Raises PeerLostError or PortError."""
        try:
            self._agent.send_notif(name, data)
        except Exception as error:
            raise self._translated(error) from error

    def receive(self) -> dict[str, list[bytes]]:
        """New notifications by sender, each sender's in the order of sending; also makes progress."""
        received = self._agent.get_new_notifs()
        return {k.decode() if isinstance(k, bytes) else k: v for k, v in received.items()}

    @staticmethod
    def _finished(state: str) -> bool:
        if state == "ERR":
            raise PortError("the transfer ended with an error")
        return state == "DONE"

    def _translated(self, error: Exception) -> Exception:
        kind = PeerLostError if isinstance(error, self._disconnected) else PortError
        return kind(str(error) or type(error).__name__)


def _whole(pool: PoolInfo) -> NDArray[np.uint64]:
    """One strided row: (address, length, device, stride, count) of every Layer Block of a pool."""
    length = pool.layer_block_bytes
    return np.array([[pool.base, length, pool.device, length, pool.slots * pool.layers]], np.uint64)
