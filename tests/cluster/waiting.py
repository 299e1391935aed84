"""Waiting for a condition with a bound, in place of sleeps: a slow machine makes a test slow, not red."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

POLL_S = 0.05


class NotInTime(AssertionError):  # noqa: N818 - reads as the sentence of a failed test
    """What was waited for did not come about; the message names it and what was seen last."""


def until(condition: Callable[[], T], within: float = 60.0, *, what: str = "", every: float = POLL_S) -> T:
    """Call `condition` until it returns something true, and return that.

    An AssertionError or a missing key counts as "not yet" and is part of the message; every other error is the
    test's own. `within` is in seconds: choose it by what is still sane on a busy machine, as it costs nothing. `every` is
    the longest pause between two calls, in seconds: longer for what is dear to ask.
    """
    deadline = time.monotonic() + within
    pause = POLL_S / 5
    while True:
        try:
            seen: object = condition()
            if seen:
                return seen  # type: ignore[return-value]
        except (AssertionError, LookupError) as not_yet:
            seen = repr(not_yet)
        if time.monotonic() >= deadline:
            waited_for = what or getattr(condition, "__qualname__", repr(condition))
            raise NotInTime(f"waited {within:g} s for: {waited_for}; last seen: {seen}")
        time.sleep(pause)
        pause = min(2 * pause, every)
