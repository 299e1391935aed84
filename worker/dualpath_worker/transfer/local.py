"""A GPU's own copies through its paired NIC: buffer to cache and back, by two agents of a process.

A copy engine competes with the model's collectives for the GPU's link to the host, in no order. What goes by
the compute NIC has the class of KV, and the NIC puts it behind them: in the DualPath paper (section 5) all
that enters or leaves a GPU takes its NIC. One agent would not do: what it reads from itself passes no NIC.

A copy that does not end in time is given up for good, as NIXL cannot cancel: `overdue` is then true, and
whatever the copy was to write must never be used again.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from dualpath_worker.blocks import BlockPool
from dualpath_worker.transfer.port import Indices, NixlPort, PeerLostError, PortError
from dualpath_worker.transfer.thread import CommandThread

DEADLINE_S = 10.0
_POLL_S = 0.0002
_IDLE_S = 60.0


class LocalCopyError(Exception):
    """A copy has failed or is overdue."""


class NicCopies:
    """Copies Layer Blocks between slots of a pool and pages of cache tensors; any thread may call it."""

    def __init__(
        self,
        pool: BlockPool,
        caches: Sequence[torch.Tensor],
        *,
        device: str | None,
        options: Mapping[str, str] | None = None,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        """`caches`: one tensor [pages, ...] a layer. `device`, `options`: as for a TransferAgent.

        Raises ValueError if pages and Layer Blocks differ in size, UnsupportedError without such a device.
        """
        sizes = {cache[0].nbytes for cache in caches}
        if len(caches) != pool.layers or sizes != {pool.layer_block_bytes}:
            raise ValueError(f"pages of {sizes} bytes in {len(caches)} layers do not fit the pool's blocks")
        self.overdue = False
        self._pool, self._pages, self._deadline_s = pool, caches[0].shape[0], deadline_s
        self._thread = CommandThread("local-copies", lambda had_commands: _IDLE_S)
        try:
            self._thread.call(lambda: self._open(pool, caches, device, options or {}))
        except BaseException:
            self._thread.close(1.0)
            raise

    def _open(
        self, pool: BlockPool, caches: Sequence[torch.Tensor], device: str | None, options: Mapping[str, str]
    ) -> None:
        name = secrets.token_hex(4)
        self._host = NixlPort(f"host/{name}", device, options)
        self._cache = NixlPort(f"cache/{name}", device, options)
        self._host.register(pool)
        self._cache.register_rows(caches)
        _, self._slots = self._cache.connect(self._host.metadata(), pool.info())

    def fill(self, slots: Sequence[int], pages: Sequence[int]) -> None:
        """Slots into pages, all layers; waits. Raises LocalCopyError."""
        self._copy(slots, pages, write=False)

    def spill(self, pages: Sequence[int], slots: Sequence[int]) -> None:
        """Pages into slots, all layers; waits. Raises LocalCopyError."""
        self._copy(slots, pages, write=True)

    def close(self) -> None:
        """End the thread; the agents end with the process."""
        self._thread.close(1.0)

    def _copy(self, slots: Sequence[int], pages: Sequence[int], *, write: bool) -> None:
        if self.overdue:
            raise LocalCopyError("an earlier copy through the NIC has not ended")
        layers = np.arange(self._pool.layers, dtype=np.int32)[:, None]
        local = (np.asarray(pages, np.int32)[None, :] + layers * self._pages).ravel()
        remote = (np.asarray(slots, np.int32)[None, :] * self._pool.layers + layers).ravel()
        self._thread.call(lambda: self._wait(local, remote, write=write))

    def _wait(self, local: Indices, remote: Indices, *, write: bool) -> None:
        """On the thread: post, and poll both agents, as TCP needs progress at either end."""
        deadline = time.monotonic() + self._deadline_s
        try:
            handle: Any
            handle, finished = self._cache.post(self._slots, local, remote, write=write)
            while not finished:
                if time.monotonic() > deadline:
                    self.overdue = True
                    raise LocalCopyError(f"a copy through the NIC has not ended in {self._deadline_s:g} s")
                self._host.receive()
                finished = self._cache.finished(handle)
                if not finished:
                    time.sleep(_POLL_S)
        except (PeerLostError, PortError) as error:
            raise LocalCopyError(str(error)) from error
