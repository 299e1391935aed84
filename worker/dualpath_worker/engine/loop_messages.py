"""What the event loop and the decode loop's thread say to each other.

A `Fill` is answered by exactly one `Entered` or `Unfilled`, an entered attempt by exactly one `Ended` or
`Evicted`.
"""

from __future__ import annotations

from dataclasses import dataclass

from dualpath_api import wire
from dualpath_worker.engine.attempts import Name


@dataclass(frozen=True, slots=True, kw_only=True)
class Fill:
    """Copy the prompt from these buffer slots into pages and go on from the first tokens."""

    assign: wire.Assign
    slots: tuple[int, ...]
    first: tuple[tuple[int, int], ...]  # (choice, token)

    @property
    def name(self) -> Name:
        """(request, attempt)."""
        return self.assign.request, self.assign.attempt


@dataclass(frozen=True, slots=True)
class Abort:
    """Forget an attempt, or one of its choices."""

    name: Name
    choice: int | None


@dataclass(frozen=True, slots=True)
class ReleasePage:
    """A persisted page is written."""

    page: int


@dataclass(frozen=True, slots=True)
class Entered:
    """The prompt is in the pages; the slots are needed no more."""

    name: Name


@dataclass(frozen=True, slots=True)
class Unfilled:
    """The attempt was aborted before it entered, or can never fit (`reason`)."""

    name: Name
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Stepped:
    """The tokens of one step."""

    drawn: tuple[wire.Drawn, ...]


@dataclass(frozen=True, slots=True)
class BlockComplete:
    """A block of generated tokens can be persisted; the page is held until `release_page`."""

    key: bytes
    page: int
    data: tuple[memoryview, ...]


@dataclass(frozen=True, slots=True)
class Ended:
    """All choices of the attempt are finished or aborted."""

    name: Name


@dataclass(frozen=True, slots=True)
class Evicted:
    """The attempt goes back to the queue: no page is left and it is the youngest, or a step failed."""

    name: Name
    reason: str
    excuse: bool  # False: our own fault, so that a request that always fails is not tried forever


Event = Entered | Unfilled | Stepped | BlockComplete | Ended | Evicted


def without_choice(fill: Fill, choice: int) -> Fill:
    """The same fill without one choice that was given up."""
    return Fill(
        assign=fill.assign, slots=fill.slots, first=tuple(pair for pair in fill.first if pair[0] != choice)
    )
