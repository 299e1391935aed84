"""One request's way through its engines: what each message of an engine does to a job.

Messages for an attempt that is not the current one, or from an engine that has no part in it, are ignored.
"""

from __future__ import annotations

from dualpath_api.wire import (
    Abort,
    Accepted,
    Drawn,
    Failed,
    Filled,
    Matched,
    ReadDone,
    Refused,
    Start,
    Stored,
    Tokens,
)
from dualpath_gateway.scheduler import matching, placing, recovery
from dualpath_gateway.scheduler.effects import Emit
from dualpath_gateway.scheduler.engine import Engine
from dualpath_gateway.scheduler.model import Job, KeyChain, State, Turn
from dualpath_gateway.scheduler.world import World

OfAttempt = Accepted | Refused | ReadDone | Filled | Failed


def matched(world: World, message: Matched, now: float) -> None:
    """Storage's answer."""
    query = world.queries.get(message.query)
    job = world.jobs.get(query.job) if query else None
    if query and job and job.query == message.query:
        matching.matched(world, job, query.layout, message.blocks, now, f"asked by way of {query.engine}")


def stored(world: World, engine: Engine, message: Stored) -> None:
    """Blocks left an engine's write queue."""
    world.pending.stored(message.keys)
    world.changed = True
    for name in engine.jobs:
        if job := world.jobs.get(name):
            for key in message.keys:
                job.unstored.pop(key, None)


def of_attempt(world: World, engine: Engine, message: OfAttempt, now: float) -> None:
    """A message about one attempt."""
    job = world.jobs.get(message.request)
    if job is None or job.attempt != message.attempt or engine.name not in (job.prefill, job.decode):
        return
    match message:
        case Accepted():
            _accepted(world, job, engine, now)
        case Refused():
            recovery.refused(world, job, engine.name, message.reason, now)
        case ReadDone():
            _read_done(world, job, engine, message, now)
        case Filled():
            _filled(world, job, engine, now)
        case Failed():
            excuse, peer = message.excuse, message.peer
            recovery.failed(world, job, engine.name, message.reason, now, excuse=excuse, peer=peer)


def _accepted(world: World, job: Job, engine: Engine, now: float) -> None:
    if engine.name in job.accepted or job.state is not State.ASSIGNED:
        return
    job.accepted.add(engine.name)
    job.refusals = 0
    if engine.name == job.decode:
        job.unstored = dict.fromkeys(_keys(job)[job.hit_blocks :])
        job.progress_at = now
        placing.assign_to_prefill(world, job)
        world.wake(now + world.patience.assign, job)
    elif job.assign_prefill is None:
        world.enter(job, State.READING, now)


def _read_done(world: World, job: Job, engine: Engine, message: ReadDone, now: float) -> None:
    """The hit is settled: count it, and take the reads off both sides' queues."""
    if engine.name != job.prefill or job.state is not State.READING:
        return
    turn, totals = job.turn, world.totals
    generated = any(choice.tokens for choice in turn.choices)
    if not generated:
        turn.cached_tokens = min(message.hit_tokens, len(turn.tokens))
    totals.prefill_read_bytes += message.prefill_bytes
    totals.decode_read_bytes += message.decode_bytes
    totals.lost_blocks += message.lost_blocks
    world.recent_reads.append((message.prefill_bytes, message.decode_bytes))
    for name, number in job.numbers:
        holder = world.engines.get(name)
        if holder and number in holder.unseen:
            holder.unseen[number].read_tokens = 0
    figures = {
        "hit_tokens": message.hit_tokens,
        "prefill_blocks": message.prefill_blocks,
        "decode_blocks": message.decode_blocks,
        "prefill_bytes": message.prefill_bytes,
        "decode_bytes": message.decode_bytes,
        "lost_blocks": message.lost_blocks,
        "read_seconds": message.seconds,
    }
    turn.record.attempt(job.id, job.attempt).update(figures)
    world.note("read", request=job.id, attempt=job.attempt, **figures)
    world.enter(job, State.PREFILLING, now, hit_tokens=message.hit_tokens)


def _filled(world: World, job: Job, engine: Engine, now: float) -> None:
    """The decode engine has the whole prompt: the prefill engine's part is over."""
    if engine.name != job.decode or job.filled:
        return
    job.filled = world.changed = True
    for name, number in job.numbers:
        if name == job.prefill and (prefill := world.engines.get(name)):
            prefill.unseen.pop(number, None)
    if (prefill := world.engines.get(job.prefill)) is not None:
        prefill.jobs.discard(job.id)
    if job.started:
        world.enter(job, State.DECODING, now)
    _maybe_done(world, job, now)


# ---------------------------------------------------------------- tokens


def tokens(world: World, engine: Engine, message: Tokens, now: float) -> None:
    """One step of an engine."""
    for drawn in message.drawn:
        job = world.jobs.get(drawn.request)
        if job is None or job.attempt != drawn.attempt or drawn.choice not in job.choices:
            continue
        if engine.name == job.prefill and not job.started:
            _first_token(world, job, drawn, now)
        elif engine.name == job.decode and job.started:
            _next_token(world, job, drawn, now)


def _first_token(world: World, job: Job, drawn: Drawn, now: float) -> None:
    """From the prefill engine; when each choice has one, the decode engine may go on."""
    if drawn.choice in job.firsts:
        return
    job.firsts[drawn.choice] = drawn.token
    if job.state is not State.FIRST_TOKEN:
        world.enter(job, State.FIRST_TOKEN, now)
    _emit(world, job, drawn, now)
    if len(job.firsts) == len(job.choices):
        start_decode(world, job, now)


def start_decode(world: World, job: Job, now: float) -> None:
    """All first tokens are known: hand the unfinished choices to the decode engine."""
    open_choices = {choice.index for choice in job.unfinished()}
    first = tuple((index, token) for index, token in sorted(job.firsts.items()) if index in open_choices)
    job.started = True
    assert job.decode is not None
    world.send(job.decode, Start(request=job.id, attempt=job.attempt, first=first))
    world.enter(job, State.DECODING if job.filled else State.FILLING, now, choices=len(first))
    _maybe_done(world, job, now)


def _next_token(world: World, job: Job, drawn: Drawn, now: float) -> None:
    """From the decode engine."""
    job.progress_at = now
    _emit(world, job, drawn, now)
    _maybe_done(world, job, now)


def _emit(world: World, job: Job, drawn: Drawn, now: float) -> None:
    """Pass one token on to the client, unless the choice is over."""
    turn, choice = job.turn, job.turn.choices[drawn.choice]
    if choice.finished:
        return
    choice.tokens.append(drawn.token)
    _extend_chain(job, drawn)
    world.totals.generated_tokens += 1
    if turn.first_token_at is None:
        turn.first_token_at = now
        world.totals.prompt_tokens += len(turn.tokens)
        world.totals.hit_tokens += turn.cached_tokens
        world.recent_hits.append((len(turn.tokens), turn.cached_tokens))
        world.observe("dualpath_ttft_seconds", now - turn.arrived)
    elif len(turn.choices) == 1:
        world.observe("dualpath_itl_seconds", now - turn.last_token_at)
    turn.last_token_at = now
    turn.give_up_at = now + world.patience.request
    world.out.append(Emit(turn.id, drawn))
    if drawn.finish is not None:
        choice.finished = True
    if not turn.open_choices():
        finish_turn(world, turn, now)


def cancel_choice(world: World, turn: Turn, index: int, now: float) -> None:
    """The client needs no more of one choice (a stop string was found)."""
    if turn.choices[index].finished:
        return
    turn.choices[index].finished = True
    turn.record.add(now, "STOPPED", choice=index)
    job = next(job for job in (world.jobs[name] for name in turn.jobs) if index in job.choices)
    if job.started and job.decode:
        world.send(job.decode, Abort(request=job.id, attempt=job.attempt, choice=index))
    if not turn.open_choices():
        finish_turn(world, turn, now)
    if job.waiting and not job.unfinished():
        world.drop_job(job, State.DONE, now)
    else:
        _maybe_done(world, job, now)


def finish_turn(world: World, turn: Turn, now: float) -> None:
    """The last choice is over: its unwritten blocks are hits that the next request waits for."""
    for name in turn.jobs:
        other = world.jobs[name]
        if other.decode and not other.waiting:
            world.pending.add(other.decode, other.unstored)
    turn.record.add(now, "ANSWERED")
    world.end_turn(turn, "ok", now)


def _extend_chain(job: Job, drawn: Drawn) -> None:
    """Follow which blocks the decode engine completes with this token."""
    chain = job.chains.get(drawn.choice)
    if chain is None:
        assert job.layout is not None
        keys, size = _keys(job), job.layout.block_tokens
        parent = keys[-1] if keys else job.layout.root()
        chain = KeyChain(parent, list(job.tokens[len(keys) * size :]), size)
        job.chains[drawn.choice] = chain
    if (key := chain.push(drawn.token)) is not None:
        job.unstored[key] = None


def _maybe_done(world: World, job: Job, now: float) -> None:
    """Over once every choice is finished and the decode engine needs nothing more."""
    if job.started and job.filled and not job.unfinished():
        world.count(world.totals.attempts, "ok")
        world.leave_engines(job, abort=False)
        world.drop_job(job, State.DONE, now)


def _keys(job: Job) -> tuple[bytes, ...]:
    """Of the attempt's complete blocks, in the layout of its engines."""
    assert job.layout is not None
    return job.keys_of(job.layout)
