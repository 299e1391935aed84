"""From drawn tokens to what a choice shows: text, token ids and log-probabilities that belong together.

A token is shown at once, its text as soon as it is whole characters. With stop strings a token is shown
together with its text, so that tokens which only hold parts of a stop string are not. The end-of-sequence
token has neither text nor id here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from dualpath_api.wire import Drawn
from dualpath_gateway.text.detokenize import Vocabulary
from dualpath_gateway.text.stops import StopFinder


@dataclass(slots=True)
class Piece:
    """What some tokens of one choice add to its answer."""

    text: str = ""
    drawn: list[Drawn] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)  # of each drawn token's text, in characters
    finish: str | None = None

    def add(self, other: Piece) -> None:
        """Append a later piece of the same choice."""
        self.text += other.text
        self.drawn += other.drawn
        self.offsets += other.offsets
        self.finish = other.finish

    @property
    def token_ids(self) -> list[int]:
        """Ids of the tokens."""
        return [drawn.token for drawn in self.drawn]

    def __bool__(self) -> bool:
        return bool(self.text or self.drawn or self.finish)


class ChoiceText:
    """Turns the tokens of one choice into pieces."""

    def __init__(self, vocabulary: Vocabulary, stops: Sequence[str]) -> None:
        self._stream = vocabulary.stream()
        self._stops = StopFinder(stops)
        self._at_once = not stops
        self._waiting: list[tuple[int, Drawn]] = []  # (offset, token) whose text is not shown yet
        self._decoded = 0
        self._shown = 0
        self.tokens = 0  # generated, without the end-of-sequence token
        self.finished = False

    def push(self, drawn: Drawn) -> Piece:
        """Add a token. Once a piece has `finish`, nothing more may be pushed."""
        text = ""
        if drawn.finish != "stop":  # an end-of-sequence token
            self.tokens += 1
            self._waiting.append((self._decoded, drawn))
            text = self._stream.push(drawn.token)
        if drawn.finish is not None:
            text += self._stream.finish()
        self._decoded += len(text)
        shown, stopped = self._stops.push(text)
        finish = "stop" if stopped else drawn.finish
        if finish is not None and not stopped:
            shown += self._stops.finish()
        self._shown += len(shown)
        piece = Piece(text=shown, finish=finish)
        self._release(piece, everything=self._at_once or (finish is not None and not stopped))
        self.finished = finish is not None
        return piece

    def _release(self, piece: Piece, *, everything: bool) -> None:
        """Move the tokens whose text has begun to be shown into the piece."""
        count = len(self._waiting)
        if not everything:
            count = sum(offset < self._shown for offset, _ in self._waiting)
        for offset, drawn in self._waiting[:count]:
            piece.drawn.append(drawn)
            piece.offsets.append(offset)
        del self._waiting[:count]
