"""From the queue to engines: match against storage, ask the policy, assign.

The decode engine is assigned first; the prefill engine's assignment is held until the decode engine has
accepted, so that two requests can never hold one half each and wait for the other.

The policy chooses among the decode engines of all complete revisions; the prefill engine is then one of the
same revision. A revision whose prefill engines are full is left out for what is still in the queue.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import replace

import msgspec

from dualpath_api.wire import Assign, ReadMode, Role
from dualpath_gateway.scheduler.engine import Engine, Guess
from dualpath_gateway.scheduler.matching import match
from dualpath_gateway.scheduler.model import Job, State
from dualpath_gateway.scheduler.revisions import Revision
from dualpath_gateway.scheduler.table import limits_of
from dualpath_gateway.scheduler.world import World
from dualpath_policy.model import EngineLoad, ModeChoice, Placement, Waiting
from dualpath_policy.paths import choose_mode
from dualpath_policy.placement import choose_decode, choose_prefill, fair_level, spread_over_groups


def pump(world: World, now: float) -> None:
    """Ask storage for the first jobs of the queue, then place as many as the policy allows, in order."""
    world.changed = False
    if not world.queue:
        return
    layouts = world.engines.layouts()
    for job in world.queue[: world.patience.match_ahead]:
        match(world, job, layouts, now)
    _place(world, now)


# ---------------------------------------------------------------- choosing


def _place(world: World, now: float) -> None:
    """Place matched jobs in order, in rounds; a round ends when one revision's prefill engines are full."""
    revisions = world.engines.complete()
    ready = [
        job
        for job in world.queue
        if job.state is State.MATCHED
        and job.not_before <= now
        and all(revision.layout in job.hits for revision in revisions)
    ]
    if not revisions:
        for job in ready:
            _held_back(job, "no revision has a prefill and a decode engine that take requests", now)
    while ready and revisions:
        full = _round(world, ready, revisions, now)
        revisions = [revision for revision in revisions if revision.name != full]
        ready = [job for job in ready if job.waiting] if full is not None else []


def _round(world: World, ready: list[Job], revisions: Sequence[Revision], now: float) -> str | None:
    """Place jobs until a revision's prefill engines are full: its name. A full decode group stops its own."""
    by_name = {revision.name: revision for revision in revisions}
    waiting = [_waiting(job, revisions) for job in ready]
    decode = _loads(world, Role.DECODE, by_name)
    groups = spread_over_groups(waiting, decode)
    levels: dict[str, float] = {}
    full: set[str] = set()
    for job, wish, choice in zip(ready, waiting, groups, strict=True):
        group = choice.group
        if group is None:
            _held_back(job, choice.reason, now)
        if group is None or group in full:
            continue
        members = [load for load in decode if load.group == group]
        if group not in levels:
            queue = [w for w, g in zip(waiting, groups, strict=True) if g.group == group]
            levels[group] = fair_level(queue, members)
        revision = by_name[_revision_of(world, members[0].engine)]
        wish = replace(wish, slots=job.blocks(revision.layout.block_tokens) + 1)
        de = choose_decode(wish, members, levels[group])
        if de.engine is None:
            _held_back(job, de.reason, now)
            full.add(group)
            continue
        head = replace(wish, slots=wish.slots - 1)  # the spare block is the decode side's
        limits = limits_of((*revision.prefill, *revision.decode))
        pe = choose_prefill(head, _loads(world, Role.PREFILL, {revision.name}), limits)
        if pe.engine is None:
            _held_back(job, pe.reason, now)
            return revision.name
        _assign(world, job, pe, de, choice.reason, now)
        decode = _loads(world, Role.DECODE, by_name)
    return None


def _loads(world: World, role: Role, revisions: Container[str]) -> list[EngineLoad]:
    """Loads of the engines of these revisions."""
    return [load for load in world.engines.loads(role) if _revision_of(world, load.engine) in revisions]


def _revision_of(world: World, name: str) -> str:
    engine = world.engines.get(name)
    assert engine is not None
    return engine.register.revision


def _held_back(job: Job, reason: str, now: float) -> None:
    """Tell why a job waits, unless that was told just before."""
    record = job.turn.record
    if all(step.get("reason") != reason for step in record.history[-4:]):
        record.add(now, job.state.value, job=job.id, attempt=job.attempt, reason=reason)


def _waiting(job: Job, revisions: Sequence[Revision]) -> Waiting:
    """The job as the policy sees it."""
    generated = len(job.tokens) - len(job.turn.tokens)
    return Waiting(
        request=job.id,
        prompt_tokens=len(job.tokens),
        max_tokens=max(0, job.turn.sampling.max_tokens - generated),
        choices=len(job.choices),
        excluded=_excluded(job, revisions),
    )


def _excluded(job: Job, revisions: Sequence[Revision]) -> frozenset[str]:
    """Engines that failed the job, and those of revisions that cannot serve it for that reason.

    Where that leaves no pair at all, engines that failed it have to try again. An answer that has begun goes
    on in its own layout, as other weights would go on differently, while a revision has it.
    """
    own = [revision for revision in revisions if revision.layout == job.layout]
    started = any(choice.tokens for choice in job.turn.choices)
    if not job.excluded and not (started and own):
        return frozenset()
    takers = {r.name: [r.takers(role) for role in Role] for r in revisions}
    wanted = {r.name for r in (own if started and own else revisions)}
    able = {name for name in wanted if all(names - job.excluded for names in takers[name])}
    excluded: set[str] = set()
    for revision, sides in takers.items():
        for names in sides:
            if revision not in (able or wanted):
                excluded |= names
            elif names - job.excluded:
                excluded |= names & job.excluded
    return frozenset(excluded)


# ---------------------------------------------------------------- assigning


def _assign(
    world: World, job: Job, prefill: Placement, decode: Placement, group_reason: str, now: float
) -> None:
    """Give a job to a pair of engines."""
    assert prefill.engine is not None
    assert decode.engine is not None
    pe, de = world.engines.get(prefill.engine), world.engines.get(decode.engine)
    assert pe is not None
    assert de is not None
    layout = de.register.layout
    hit = job.hits[layout]
    mode = choose_mode(world.tuning, _load_of(world, pe), _load_of(world, de), hit)
    world.unqueue(job)
    job.attempt += 1
    job.layout, job.hit_blocks = layout, hit
    job.prefill, job.decode, job.mode = pe.name, de.name, mode.mode
    job.accepted.clear()
    job.firsts.clear()
    job.started = job.filled = False
    pe.jobs.add(job.id)
    de.jobs.add(job.id)
    pe.reserved[job.id] = _guess(job, pe, mode)
    de.reserved[job.id] = _guess(job, de, mode)
    job.assign_prefill = _message(job, mode, peer_of=de)
    _record(world, job, mode, (group_reason, decode.reason, prefill.reason), now)
    world.count(world.totals.modes, mode.mode.value)
    world.observe("dualpath_queue_seconds", now - job.queued_at)
    _send(world, job, de, _message(job, mode, peer_of=pe))


def assign_to_prefill(world: World, job: Job) -> None:
    """The decode engine has its slots; now the prefill engine."""
    engine = world.engines.get(job.prefill)
    assert job.assign_prefill is not None
    assert engine is not None
    _send(world, job, engine, job.assign_prefill)
    job.assign_prefill = None


def _send(world: World, job: Job, engine: Engine, assign: Assign) -> None:
    """Number an assignment in the order in which its engine gets them, as `Report.seen` needs it."""
    world.numbers += 1
    engine.unseen[world.numbers] = engine.reserved.pop(job.id)
    job.numbers.append((engine.name, world.numbers))
    world.send(engine.name, msgspec.structs.replace(assign, number=world.numbers))


def _message(job: Job, mode: ModeChoice, *, peer_of: Engine) -> Assign:
    return Assign(
        request=job.id,
        attempt=job.attempt,
        number=0,
        tokens=job.tokens,
        prompt_tokens=len(job.turn.tokens),
        keys=job.keys_of(peer_of.register.layout),
        hit_blocks=job.hit_blocks,
        mode=mode.mode,
        decode_min=mode.decode_min,
        decode_max=mode.decode_max,
        choices=job.choices,
        sampling=job.turn.sampling,
        peer=peer_of.register.peer,
    )


def _guess(job: Job, engine: Engine, mode: ModeChoice) -> Guess:
    """What the assignment adds to the engine's load until it reports."""
    block, decodes = engine.register.layout.block_tokens, engine.role is Role.DECODE
    hit = job.hit_blocks * block
    share = {ReadMode.PREFILL: 0 if decodes else hit, ReadMode.DECODE: hit if decodes else 0}
    return Guess(
        tokens=len(job.tokens) - (0 if decodes else hit),
        read_tokens=share.get(mode.mode, hit // 2),
        slots=job.blocks(block) + (1 if decodes else 0),
        cache_tokens=len(job.tokens) if decodes else 0,
    )


def _load_of(world: World, engine: Engine) -> EngineLoad:
    return next(load for load in world.engines.loads(engine.role) if load.engine == engine.name)


def _record(world: World, job: Job, mode: ModeChoice, reasons: tuple[str, str, str], now: float) -> None:
    """The decision, with its reasons, into the request's history and the log."""
    group, decode, prefill = reasons
    why = {"decode_group": group, "decode": decode, "prefill": prefill, "mode": mode.reason}
    world.enter(
        job,
        State.ASSIGNED,
        now,
        prefill=job.prefill,
        decode=job.decode,
        mode=mode.mode.value,
        hit_blocks=job.hit_blocks,
        reasons=why,
    )
    job.turn.record.attempt(job.id, job.attempt).update(
        prefill=job.prefill,
        decode=job.decode,
        mode=mode.mode.value,
        matched_blocks=job.hit_blocks,
        reasons=why,
    )
    world.note(
        "assigned",
        request=job.id,
        attempt=job.attempt,
        prefill=job.prefill,
        decode=job.decode,
        mode=mode.mode.value,
        hit_blocks=job.hit_blocks,
        reason=mode.reason,
    )
