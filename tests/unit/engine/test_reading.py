"""Who reads what, and when: late binding, and slots that a storage read may still write."""

from __future__ import annotations

import asyncio
from random import Random

from network import BLOCK, World
from scripted_cluster import READ_BATCH, Node

from dualpath_api import wire
from dualpath_api.wire import ReadMode, Role
from dualpath_worker.engine.base import READS_OUTSTANDING

HIT = 16


def assignment(world: World, other: Node, mode: ReadMode) -> wire.Assign:
    tokens = tuple(range(HIT * BLOCK + 1))
    keys = world.learn(tokens)
    world.stored.update(keys)
    return wire.Assign(
        request="r",
        attempt=1,
        number=1,
        tokens=tokens,
        prompt_tokens=len(tokens),
        keys=keys,
        hit_blocks=HIT,
        mode=mode,
        sampling=wire.Sampling(max_tokens=1),
        peer=other.peer,
    )


async def test_neither_side_takes_more_than_it_can_read_now() -> None:
    """The rest stays for whoever is ready first."""
    world = World(Random(1))
    prefill, decode = Node(world, "prefill-0-0"), Node(world, "decode-0-0")
    decode.engine.on_message(assignment(world, prefill, ReadMode.SPLIT))
    prefill.engine.on_message(assignment(world, decode, ReadMode.SPLIT))
    (reading,), (helping,) = prefill.engine.attempts, decode.engine.attempts
    assert len(reading.reads.held(Role.PREFILL)) == READS_OUTSTANDING * READ_BATCH
    assert len(helping.landing) == READS_OUTSTANDING * READ_BATCH
    assert reading.reads.offers(Role.PREFILL) == HIT - 2 * READS_OUTSTANDING * READ_BATCH
    await prefill.close()


async def test_a_pull_never_lands_where_a_read_may_still_write() -> None:
    world = World(Random(1))
    prefill, decode = Node(world, "prefill-0-0"), Node(world, "decode-0-0")
    decode.engine.on_message(assignment(world, prefill, ReadMode.DECODE))
    (attempt,) = decode.engine.attempts
    block = max(attempt.landing)
    old = attempt.slots[block]
    plan = wire.Plan(batch=1, request="r", attempt=1, blocks=((block, 0),), hit_blocks=0, last=False)
    decode.engine.on_peer_message("prefill-0-0", plan)
    assert attempt.slots[block] != old
    assert block not in attempt.landing
    decode.engine.on_message(wire.Abort(request="r", attempt=1))
    assert decode.engine.pool.quarantined == READS_OUTSTANDING * READ_BATCH
    for _ in range(20):  # the reads end, and then what they hold
        world.happen()
        await asyncio.sleep(0)
    assert decode.engine.pool.available == decode.engine.pool.total
    await prefill.close()


async def test_announcements_of_a_dead_process_do_not_count_for_the_next_one() -> None:
    """Both number their batches from 1: a layer that is not ready yet would be pulled."""
    world = World(Random(1))
    prefill, decode = Node(world, "prefill-0-0"), Node(world, "decode-0-0")
    decode.engine.on_message(assignment(world, prefill, ReadMode.PREFILL))
    for batch in range(1, 5):
        plan = wire.Plan(batch=batch, request="r", attempt=1, blocks=((batch, 0),), hit_blocks=0, last=False)
        decode.engine.on_peer_message("prefill-0-0", plan)
        decode.engine.on_peer_message("prefill-0-0", wire.Ready(batch=batch, layer=0))
    assert decode.engine._announced["prefill-0-0"]
    decode.engine.on_message(wire.PeerGone(engine="prefill-0-0", incarnation=prefill.incarnation))
    assert not decode.engine._announced.get("prefill-0-0")
    await prefill.close()


async def test_a_side_that_is_too_slow_leaves_its_share_to_the_other() -> None:
    world = World(Random(1))
    prefill, decode = Node(world, "prefill-0-0"), Node(world, "decode-0-0")
    prefill.engine.on_message(assignment(world, decode, ReadMode.DECODE))
    (attempt,) = prefill.engine.attempts
    late = attempt.reads.held(Role.DECODE)
    have = wire.Have(request="r", attempt=1, blocks=(), late=late[:READ_BATCH])
    prefill.engine.on_peer_message("decode-0-0", have)
    assert attempt.hit_blocks == 0  # nobody else may read: all is computed
    await prefill.close()
