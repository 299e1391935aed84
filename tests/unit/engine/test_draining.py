"""An engine that was told to drain."""

from __future__ import annotations

from random import Random

from network import World
from scripted_cluster import Node
from test_reading import assignment

from dualpath_api import wire
from dualpath_api.wire import ReadMode


async def test_a_drain_outlives_the_connection_that_told_it() -> None:
    world = World(Random(1))
    prefill, decode = Node(world, "prefill-0-0"), Node(world, "decode-0-0")
    decode.engine.on_message(wire.Drain(accept_new=False, serve_reads=True))
    decode.engine.on_lost_link()
    report = decode.engine.report()
    assert (report.accept_new, report.serve_reads) == (False, True)
    decode.engine.on_message(assignment(world, prefill, ReadMode.SPLIT))
    assert not list(decode.engine.attempts)
    decode.engine.on_message(wire.Drain(accept_new=True, serve_reads=True))
    decode.engine.on_message(assignment(world, prefill, ReadMode.SPLIT))
    assert len(list(decode.engine.attempts)) == 1
    await prefill.close()


async def test_time_spent_computing_is_reported() -> None:
    decode = Node(World(Random(1)), "decode-0-0")
    decode.parts.metrics.computed("decode", 0.25)
    decode.parts.metrics.computed("fill", 0.5)
    assert decode.engine.report().busy_s == 0.75
