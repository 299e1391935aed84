"""What the transfer agent's thread does: post, poll, send, deliver."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

from dualpath_worker.transfer.flights import Flight, Flights
from dualpath_worker.transfer.peers import Peers
from dualpath_worker.transfer.port import Indices, NixlPort, PeerLostError, PortError
from dualpath_worker.transfer.results import Outcome, TransferStats

log = logging.getLogger(__name__)

OWN_POLL_S = 0.0002
EXPECT_POLL_S = 0.0003
IDLE_POLL_S = 0.010
LINGER_S = 0.005  # poll on after activity: a notification leaves only by progress


class Mover:
    """All state of the agent. Nothing here may be called from another thread, but for `stats`."""

    def __init__(self, name: str, device: str | None, options: Mapping[str, str]) -> None:
        self.port = NixlPort(name, device, options)
        self.flights = Flights(self.port, self._ended, self._overdue, self._lost)
        self.peers = Peers(self.port, self._say_lost)
        self.expected = 0
        self.on_notification: Callable[[str, bytes], None] = lambda engine, data: None
        self.on_lost: Callable[[str, str], None] = lambda engine, incarnation: None
        self._lively_until = 0.0
        self._bytes = self._sent = self._received = 0
        self._outcomes = dict.fromkeys(Outcome, 0)

    def step(self, had_commands: bool) -> float:
        """One round of progress; seconds until the next one."""
        try:
            received = self.port.receive()
            if self.flights.active and self.flights.poll():
                self.peers.tidy()
        except Exception:
            log.exception("progress of transfers failed")
            return IDLE_POLL_S
        for sender, messages in received.items():
            self._deliver(sender, messages)
        now = time.monotonic()
        if had_commands or received:
            self._lively_until = now + LINGER_S
        if self.flights.urgent:
            return OWN_POLL_S
        return EXPECT_POLL_S if self.expected > 0 or now < self._lively_until else IDLE_POLL_S

    def post(self, flight: Flight, local: Indices, remote: Indices) -> None:
        """Start a flight; its callback is called now if it ends at once."""
        target = flight.remote
        limit = target.pool.slots * target.pool.layers
        if target.lost:
            return self._report(flight, Outcome.FAILED, "the peer is unknown or lost")
        if len(remote) and not (int(remote.min()) >= 0 and int(remote.max()) < limit):
            return self._report(flight, Outcome.FAILED, f"peer block index outside of 0..{limit - 1}")
        if len(local) == 0:
            return self._report(flight, Outcome.DONE, "")
        try:
            flight.handle, done = self.port.post(target.descriptors, local, remote)
        except PeerLostError as error:
            self.peers.lose(target, str(error))
            return self._report(flight, Outcome.FAILED, f"connection lost: {error}")
        except PortError as error:
            return self._report(flight, Outcome.FAILED, str(error))
        if done:
            return self._report(flight, Outcome.DONE, "")
        return self.flights.add(flight)

    def send(self, peer: str, data: bytes) -> None:
        """Send a notification; one for a peer that is not connected is dropped."""
        target = self.peers.find(peer)
        if target is None or target.lost:
            log.debug("dropped a notification for %s: it is not connected", peer)
            return
        try:
            self.port.send(target.name, data)
            self._sent += 1
        except (PeerLostError, PortError) as error:
            self.peers.lose(target, str(error))

    def stats(self) -> TransferStats:
        """Counters; from any thread, each figure for itself is right."""
        return TransferStats(
            pulled_bytes=self._bytes,
            done=self._outcomes[Outcome.DONE],
            failed=self._outcomes[Outcome.FAILED],
            overdue=self._outcomes[Outcome.OVERDUE],
            in_flight=self.flights.count,
            notifications_sent=self._sent,
            notifications_received=self._received,
        )

    def _deliver(self, sender: str, messages: list[bytes]) -> None:
        engine = self.peers.engine_of(sender)
        self._received += len(messages)
        for data in messages if engine is not None else ():
            _guard(self.on_notification, engine, data)

    def _ended(self, flight: Flight, outcome: Outcome, reason: str) -> None:
        flight.handle = None  # releases it
        self._report(flight, outcome, reason)

    def _report(self, flight: Flight, outcome: Outcome, reason: str) -> None:
        self._outcomes[outcome] += 1
        if outcome is Outcome.DONE:
            self._bytes += flight.size
            if flight.notify is not None:
                self.send(flight.peer, flight.notify)
        callback = flight.on_settled if flight.overdue else flight.on_done
        if callback is not None:
            _guard(callback, flight.result(outcome, reason))

    def _overdue(self, flight: Flight) -> None:
        self._outcomes[Outcome.OVERDUE] += 1
        log.warning("a pull of %d bytes from %s is overdue", flight.size, flight.peer)
        _guard(flight.on_done, flight.result(Outcome.OVERDUE, "not finished at its deadline"))

    def _lost(self, flight: Flight, reason: str) -> None:
        self.peers.lose(flight.remote, reason)

    def _say_lost(self, engine: str, incarnation: str, reason: str) -> None:
        log.warning("the connection to %s (incarnation %s) is lost: %s", engine, incarnation, reason)
        _guard(self.on_lost, engine, incarnation)


def _guard(callback: Callable[..., None], *arguments: object) -> None:
    try:
        callback(*arguments)
    except Exception:
        log.exception("a callback of the transfer agent failed")
