"""Whom this agent can read from and talk to; agent's thread only.

An engine has one current incarnation; a process (a `Remote`) can be several incarnations one after the
other, since a lost connection to the scheduler starts a new one. A remote is disconnected only when no
incarnation uses it and no transfer from it is in flight, because a disconnect would hide how those end.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from dualpath_api.wire import Peer, PoolInfo
from dualpath_worker.transfer.flights import Remote
from dualpath_worker.transfer.port import NixlPort

log = logging.getLogger(__name__)


class Peers:
    """Engines by name, processes by NIXL agent name."""

    def __init__(self, port: NixlPort, on_lost: Callable[[str, str, str], None]) -> None:
        """`on_lost(engine, incarnation, reason)` is called once for each lost incarnation."""
        self._port = port
        self._on_lost = on_lost
        self._current: dict[str, tuple[str, Remote]] = {}
        self._remotes: dict[str, Remote] = {}
        self._gone: set[str] = set()
        nothing = PoolInfo(base=0, slots=0, layers=0, layer_block_bytes=0)
        self.nobody = Remote(name="", metadata=b"", pool=nothing, descriptors=None, lost=True)

    def find(self, engine: str) -> Remote | None:
        """The process of the engine's current incarnation."""
        current = self._current.get(engine)
        return current[1] if current else None

    def engine_of(self, sender: str) -> str | None:
        """Engine of a NIXL agent name, known or not yet known; None for a process that has been removed."""
        return None if sender in self._gone else sender.rpartition("/")[0]

    def add(self, peer: Peer, pool: PoolInfo) -> None:
        """Make this incarnation the engine's current one; a lost connection to it is tried again."""
        known = self._current.get(peer.engine)
        if known and known[0] == peer.incarnation and not known[1].lost:
            return
        try:
            remote = self._connected(peer, pool)
        except Exception as error:
            self._current.pop(peer.engine, None)
            self.tidy()
            self._on_lost(peer.engine, peer.incarnation, f"cannot connect: {error}")
            return
        self._current[peer.engine] = (peer.incarnation, remote)
        self._gone.discard(remote.name)
        self.tidy()

    def remove(self, engine: str, incarnation: str) -> None:
        """Forget an incarnation; one that is not the current one is forgotten already."""
        known = self._current.get(engine)
        if known and known[0] == incarnation:
            del self._current[engine]
            self.tidy()

    def lose(self, remote: Remote, reason: str) -> None:
        """The connection to a process broke."""
        if remote.lost:
            return
        remote.lost = True
        for engine, (incarnation, current) in list(self._current.items()):
            if current is remote:
                self._on_lost(engine, incarnation, reason)

    def tidy(self) -> None:
        """Disconnect processes that nothing needs any more."""
        wanted = {id(remote) for _, remote in self._current.values()}
        for remote in list(self._remotes.values()):
            if id(remote) not in wanted and remote.flights == 0:
                self._disconnect(remote)

    def _connected(self, peer: Peer, pool: PoolInfo) -> Remote:
        same = next((r for r in self._remotes.values() if r.metadata == peer.agent), None)
        if same and not same.lost:
            return same
        if same and same.flights:
            raise ConnectionError("transfers of its broken connection have not ended yet")
        if same:
            self._disconnect(same)
        name, descriptors = self._port.connect(peer.agent, pool)
        remote = Remote(name=name, metadata=peer.agent, pool=pool, descriptors=descriptors)
        self._remotes[name] = remote
        return remote

    def _disconnect(self, remote: Remote) -> None:
        del self._remotes[remote.name]
        self._gone.add(remote.name)
        try:
            self._port.disconnect(remote.name, remote.descriptors)
        except Exception as error:
            log.debug("disconnecting %s: %s", remote.name, error)
