"""Recorded sessions of agents: read, and scaled to what an emulated cluster can serve.

A file is CSV of lengths and times (benchmarks/data); lines that begin with # are remarks. Nobody knows the
texts, so any token ids stand for them: what counts is that a prompt begins with all that was said before.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dualpath_api.errors import SpecError

COLUMNS = ("session", "context_tokens", "generated_tokens", "wait_s")
BUNDLED = Path(__file__).resolve().parent / "data" / "claude_code_sessions.csv"


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One request: tokens of its prompt, tokens to generate, seconds between the last answer and it."""

    context: int
    generated: int
    wait_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What one agent asks, in order."""

    name: str
    turns: tuple[Turn, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Divisors of token counts and of seconds; no wait counts as longer than `longest_wait_s` (before it)."""

    tokens: int
    time: float
    longest_wait_s: float

    def of(self, session: Session) -> Session:
        """The scaled session: contexts grow with each turn, at least one token is generated."""
        turns: list[Turn] = []
        least = 1
        for turn in session.turns:
            context = max(least, math.ceil(turn.context / self.tokens))
            generated = max(1, round(turn.generated / self.tokens))
            wait_s = min(turn.wait_s, self.longest_wait_s) / self.time
            turns.append(Turn(context=context, generated=generated, wait_s=wait_s))
            least = context + generated + 1
        return Session(name=session.name, turns=tuple(turns))


def prompt(said: Sequence[int], turn: Turn, draw: Callable[[], int]) -> list[int]:
    """What was said before (prompts and answers), with new tokens up to the turn's context."""
    return [*said, *(draw() for _ in range(turn.context - len(said)))]


def read_sessions(file: Path, sessions: int, turns: int) -> tuple[Session, ...]:
    """The first turns of the first sessions of FILE. Raises SpecError."""
    found: dict[str, list[Turn]] = {}
    for name, turn in _rows(file):
        found.setdefault(name, []).append(turn)
    most = min((len(of_one) for of_one in found.values()), default=0)
    for what, asked, there in (("sessions", sessions, len(found)), ("turns", turns, most)):
        if not 1 <= asked <= there:
            raise SpecError(
                f"cannot replay {asked} {what}",
                cause=f"{file} has {there} {what}" + (" of each session" if what == "turns" else ""),
                remedy=f"give --{what} from 1 to {there}" if there else "give a file with sessions",
            )
    chosen = list(found.items())[:sessions]
    return tuple(Session(name=name, turns=tuple(of_one[:turns])) for name, of_one in chosen)


def _rows(file: Path) -> list[tuple[str, Turn]]:
    """Each line after the remarks and the head."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(
            f"cannot read the sessions {file}", cause=str(error), remedy="give --trace a file of sessions"
        ) from error
    told = [(number, line) for number, line in enumerate(lines, 1) if not line.startswith("#")]
    if not told or tuple(told[0][1].split(",")) != COLUMNS:
        raise SpecError(
            f"{file} is no file of sessions",
            cause=f"its first line is not {','.join(COLUMNS)}",
            remedy="see benchmarks/data/README.md",
        )
    return [_row(file, number, line) for number, line in told[1:]]


def _row(file: Path, number: int, line: str) -> tuple[str, Turn]:
    try:
        name, context, generated, wait = next(csv.reader([line]))
        turn = Turn(context=int(context), generated=int(generated), wait_s=float(wait))
        if min(turn.context, turn.generated, turn.wait_s) < 0 or not math.isfinite(turn.wait_s):
            raise ValueError("a negative or infinite number")
    except (ValueError, StopIteration) as error:
        raise SpecError(
            f"{file}, line {number} is not a turn", cause=str(error), remedy=f"write {','.join(COLUMNS)}"
        ) from error
    return name, turn
