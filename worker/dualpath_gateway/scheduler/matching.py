"""How much of a waiting request is in storage: asked of an engine, for each layout that may serve it."""

from __future__ import annotations

from collections.abc import Sequence

from dualpath_api.keys import KvLayout
from dualpath_api.wire import Match
from dualpath_gateway.scheduler.model import Job, State
from dualpath_gateway.scheduler.world import Query, World


def match(world: World, job: Job, layouts: Sequence[KvLayout], now: float) -> None:
    """Ask about the layouts that are not known yet, one after the other; what is known for long, again."""
    if job.query is not None or job.not_before > now:
        return
    unknown = [layout for layout in layouts if layout not in job.hits]
    if not unknown and now - job.since > world.patience.match_fresh:
        unknown = [layout for layout in job.hits if layout in layouts][:1]
    for layout in unknown:
        if job.keys_of(layout):
            _ask(world, job, layout, now)
            return
        matched(world, job, layout, 0, now, "shorter than a block")


def _ask(world: World, job: Job, layout: KvLayout, now: float) -> None:
    """Put the question to an engine, unless blocks of the job are just being written."""
    keys, waited = job.keys_of(layout), now - job.queued_at
    if waited < world.patience.pending and world.pending.needed_by(keys):
        return
    engine = world.engines.to_ask(layout)
    if engine is None:
        return
    world.query_numbers += 1
    job.query, job.asked_at = world.query_numbers, now
    world.queries[job.query] = Query(job.id, engine.name, layout)
    world.send(engine.name, Match(query=job.query, keys=keys))
    world.wake(now + world.patience.match, job)


def matched(world: World, job: Job, layout: KvLayout, blocks: int, now: float, reason: str) -> None:
    """Storage has answered (or could not): the job can be placed on engines of that layout."""
    if job.query is not None:
        world.queries.pop(job.query, None)
        job.query = None
    keys = job.keys_of(layout)
    job.asks = 0
    job.hits.pop(layout, None)
    job.hits[layout] = hit = min(blocks, len(keys))
    world.changed = True
    world.enter(job, State.MATCHED, now, hit_blocks=hit, of_blocks=len(keys), reason=reason)


def no_answer(world: World, job: Job, now: float) -> None:
    """An engine did not say in time what is stored: ask another, in the end take nothing as a hit."""
    assert job.query is not None
    layout = world.queries.pop(job.query).layout
    job.query, job.asks = None, job.asks + 1
    if job.asks >= world.patience.match_asks:
        matched(world, job, layout, 0, now, "storage did not answer in time")
