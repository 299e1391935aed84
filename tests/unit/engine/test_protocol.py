"""The protocol of engines under every order of events: no wrong byte, no leaked slot, every request ends."""

from __future__ import annotations

import asyncio
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from network import World
from scripted_cluster import SLOTS, Session, play, random_requests

from dualpath_worker.engine import base, decode, prefill


def run(
    seed: int, *, prefills: int = 1, decodes: int = 1, aborts: float = 0.0, faults: float = 0.0
) -> Session:
    """One history. Checks what must hold after each."""

    async def scenario() -> Session:
        session = Session(
            World(Random(seed)), prefills=prefills, decodes=decodes, aborts=aborts, faults=faults
        )
        random_requests(session)
        await play(session)
        return session

    session = asyncio.run(scenario())
    assert session.world.wrong == []
    assert session.done == set(session.requests)
    for node in session.nodes.values():
        assert not node.engine.attempts.live, node.name
        assert not node.engine.attempts.lingering, node.name
        assert node.engine.pool.available == SLOTS, node.name
        assert node.agent.expected == 0, node.name
    return session


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the other side does not say in time comes never: nothing here takes long but waiting."""
    for module in (decode, prefill):
        monkeypatch.setattr(module, "PEER_DEADLINE_S", 0.3)
    monkeypatch.setattr(base, "REMIND_S", 0.0)


few = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
seeds = st.integers(0, 2**32)


@few
@given(seed=seeds)
def test_every_request_ends_and_nothing_is_wrong_or_left(seed: int) -> None:
    run(seed)


@few
@given(seed=seeds, engines=st.tuples(st.integers(1, 2), st.integers(1, 3)))
def test_aborts_at_any_time_leave_nothing_behind(seed: int, engines: tuple[int, int]) -> None:
    run(seed, prefills=engines[0], decodes=engines[1], aborts=0.4)


@few
@given(seed=seeds, engines=st.tuples(st.integers(1, 2), st.integers(1, 3)))
def test_dead_engines_and_lost_connections_cost_nothing(seed: int, engines: tuple[int, int]) -> None:
    run(seed, prefills=engines[0], decodes=engines[1], faults=0.9)
