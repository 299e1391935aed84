"""One pass of the rollout: from the replicas that exist to the steps that may be taken now.

Stateless: the same replicas and the same wish give the same steps, whatever happened before. So a restart of
the operator, a change of mind (A, B, A) and a scale in the middle of a rollout need no case of their own.

The rules; docs/decisions/0008-rollout-planner.md has the reasons:
- Old revisions only shrink; whatever is missing is made in the target revision.
- Prefill and decode pair only inside a revision, so both roles advance in steps (see `rollout_board`), and an
  old replica goes only after the step that replaces it is ready in both roles.
- By the planner's steps, ready replicas of a role do not fall below `wanted - maxUnavailable`; replicas that
  hold GPUs, those on their way out included, do not rise above `wanted + maxSurge` nor the GPU budget.
- A step begins only if the GPUs of all its replicas can be had: half a step holds GPUs and serves nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from dualpath_operator.rollout_board import Board, Side
from dualpath_operator.rollout_model import Delete, Outcome, Plan, Replica, State, Strategy, Wish


def plan(replicas: Sequence[Replica], wish: Wish) -> Plan:
    """The steps of this pass; earlier ones may have been carried out, or not, or in part."""
    board = Board(replicas, wish)
    _keep_what_is_wanted(board)
    if wish.strategy is Strategy.COORDINATED:
        _resume_needed_old(board)
    _remove_what_is_useless(board)
    _shrink(board)
    if wish.strategy is Strategy.RECREATE:
        _drain_all_old(board)
        blocked = None if board.anything_old else _advance(board)
        return _answer(board, blocked)
    _finish_steps(board)
    blocked = _advance(board)
    if board.rolling and board.idle:
        blocked = _advance(board, whole_pairs=False)
    return _answer(board, blocked)


# ---------------------------------------------------------------- target revision


def _keep_what_is_wanted(board: Board) -> None:
    """A replica of the target revision that is about to go, but is wanted again, takes work again."""
    for side in board.sides.values():
        back = sorted(board.draining(side, current=True), key=lambda r: (r.state is State.DRAINED, r.index))
        for replica in back[: max(0, side.wish.wanted - side.count)]:
            board.resume(replica, "it is wanted again")


def _remove_what_is_useless(board: Board) -> None:
    """Delete what holds no work: broken, drained, and pending replicas of other revisions."""
    for side in board.sides.values():
        for replica in side.leaving:
            if replica.state in _REASONS:
                board.steps.append(Delete(id=replica.id, why=_REASONS[replica.state]))


_REASONS = {
    State.BROKEN: "it has failed for good",
    State.DRAINED: "it is drained",
    State.PENDING: "its revision is not wanted any more, and it holds no work",
}


def _shrink(board: Board) -> None:
    """Fewer are wanted: of the target revision pending replicas go first, then unready, then the newest."""
    order = {State.PENDING: 0, State.UNREADY: 1}
    for side in board.sides.values():
        going = sorted(side.new, key=lambda r: (order.get(r.state, 2), -r.index))
        for replica in going[: max(0, len(side.new) - side.wish.wanted)]:
            why = f"{side.wish.wanted} {side.role} replicas are wanted"
            if replica.state is State.PENDING:
                board.cancel(replica, why)
            else:
                board.drain(replica, why)


# ---------------------------------------------------------------- old revisions


def _drain_all_old(board: Board) -> None:
    """Recreate: the old revisions go, ready or not."""
    if not board.wish.paused:
        for side in board.sides.values():
            for replica in list(side.old):
                board.drain(replica, "all old replicas go before new ones come")


def _resume_needed_old(board: Board) -> None:
    """When too few are ready (more are wanted now, or some have failed), old replicas stop draining."""
    for side in board.sides.values():
        lacking = side.wish.wanted - side.wish.unavailable - side.ready_new - side.ready_old
        useful = sorted(
            board.draining(side, current=False),
            key=lambda r: (-sum(board.alive[r.revision, role] for role in board.sides), r.revision, r.index),
        )
        for replica in useful[: max(0, lacking)]:
            board.resume(replica, f"fewer {side.role} replicas are ready than must be")


def _finish_steps(board: Board) -> None:
    """Drain the old replicas that the finished steps have replaced."""
    again = True
    while again:
        again = False
        for side in board.sides.values():
            why = f"of {side.wish.wanted} {side.role} replicas enough are of {board.wish.target} now"
            while (replica := board.next_old(side, ahead=False, whole_pairs=True)) is not None:
                board.drain(replica, why)
                again = True


# ---------------------------------------------------------------- next steps


def _advance(board: Board, *, whole_pairs: bool = True) -> str | None:
    """Create the replicas of the next steps, as many as there is room for; the answer is what is lacking.

    Where there is no room, as many old replicas are drained as may be unavailable. A replica whose room is
    still to come is promised it, so that drains go on for the steps behind it; nothing behind it is created.
    """
    create = True
    while (step := board.planned_step + 1) <= board.total_steps:
        missing = board.missing(step)
        drained: list[Replica] = []
        with_slot = [side for side in missing if _has_slot(board, side, whole_pairs, drained)]
        if len(with_slot) < len(missing):
            _undo(board, drained)
            with_slot = [side for side in missing if board.slots(side) > 0]
        affordable = _affordable(board, with_slot, whole_pairs, drained)
        if with_slot and not affordable:
            _undo(board, drained)
            return _lacking_gpus(board, with_slot)
        create = create and _create(board, affordable)
        if len(affordable) < len(missing) and board.rolling:
            return None
        if not create:
            for side in board.missing(step):
                side.promised += 1
    return None


def _has_slot(board: Board, side: Side, whole_pairs: bool, drained: list[Replica]) -> bool:
    """True when the role may get one replica more, now or once something is gone."""
    return board.slots(side) > 0 or _drain_ahead(board, (side,), whole_pairs, drained)


def _affordable(board: Board, sides: list[Side], whole_pairs: bool, drained: list[Replica]) -> list[Side]:
    """The roles whose next replica fits the GPU budget: in a rollout all or none."""
    if board.rolling:
        while sum(side.wish.gpus for side in sides) > board.coming_gpus:
            if not _drain_ahead(board, (*sides, *board.sides.values()), whole_pairs, drained):
                return []
        return sides
    fitting, left = [], board.coming_gpus
    for side in sides:
        if side.wish.gpus <= left:
            fitting.append(side)
            left -= side.wish.gpus
    return fitting


def _drain_ahead(board: Board, sides: Sequence[Side], whole_pairs: bool, drained: list[Replica]) -> bool:
    """Drain an old replica before its successor exists, if one may be unavailable."""
    if board.wish.paused:
        return False
    for side in sides:
        replica = board.next_old(side, ahead=True, whole_pairs=whole_pairs)
        if replica is not None:
            board.drain(replica, f"it makes room for a replica of {board.wish.target}")
            drained.append(replica)
            return True
    return False


def _undo(board: Board, drained: list[Replica]) -> None:
    while drained:
        board.undo_drain(drained.pop())


def _create(board: Board, sides: list[Side]) -> bool:
    """Create one replica of each role if there is room already; True when all were created."""
    if board.rolling and sum(side.wish.gpus for side in sides) > board.free_gpus:
        return False
    made = 0
    for side in sides:
        if board.room(side) > 0 and side.wish.gpus <= board.free_gpus:
            board.create(side, f"{side.wish.wanted} {side.role} replicas of {board.wish.target} are wanted")
            made += 1
    return made == len(sides)


def _lacking_gpus(board: Board, sides: list[Side]) -> str:
    need = sum(side.wish.gpus for side in sides)
    what = "the rollout" if board.rolling else "the next replica"
    free = max(0, int(board.coming_gpus))
    return f"{what} needs {need} GPUs, {free} of the budget of {board.wish.gpu_budget} free"


# ---------------------------------------------------------------- summary


def _answer(board: Board, blocked: str | None) -> Plan:
    if board.rolling and not board.idle:
        blocked = None  # what is under way frees GPUs
    prefill, decode = board.sides.values()
    message = (
        f"{prefill.ready_new} of {prefill.wish.wanted} prefill and {decode.ready_new} of "
        f"{decode.wish.wanted} decode replicas of {board.wish.target} are ready"
    )
    if board.rolling:
        message += f"; {len(prefill.old)} and {len(decode.old)} older ones stay"
    if blocked:
        message += f"; {blocked}"
    return Plan(steps=tuple(board.steps), outcome=_outcome(board, blocked), message=message, blocked=blocked)


def _outcome(board: Board, blocked: str | None) -> Outcome:
    if blocked:
        return Outcome.NO_GPUS
    if board.wish.paused and board.rolling:
        return Outcome.PAUSED
    if board.anything_old:
        return Outcome.ROLLING
    complete = board.idle and all(side.count == side.wish.wanted for side in board.sides.values())
    return Outcome.COMPLETE if complete else Outcome.SCALING
