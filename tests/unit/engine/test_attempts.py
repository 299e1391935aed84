"""Who holds which slot: an attempt's slots are free once its own side and its peer have both let go."""

from __future__ import annotations

import threading

import pytest

from dualpath_api import wire
from dualpath_worker.blocks import BlockPool
from dualpath_worker.engine.arrivals import LayerArrivals, LayersLostError
from dualpath_worker.engine.attempts import Attempt, Attempts

PEER = wire.Peer(engine="prefill-0-0", incarnation="1", agent=b"", pool=b"")
SLOTS = 8


class Side:
    """One engine's attempts, and what its peer was told."""

    def __init__(self) -> None:
        self.pool = BlockPool(slots=SLOTS, layers=1, layer_block_bytes=8)
        self.told: list[wire.ToPeer] = []
        self.attempts: Attempts[Attempt] = Attempts(
            self.pool, lambda peer, message: self.told.append(message)
        )

    def open(self, name: str = "r", blocks: int = 3) -> Attempt:
        slots = self.pool.reserve(blocks)
        assert slots is not None
        assign = wire.Assign(
            request=name,
            attempt=1,
            number=1,
            tokens=(1,),
            prompt_tokens=1,
            keys=(),
            hit_blocks=0,
            mode=wire.ReadMode.SPLIT,
            sampling=wire.Sampling(max_tokens=1),
            peer=PEER,
        )
        attempt = Attempt(assign=assign, slots=slots)
        self.attempts.open(attempt)
        return attempt


def test_unshared_slots_are_free_at_once() -> None:
    side = Side()
    side.attempts.close(side.open())
    assert side.pool.available == SLOTS
    assert side.told == [wire.Released(request="r", attempt=1)]


def test_shared_slots_wait_for_the_peer() -> None:
    side = Side()
    attempt = side.open()
    side.attempts.share(attempt)
    side.attempts.close(attempt)
    assert (side.pool.available, side.pool.quarantined) == (SLOTS - 3, 3)
    side.attempts.released("r", 1)
    assert side.pool.available == SLOTS


def test_a_peer_that_has_released_is_told_of_no_slot_again() -> None:
    """It says so once: a hold after that would never end."""
    side = Side()
    attempt = side.open()
    side.attempts.released("r", 1)
    side.attempts.share(attempt)
    side.attempts.close(attempt)
    assert side.pool.available == SLOTS
    assert not side.attempts.lingering


def test_released_is_said_after_the_last_pull_and_once() -> None:
    side = Side()
    attempt = side.open()
    slots = list(attempt.slots)
    side.attempts.pull_began(attempt, slots)
    side.attempts.close(attempt)
    assert side.told == []
    assert side.pool.quarantined == 3
    side.attempts.pull_ended(attempt, slots)
    assert len(side.told) == 1
    assert side.pool.available == SLOTS


def test_a_dead_incarnation_holds_nothing() -> None:
    side = Side()
    live, closed = side.open("live"), side.open("closed")
    side.attempts.share(live)
    side.attempts.share(closed)
    side.attempts.close(closed)
    assert side.attempts.peer_gone(PEER.engine, "2") == []
    assert side.attempts.peer_gone(PEER.engine, "1") == [live]
    assert side.pool.quarantined == 0
    side.attempts.close(live)
    assert side.pool.available == SLOTS


def test_forgiven_attempts_hold_nothing() -> None:
    side = Side()
    attempt = side.open()
    side.attempts.share(attempt)
    side.attempts.close(attempt)
    side.attempts.forgive()
    assert side.pool.available == SLOTS
    side.attempts.released("r", 1)  # the peer's word comes late


def test_a_slot_that_is_still_written_is_replaced() -> None:
    side = Side()
    attempt = side.open()
    old = attempt.slots[1]
    side.pool.begin([old])  # a storage read
    assert side.attempts.replace_slot(attempt, 1)
    assert attempt.slots[1] != old
    side.attempts.close(attempt)
    assert side.pool.quarantined == 1
    side.pool.end([old])
    assert side.pool.available == SLOTS


def test_without_a_free_slot_nothing_is_replaced() -> None:
    side = Side()
    attempt = side.open(blocks=SLOTS)
    assert not side.attempts.replace_slot(attempt, 0)
    side.attempts.close(attempt)
    assert side.pool.available == SLOTS


def test_arrivals_never_go_back() -> None:
    arrivals = LayerArrivals()
    arrivals.advance(3)
    arrivals.advance(1)
    arrivals.wait(2, 0.0)


def test_a_lost_layer_wakes_who_waits_and_what_is_here_stays() -> None:
    arrivals = LayerArrivals()
    reasons: list[str] = []

    def wait() -> None:
        try:
            arrivals.wait(1, 60.0)
        except LayersLostError as lost:
            reasons.append(str(lost))

    thread = threading.Thread(target=wait)
    thread.start()
    arrivals.advance(1)
    arrivals.lose("the peer is gone")
    arrivals.lose("a later reason")
    thread.join(60)
    assert reasons == ["the peer is gone"]
    arrivals.wait(0, 0.0)


def test_an_overdue_layer_is_lost() -> None:
    with pytest.raises(LayersLostError, match="layer 0 overdue after 0 s"):
        LayerArrivals().wait(0, 0.0)
