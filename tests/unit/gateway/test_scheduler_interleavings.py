"""Whatever engines and clients do, and in whatever order: streams stay whole, and nothing is left behind."""

from __future__ import annotations

from engine_model import Network
from hypothesis import given, settings
from hypothesis import strategies as st

names = st.sampled_from(Network.NAMES)
number = st.integers(0, 7)
answers = st.sampled_from(["ok"] * 12 + ["refuse", "fail", "excuse"])
actions = st.one_of(
    st.tuples(st.just("submit"), st.integers(1, 300), st.integers(1, 70), st.integers(1, 3)),
    st.tuples(st.just("read"), names),
    st.tuples(st.just("step"), names, number, answers),
    st.tuples(st.just("deliver"), names),
    st.tuples(st.just("run"), names, number),
    st.tuples(st.just("run"), names, number),
    st.tuples(st.just("kill"), names),
    st.tuples(st.just("revive"), names),
    st.tuples(st.just("cancel"), number),
    st.tuples(st.just("stop_choice"), number),
    st.tuples(st.just("wait"), st.sampled_from([0.01, 0.6, 3.0, 11.0, 130.0])),
)


def act(network: Network, action: tuple) -> None:
    kind, *rest = action
    engine = network.engines.get(rest[0]) if kind in ("read", "step", "run") else None
    match kind:
        case "read":
            if engine and engine.inbox:
                engine.take_message()
        case "step":
            if engine:
                engine.step(rest[1], rest[2])
        case "run":  # several steps at once, so that requests get far
            for _ in range(rest[1] + 1):
                if engine and engine.inbox:
                    engine.take_message()
                if engine:
                    engine.step(0, "ok")
                while engine and engine.outbox:
                    network.deliver(engine.name)
        case _:
            getattr(network, kind)(*rest)


@settings(max_examples=150, deadline=None)
@given(st.lists(actions, max_size=120))
def test_every_stream_ends_once_and_nothing_is_left(steps):
    network = Network()
    for step in steps:
        act(network, step)
    network.run_to_the_end()
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


def test_a_turn_survives_the_death_of_its_decode_engine_without_a_seam():
    network = Network()
    network.submit(130, 50, 2)
    for _ in range(12):
        for name in Network.NAMES:
            act(network, ("run", name, 1))
    assert 0 < len(network.streams["r0"][0]) < 50
    network.kill("decode-0-0")
    network.kill("decode-1-0")
    network.run_to_the_end()
    assert network.ended == {"r0": None}
    assert [len(tokens) for tokens in network.streams["r0"].values()] == [50, 50]
