"""Which prefill engine and which decode engine serve a request.

Source: DualPath, arXiv 2602.21548v2, section 6 (PE scheduling; DE scheduling, phases 1 and 2).
Queues are FIFO. Engines that take no new work, and engines that failed the request before, are left out; a
request that every engine failed is passed over, so that it cannot block those behind it. Ties go to the
shorter read queue, then to the first name: equal input gives equal output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import accumulate

from dualpath_policy.model import EngineLoad, GroupChoice, Limits, Placement, Waiting


def choose_prefill(waiting: Waiting, engines: Sequence[EngineLoad], limits: Limits) -> Placement:
    """Least unfinished tokens among the engines with a short read queue, else among all not overloaded."""
    open_to_it = _open_to(waiting, engines)
    if not open_to_it:
        return _waits(
            waiting, "no prefill engine takes it: none is up, or all are draining or failed it before"
        )
    light = [e for e in open_to_it if limits.beta is None or e.tok_e <= limits.beta]
    if not light:
        return _waits(waiting, f"every prefill engine has more than {limits.beta} unfinished tokens")
    roomy = [e for e in light if e.free_slots >= waiting.slots]
    if not roomy:
        return _waits(waiting, f"no prefill engine has {waiting.slots} free buffer slots")
    short = [e for e in roomy if limits.alpha is None or e.read_q <= limits.alpha]
    best = min(short or roomy, key=lambda e: (e.tok_e, e.read_q, e.engine))
    queue = "with a short read queue" if short else "no read queue is short"
    return Placement(
        request=waiting.request,
        engine=best.engine,
        reason=f"{best.engine} has least unfinished tokens ({best.tok_e}), {queue} ({best.read_q} tokens)",
    )


def place_prefill(queue: Iterable[Waiting], engines: Sequence[EngineLoad], limits: Limits) -> list[Placement]:
    """Place a FIFO queue. The last answer may say why its request, and all behind it, wait."""
    loads = list(engines)
    return _place(queue, loads, lambda waiting: choose_prefill(waiting, loads, limits))


def choose_group(waiting: Waiting, engines: Sequence[EngineLoad]) -> GroupChoice:
    """Phase 1: the decode group with the least total tokens, among groups with an engine that may take it."""
    totals: dict[str, int] = {}
    for engine in engines:
        totals[engine.group] = totals.get(engine.group, 0) + engine.tok_e
    groups = {e.group for e in _open_to(waiting, engines)}
    if not groups:
        reason = "no decode engine takes it: none is up, or all are draining or failed it before"
        return GroupChoice(request=waiting.request, group=None, reason=reason)
    best = min(groups, key=lambda group: (totals[group], group))
    return GroupChoice(
        request=waiting.request,
        group=best,
        reason=f"{best} has the least tokens of its kind ({totals[best]})",
    )


def spread_over_groups(queue: Iterable[Waiting], engines: Sequence[EngineLoad]) -> list[GroupChoice]:
    """Phase 1 for the whole queue: it is drained, and each request counts for those behind it."""
    loads = list(engines)
    choices = []
    for waiting in queue:
        choice = choose_group(waiting, loads)
        choices.append(choice)
        if choice.group is not None:
            index = next(i for i, e in enumerate(loads) if e.group == choice.group)
            loads[index] = replace(loads[index], tok_e=loads[index].tok_e + waiting.prompt_tokens)
    return choices


def place_decode(queue: Sequence[Waiting], engines: Sequence[EngineLoad]) -> list[Placement]:
    """Phase 2: place one group's FIFO queue on its engines. The last answer may say why the rest waits."""
    loads = list(engines)
    level = fair_level(queue, loads)
    return _place(queue, loads, lambda waiting: choose_decode(waiting, loads, level))


def fair_level(queue: Sequence[Waiting], engines: Sequence[EngineLoad]) -> float:
    """Z: 1.05 times the mean tokens of an engine once the longest prefix that fits all caches is placed."""
    takers = [e for e in engines if e.accept_new]
    if not takers:
        return 0.0
    free = sum(e.free_tokens for e in takers)
    needs = accumulate(waiting.cache_tokens for waiting in queue)
    fitting = sum(waiting.prompt_tokens for waiting, need in zip(queue, needs, strict=True) if need <= free)
    return 1.05 * (fitting + sum(e.tok_e for e in takers)) / len(takers)


def choose_decode(waiting: Waiting, engines: Sequence[EngineLoad], level: float) -> Placement:
    """Among engines with room: least requests of those that stay below `level`, else least tokens."""
    open_to_it = _open_to(waiting, engines)
    if not open_to_it:
        return _waits(
            waiting, "no decode engine takes it: none is up, or all are draining or failed it before"
        )
    need = waiting.cache_tokens
    roomy = [e for e in open_to_it if e.free_tokens >= need and e.free_slots >= waiting.slots]
    if not roomy:
        return _waits(
            waiting, f"no decode engine has room for {need} tokens and {waiting.slots} buffer slots"
        )
    below = [e for e in roomy if e.tok_e + waiting.prompt_tokens <= level]
    if below:
        best = min(below, key=lambda e: (e.seq_e, e.tok_e, e.read_q, e.engine))
        why = f"{best.engine} has the least requests ({best.seq_e}) of the engines below the group's level"
    else:
        best = min(roomy, key=lambda e: (e.tok_e, e.seq_e, e.read_q, e.engine))
        why = f"{best.engine} has the least tokens ({best.tok_e}); none stays below the group's level"
    return Placement(request=waiting.request, engine=best.engine, reason=f"{why} of {level:.0f} tokens")


def after(load: EngineLoad, waiting: Waiting) -> EngineLoad:
    """The load once the request is placed there; its reads are added when its read mode is chosen."""
    return replace(
        load,
        seq_e=load.seq_e + 1,
        tok_e=load.tok_e + waiting.prompt_tokens,
        free_tokens=load.free_tokens - waiting.cache_tokens,
        free_slots=load.free_slots - waiting.slots,
    )


def _place(
    queue: Iterable[Waiting], loads: list[EngineLoad], choose: Callable[[Waiting], Placement]
) -> list[Placement]:
    """Head by head, with the loads kept up to date in place; stops at a head that must wait for room."""
    placements = []
    for waiting in queue:
        placement = choose(waiting)
        placements.append(placement)
        if placement.engine is not None:
            index = next(i for i, e in enumerate(loads) if e.engine == placement.engine)
            loads[index] = after(loads[index], waiting)
        elif _open_to(waiting, loads):
            break
    return placements


def _open_to(waiting: Waiting, engines: Iterable[EngineLoad]) -> list[EngineLoad]:
    return [e for e in engines if e.accept_new and e.engine not in waiting.excluded]


def _waits(waiting: Waiting, reason: str) -> Placement:
    return Placement(request=waiting.request, engine=None, reason=reason)
