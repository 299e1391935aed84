"""Whatever engines and clients do, and in whatever order: streams stay whole, and nothing is left behind."""

from __future__ import annotations

from random import Random

import pytest
from engine_model import Network
from hypothesis import given, settings
from hypothesis import strategies as st

FAULTS = ("refuse", "fail", "excuse", "kill", "cancel", "stop_choice", "late")


def play(network: Network, random: Random, faults: frozenset[str], steps: int) -> None:
    """Random work of engines and clients; each fault, if it is among `faults`, now and then."""
    for _ in range(steps):
        fault = random.choice(FAULTS) if random.random() < 0.06 else None
        name = random.choice(Network.NAMES)
        engine = network.engines.get(name)
        if fault in faults:
            match fault:
                case "kill":
                    network.kill(name)
                case "cancel":
                    network.cancel(random.randrange(8))
                case "stop_choice":
                    network.stop_choice(random.randrange(8))
                case "late":
                    network.wait(random.choice([0.6, 3.0, 11.0, 130.0]))
                case _ if engine:
                    engine.step(random.randrange(8), fault)
        elif engine is None:
            if random.random() < 0.2:
                network.revive(name)
        elif random.random() < 0.05:
            network.submit(random.randrange(1, 300), random.randrange(1, 40), random.randrange(1, 4))
        elif engine.inbox and random.random() < 0.6:
            engine.take_message()
        elif engine.outbox and random.random() < 0.6:
            network.deliver(name)
        else:
            engine.step(random.randrange(8), "ok")
            network.wait(0.01)


def check_rest(network: Network) -> None:
    """Every stream is whole, and neither side of any connection holds anything."""
    for name, (_, max_tokens, _) in network.prompts.items():
        if name in network.cancelled:
            assert name not in network.ended
            continue
        assert name in network.ended
        if network.ended[name] is None:
            for choice, tokens in network.streams[name].items():
                assert len(tokens) == max_tokens or (name, choice) in network.stopped
    world = network.scheduler.world
    assert not (world.jobs)
    assert not (world.turns)
    assert not (world.queue)
    assert not (world.queries)
    for engine in world.engines:
        assert not (engine.jobs)
        assert not (engine.unseen)
        assert not (engine.reserved)
        load = engine.load(engine.read_queue())
        assert (load.seq_e, load.tok_e, load.read_q) == (0, 0, 0)
    assert len(world.pending) == 0


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), faults=st.frozensets(st.sampled_from(FAULTS)))
def test_every_stream_ends_once_and_nothing_is_left(seed, faults):
    network = Network()
    play(network, Random(seed), faults, 400)
    network.run_to_the_end()
    check_rest(network)


@pytest.mark.parametrize("fault", FAULTS)
def test_the_interleavings_reach_what_they_are_about(fault):
    reached = dict.fromkeys(("ok", "refused", "failed", "excused", "aborted", "split"), 0)
    for seed in range(6):
        network = Network()
        play(network, Random(seed), frozenset({fault}), 400)
        network.run_to_the_end()
        check_rest(network)
        totals, records = network.scheduler.world.totals, network.scheduler.world.records
        for table in (totals.attempts, {"aborted": totals.outcomes.get("aborted", 0)}):
            for kind, count in table.items():
                reached[kind] += count
        reached["split"] += sum("~" in a["job"] for r in records.newest(100) for a in r.attempts)
    wanted = {
        "refuse": ("refused",),
        "fail": ("failed", "split"),
        "excuse": ("excused", "split"),
        "kill": ("failed", "split"),
        "cancel": ("aborted",),
        "late": ("failed",),
    }
    assert all(reached[kind] for kind in ("ok", *wanted.get(fault, ())))


def test_a_turn_survives_the_death_of_its_decode_engine_without_a_seam():
    network = Network()
    network.submit(130, 50, 2)
    for _ in range(12):
        for name in Network.NAMES:
            engine = network.engines[name]
            while engine.inbox:
                engine.take_message()
            engine.step(0, "ok")
            while engine.outbox:
                network.deliver(name)
    assert 0 < len(network.streams["r0"][0]) < 50
    network.kill("decode-0-0")
    network.kill("decode-1-0")
    network.run_to_the_end()
    assert network.ended == {"r0": None}
    assert [len(tokens) for tokens in network.streams["r0"].values()] == [50, 50]
