"""What happens when an attempt cannot go on: refused, failed, late, engine gone, client gone.

A request resumes with its prompt and the tokens that the client already has, so its stream neither repeats
nor skips one. Choices that have drifted apart become jobs of their own.
"""

from __future__ import annotations

from dualpath_gateway.scheduler.effects import Failure, FailureKind
from dualpath_gateway.scheduler.model import Job, State, Turn
from dualpath_gateway.scheduler.world import World


def refused(world: World, job: Job, engine: str, reason: str, now: float) -> None:
    """No room there now. Back to the queue for a moment, not counted as a failure."""
    world.count(world.totals.attempts, "refused")
    world.leave_engines(job, abort=True)
    job.refusals += 1
    wait = min(world.patience.backoff_most, world.patience.backoff_first * 2 ** min(job.refusals - 1, 10))
    job.not_before = now + wait
    job.hits.clear()
    world.enqueue(job, now, engine=engine, reason=f"refused by {engine}: {reason}")
    world.wake(job.not_before, job)


def failed(
    world: World,
    job: Job,
    engine: str | None,
    reason: str,
    now: float,
    *,
    excuse: bool = False,
    peer: str = "",
) -> None:
    """Give the attempt up and queue what is left of the job, or end it when it failed too often.

    `peer` could not be reached by `engine`: the next attempt avoids both, where others are left.
    """
    world.count(world.totals.attempts, "excused" if excuse else "failed")
    world.warn(
        "attempt failed",
        request=job.id,
        attempt=job.attempt,
        engine=engine,
        reason=reason,
        excuse=excuse,
    )
    world.leave_engines(job, abort=True)
    if not job.unfinished():
        world.pending.stored(job.unstored)
        world.drop_job(job, State.DONE, now, reason=f"all tokens were sent; not persisted: {reason}")
        return
    if not excuse:
        job.failures += 1
        job.excluded |= {name for name in (engine, peer) if name}
    if job.failures >= world.patience.attempts:
        give_up(
            world, job.turn, FailureKind.ENGINE, f"{job.failures} attempts failed; the last: {reason}", now
        )
        return
    job.refusals = 0
    job.not_before = now + (world.patience.backoff_most if excuse else 0.0)
    for part in _parts(world, job):
        world.enqueue(part, now, engine=engine, reason=reason, excuse=excuse)
        if part.not_before > now:
            world.wake(part.not_before, part)


def _parts(world: World, job: Job) -> list[Job]:
    """The job with its unfinished choices; one job each once they have tokens of their own."""
    open_choices = job.unfinished()
    if len(open_choices) == 1 or not any(choice.tokens for choice in open_choices):
        job.resume(open_choices)
        return [job]
    parts = []
    for choice in open_choices:
        part = Job(
            id=f"{job.turn.id}~c{choice.index}",  # no client can choose a name with ~
            turn=job.turn,
            choices=(choice.index,),
            order=job.order,
            tokens=(),
            layout=job.layout,
            since=job.since,
            attempt=job.attempt,
            failures=job.failures,
            excluded=set(job.excluded),
            not_before=job.not_before,
        )
        part.resume([choice])
        world.jobs[part.id] = part
        job.turn.jobs.add(part.id)
        parts.append(part)
    world.jobs.pop(job.id, None)
    job.turn.jobs.discard(job.id)
    return parts


def give_up(world: World, turn: Turn, kind: FailureKind, message: str, now: float) -> None:
    """End a request with an error."""
    for name in list(turn.jobs):
        job = world.jobs[name]
        world.leave_engines(job, abort=True)
        world.drop_job(job, State.ABORTED, now, reason=message)
    world.end_turn(turn, kind.value, now, Failure(kind, message))


def cancel(world: World, turn: Turn, reason: str, now: float) -> None:
    """The client is gone: free everything at once."""
    for name in list(turn.jobs):
        job = world.jobs[name]
        world.leave_engines(job, abort=True)
        world.drop_job(job, State.ABORTED, now, reason=reason)
    world.end_turn(turn, "aborted", now)


def engine_lost(world: World, name: str, reason: str, now: float) -> None:
    """Queue again what the engine was needed for."""
    for job in [job for job in world.jobs.values() if name in (job.prefill, job.decode)]:
        if name == job.prefill and job.started and job.filled:
            continue  # its part was over
        if job.id not in world.jobs:
            continue  # its turn has just been given up, for another of its jobs
        failed(world, job, name, reason, now)
