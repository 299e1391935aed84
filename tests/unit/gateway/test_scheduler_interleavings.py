"""Whatever engines and clients do, and in whatever order: streams stay whole, and nothing is left behind."""

from __future__ import annotations

from random import Random

import pytest
from engine_model import Network
from hypothesis import example, given, settings
from hypothesis import strategies as st

TWO = {"prefill-1-0": "other", "decode-1-0": "other"}
"""Two pairs of engines, each of a revision and a KV layout of its own."""

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


def work(network: Network, rounds: int) -> None:
    """Each engine reads what it was sent, takes one step and is heard, so many times."""
    for _ in range(rounds):
        for name, engine in network.engines.items():
            while engine.inbox:
                engine.take_message()
            engine.step(0, "ok")
            while engine.outbox:
                network.deliver(name)


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
@given(
    seed=st.integers(0, 2**32),
    faults=st.frozensets(st.sampled_from(FAULTS)),
    revisions=st.sampled_from([{}, TWO]),
)
@example(
    seed=409401391, faults=frozenset({"kill"}), revisions={}
)  # a turn ends while its jobs are queued anew
def test_every_stream_ends_once_and_nothing_is_left(seed, faults, revisions):
    network = Network(revisions)
    play(network, Random(seed), faults, 400)
    network.run_to_the_end()
    check_rest(network)


@pytest.mark.parametrize("fault", FAULTS)
def test_the_interleavings_reach_what_they_are_about(fault):
    reached = dict.fromkeys(("ok", "refused", "failed", "excused", "aborted", "split"), 0)
    for seed in range(12):
        network = Network(TWO if seed % 2 else {})
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
    work(network, 12)
    assert 0 < len(network.streams["r0"][0]) < 50
    network.kill("decode-0-0")
    network.kill("decode-1-0")
    network.run_to_the_end()
    assert network.ended == {"r0": None}
    assert [len(tokens) for tokens in network.streams["r0"].values()] == [50, 50]


def test_requests_are_spread_over_revisions_and_go_on_in_the_other_one():
    network = Network(TWO)
    for _ in range(4):
        network.submit(130, 50, 1)
    work(network, 3)
    assigned = {(job.prefill, job.decode) for job in network.scheduler.world.jobs.values()}
    assert assigned == {("prefill-0-0", "decode-0-0"), ("prefill-1-0", "decode-1-0")}
    network.kill("prefill-0-0")
    work(network, 400)
    assert set(network.ended) == {f"r{number}" for number in range(4)}
    check_rest(network)


def test_a_revision_whose_prefill_engines_are_full_leaves_requests_to_the_other():
    network = Network(TWO)
    for _ in range(9):  # two of these fill the 12 blocks of an engine's buffer
        network.submit(300, 5, 1)
    work(network, 1)
    world = network.scheduler.world
    assert {engine.register.revision for engine in world.engines if engine.jobs} == {"", "other"}
    network.run_to_the_end()
    check_rest(network)
