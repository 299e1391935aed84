"""Moving Layer Blocks between engines: pulls with deadlines, and notifications, around one NIXL agent.

A thread of its own owns the agent; all methods here may be called from any thread, return at once and take
effect in the order of the calls. Callbacks run on the agent's thread: they must be short and must not block
(an engine forwards them with `loop.call_soon_threadsafe`).

Deadlines and quarantine: NIXL cannot cancel. A pull that has not ended at its deadline is reported as
OVERDUE and stays tracked; `on_settled` says when it has really ended, and only then may its local slots be
used again.

Progress: nothing moves inside NIXL unless somebody polls, over TCP also at the side that is being read
from. The thread polls each 0.2 ms while pulls of its own are in flight, each 0.3 ms while peers are
expected to read or to notify (`expect`), and each 10 ms when idle.

A process that has made an agent must end through `dualpath_worker.transfer.exit.leave`.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Mapping

import numpy as np

from dualpath_api import wire
from dualpath_api.errors import UnsupportedError
from dualpath_worker.blocks import BlockPool
from dualpath_worker.transfer import environment
from dualpath_worker.transfer.flights import Flight
from dualpath_worker.transfer.mover import IDLE_POLL_S, Mover
from dualpath_worker.transfer.port import Indices
from dualpath_worker.transfer.results import OnResult, TransferStats
from dualpath_worker.transfer.thread import CommandThread


class TransferAgent:
    """The engine's end of the compute network."""

    def __init__(
        self, engine: str, *, device: str | None = "lo", options: Mapping[str, str] | None = None
    ) -> None:
        """Start an agent on a network device (None: UCX chooses). Raises UnsupportedError if that fails.

        `options` are UCX's marks and ports, as `fabric.classes` makes them; both sides must have the same.

        The NIXL name carries a token of this process, so a restarted engine never looks like the one before.
        """
        environment.prepare(os.environ)
        self.engine = engine
        self._mover: Mover | None = None
        self._pool: BlockPool | None = None
        self._metadata = b""
        self._thread = CommandThread(f"transfer-{engine}", self._step)
        name = f"{engine}/{secrets.token_hex(4)}"
        try:
            self._mover = self._thread.call(lambda: Mover(name, device, options or {}))
        except BaseException:
            self._thread.close(1.0)
            raise

    # ------------------------------------------------------------ set-up

    def register(self, pool: BlockPool) -> None:
        """Register the one pool that peers read from and pulls write to; waits until done."""
        if self._pool is not None:
            raise ValueError("an agent has one pool")
        port = self._running.port
        self._thread.call(lambda: port.register(pool))
        self._metadata = self._thread.call(port.metadata)
        self._pool = pool

    @property
    def metadata(self) -> bytes:
        """NIXL metadata of this agent; empty before `register`."""
        return self._metadata

    def peer(self, incarnation: str) -> wire.Peer:
        """How others reach this engine."""
        pool = wire.encode(self._registered.info())
        return wire.Peer(engine=self.engine, incarnation=incarnation, agent=self._metadata, pool=pool)

    def on_notification(self, callback: Callable[[str, bytes], None]) -> None:
        """Call `callback(engine, data)` for every notification; one sender's arrive in order."""
        self._running.on_notification = callback

    def on_lost(self, callback: Callable[[str, str], None]) -> None:
        """Call `callback(engine, incarnation)` when the connection to a peer breaks, or cannot be made.

        Notifications that were under way, either way, may be lost. The peer may live.
        """
        self._running.on_lost = callback

    # ------------------------------------------------------------ peers

    def add_peer(self, peer: wire.Peer) -> None:
        """Make a peer known; a new incarnation replaces the old one.

        The same one again changes nothing, unless its connection was lost: then it is connected anew.
        Raises UnsupportedError if its blocks are of another shape than ours. Pulls from a peer that cannot be
        connected fail.
        """
        pool, mine = wire.decode_pool(peer.pool), self._registered
        if (pool.layers, pool.layer_block_bytes) != (mine.layers, mine.layer_block_bytes):
            raise UnsupportedError(
                f"engine {peer.engine} keeps blocks of another shape",
                cause=f"it has {pool.layers} x {pool.layer_block_bytes} bytes, "
                f"this engine {mine.layers} x {mine.layer_block_bytes}",
                remedy="run the same version with the same model and spec on all engines",
            )
        peers = self._running.peers
        self._thread.put(lambda: peers.add(peer, pool))

    def remove_peer(self, engine: str, incarnation: str) -> None:
        """Forget an incarnation. Pulls from it that are in flight stay tracked until they end."""
        peers = self._running.peers
        self._thread.put(lambda: peers.remove(engine, incarnation))

    # ------------------------------------------------------------ moving

    def pull(
        self,
        peer: str,
        local: Indices,
        remote: Indices,
        *,
        deadline_s: float,
        on_done: OnResult,
        on_settled: OnResult | None = None,
        notify: bytes | None = None,
    ) -> None:
        """READ the peer's Layer Blocks `remote` into ours at `local` (slot * layers + layer, same length).

        `on_done` is called exactly once: DONE, FAILED (nothing of it lands any more) or OVERDUE. After
        OVERDUE, `on_settled` is called exactly once, with DONE or FAILED. `notify` is sent to the peer
        after DONE. Raises ValueError for indices outside our own pool; indices outside the peer's pool are
        FAILED.
        """
        pool, mover, started = self._registered, self._running, time.monotonic()
        _check(local, remote, pool.slots * pool.layers)
        local, remote = np.ascontiguousarray(local, np.int32), np.ascontiguousarray(remote, np.int32)

        def post() -> None:
            flight = Flight(
                peer=peer,
                remote=mover.peers.find(peer) or mover.peers.nobody,
                size=len(local) * pool.layer_block_bytes,
                started=started,
                deadline=started + deadline_s,
                on_done=on_done,
                on_settled=on_settled,
                notify=notify,
            )
            mover.post(flight, local, remote)

        self._thread.put(post)

    def notify(self, peer: str, data: bytes) -> None:
        """Send `data` to a peer; dropped if it is not connected (then it was lost, or removed)."""
        mover = self._running
        self._thread.put(lambda: mover.send(peer, data))

    def expect(self, change: int) -> None:
        """Count up while peers will read from us or notify us, and down again: how eagerly to poll."""
        mover = self._running

        def apply() -> None:
            mover.expected += change

        self._thread.put(apply)

    # ------------------------------------------------------------ state

    @property
    def stats(self) -> TransferStats:
        """Counters; from any thread."""
        return self._running.stats()

    def stuck_s(self) -> float:
        """For how long a pull has been overdue, or the agent's thread has not come round; 0: neither."""
        now, overdue = time.monotonic(), self._running.flights.overdue_since
        return max(0.0 if overdue is None else now - overdue, now - self._thread.came_round)

    def close(self, timeout_s: float = 1.0) -> None:
        """Stop the thread. Pulls in flight are left as they are; the process must end, by `exit.leave`."""
        self._thread.close(timeout_s)

    def _step(self, had_commands: bool) -> float:
        return self._mover.step(had_commands) if self._mover else IDLE_POLL_S

    @property
    def _running(self) -> Mover:
        assert self._mover is not None
        return self._mover

    @property
    def _registered(self) -> BlockPool:
        if self._pool is None:
            raise ValueError("register a pool first")
        return self._pool


def _check(local: Indices, remote: Indices, limit: int) -> None:
    if len(local) != len(remote):
        raise ValueError(f"{len(local)} local blocks for {len(remote)} remote ones")
    if len(local) and not (int(local.min()) >= 0 and int(local.max()) < limit):
        raise ValueError(f"local block index outside of 0..{limit - 1}")
