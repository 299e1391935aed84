"""From the queue to engines: match against storage, ask the policy, assign.

The decode engine is assigned first; the prefill engine's assignment is held until the decode engine has
accepted, so that two requests can never hold one half each and wait for the other.
"""

from __future__ import annotations

from dataclasses import replace

import msgspec

from dualpath_api.wire import Assign, Match, ReadMode, Role
from dualpath_gateway.scheduler.model import Job, State
from dualpath_gateway.scheduler.table import Engine, Guess
from dualpath_gateway.scheduler.world import World
from dualpath_policy.model import EngineLoad, ModeChoice, Placement, Waiting
from dualpath_policy.paths import choose_mode
from dualpath_policy.placement import choose_decode, choose_prefill, fair_level, spread_over_groups


def pump(world: World, now: float) -> None:
    """Ask storage for the first jobs of the queue, then place as many as the policy allows, in order."""
    world.changed = False
    if not world.queue:
        return
    for job in world.queue[: world.patience.match_ahead]:
        _match(world, job, now)
    _place(world, now)


# ---------------------------------------------------------------- matching


def _match(world: World, job: Job, now: float) -> None:
    """Ask an engine how much of the job is stored, unless that is known or must wait."""
    stale = job.hit_blocks is not None and now - job.since > world.patience.match_fresh
    if job.query is not None or (job.state is State.MATCHED and not stale):
        return
    if job.not_before > now:
        return
    engine = world.engines.to_ask()
    if engine is None:
        return
    if not job.keys:
        matched(world, job, 0, now, "shorter than a block")
        return
    waited = now - job.queued_at
    if waited < world.patience.pending and world.pending.needed_by(job.keys):
        return
    world.query_numbers += 1
    job.query, job.asked_at = world.query_numbers, now
    world.queries[job.query] = (job.id, engine.name)
    world.send(engine.name, Match(query=job.query, keys=job.keys))
    world.wake(now + world.patience.match, job)


def matched(world: World, job: Job, blocks: int, now: float, reason: str) -> None:
    """Storage has answered (or could not): the job is ready to be placed."""
    if job.query is not None:
        world.queries.pop(job.query, None)
        job.query = None
    job.asks = 0
    job.hit_blocks = min(blocks, len(job.keys))
    world.changed = True
    world.enter(job, State.MATCHED, now, hit_blocks=job.hit_blocks, of_blocks=len(job.keys), reason=reason)


def no_answer(world: World, job: Job, now: float) -> None:
    """An engine did not say in time what is stored: ask another, in the end take nothing as a hit."""
    assert job.query is not None
    world.queries.pop(job.query, None)
    job.query, job.asks = None, job.asks + 1
    if job.asks >= world.patience.match_asks:
        matched(world, job, 0, now, "storage did not answer in time")


# ---------------------------------------------------------------- choosing


def _place(world: World, now: float) -> None:
    """Place matched jobs in order. A full decode group stops its own queue, full prefill engines stop all."""
    ready = [job for job in world.queue if job.state is State.MATCHED and job.not_before <= now]
    if not ready:
        return
    takers = {role: {e.name for e in world.engines.of(role) if e.accepts} for role in Role}
    waiting = [_waiting(world, job, takers) for job in ready]
    decode = world.engines.loads(Role.DECODE)
    prefill, limits = world.engines.loads(Role.PREFILL), world.engines.limits()
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
        de = choose_decode(wish, members, levels[group])
        if de.engine is None:
            _held_back(job, de.reason, now)
            full.add(group)
            continue
        head = replace(wish, slots=wish.slots - 1)  # the spare block is the decode side's
        pe = choose_prefill(head, prefill, limits)
        if pe.engine is None:
            _held_back(job, pe.reason, now)
            return
        _assign(world, job, pe, de, choice.reason, now)
        decode, prefill = world.engines.loads(Role.DECODE), world.engines.loads(Role.PREFILL)


def _held_back(job: Job, reason: str, now: float) -> None:
    """Tell why a job waits, unless that was told just before."""
    record = job.turn.record
    if all(step.get("reason") != reason for step in record.history[-4:]):
        record.add(now, job.state.value, job=job.id, attempt=job.attempt, reason=reason)


def _waiting(world: World, job: Job, takers: dict[Role, set[str]]) -> Waiting:
    """The job as the policy sees it."""
    block = world.engines.block_tokens()
    generated = len(job.tokens) - len(job.turn.tokens)
    return Waiting(
        request=job.id,
        prompt_tokens=len(job.tokens),
        hit_tokens=(job.hit_blocks or 0) * block,
        max_tokens=max(0, job.turn.sampling.max_tokens - generated),
        choices=len(job.choices),
        slots=job.blocks(block) + 1,
        excluded=_excluded(job, takers),
    )


def _excluded(job: Job, takers: dict[Role, set[str]]) -> frozenset[str]:
    """Engines that failed the job; but where that leaves none of a role, one of them has to try again."""
    excluded: set[str] = set()
    for names in takers.values():
        if names - job.excluded:
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
    mode = choose_mode(world.tuning, _load_of(world, pe), _load_of(world, de), job.hit_blocks or 0)
    world.unqueue(job)
    job.attempt += 1
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
        keys=job.keys,
        hit_blocks=job.hit_blocks or 0,
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
    hit = (job.hit_blocks or 0) * block
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
