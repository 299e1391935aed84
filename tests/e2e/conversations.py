"""Conversations whose every reply is compared with the reference."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from client import BLOCK, Answer, complete, fresh

from dualpath_cli.embedded import Embedded

APPENDS = (BLOCK - 1, BLOCK, BLOCK + 1, 1, 3 * BLOCK, 7)
REPLY = 9


def check(
    cluster: Embedded, reference: object, model: Path, prompt: Sequence[int], count: int = REPLY
) -> Answer:
    """One completion, equal to the reference."""
    assert callable(reference)
    answer = complete(cluster, prompt, count)
    assert answer.tokens == reference(model, prompt, count)
    return answer


def converse(cluster: Embedded, reference: object, model: Path, name: object) -> None:
    """Appends shorter than, equal to and one beyond a block; then a fork, an edit, and an exact repetition."""
    context = fresh(BLOCK + 5, (name, "start"))
    lengths = []
    for number, append in enumerate(APPENDS):
        context = context + fresh(append, (name, number))
        answer = check(cluster, reference, model, context)
        assert answer.cached == hit_of(lengths[-1] if lengths else 0, len(context))
        context = context + answer.tokens
        lengths.append(len(context))
    fork = context[: 3 * BLOCK + 10] + fresh(2 * BLOCK, (name, "fork"))
    assert check(cluster, reference, model, fork).cached == 3 * BLOCK
    edited = [*context]
    edited[2 * BLOCK + 3] = FIRST if edited[2 * BLOCK + 3] != FIRST else FIRST + 1
    assert check(cluster, reference, model, edited).cached == 2 * BLOCK
    whole = context[: 4 * BLOCK]
    assert check(cluster, reference, model, whole).cached == 4 * BLOCK - 1


FIRST = 5


def hit_of(known: int, prompt: int) -> int:
    """Cached tokens of a prompt whose first `known` tokens were answered before (the last one has no KV)."""
    return min((max(0, known - 1) // BLOCK) * BLOCK, prompt - 1)
