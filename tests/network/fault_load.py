"""A steady load of agents whose every token is compared with the reference, and what became of each request."""

from __future__ import annotations

import http.client
import itertools
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self

from client import BLOCK, fresh

REPLY = 8
DEADLINE_S = 60.0
"""A request that takes longer hangs."""
WINDOW_S = 5.0


class Outcome(StrEnum):
    """What became of a request."""

    RIGHT = "right"
    WRONG = "wrong"  # other tokens than the reference's
    LOST = "lost"  # an error instead of tokens
    REFUSED = "refused"  # nobody was there to take it
    HUNG = "hung"  # no answer within the deadline


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """One request that has ended."""

    began: float
    ended: float
    outcome: Outcome
    told: str = ""  # the error


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt and the tokens that the reference continues it with."""

    tokens: tuple[int, ...]
    reply: tuple[int, ...]


def prompts(reference: Callable[[Sequence[int], int], Sequence[int]], count: int) -> list[Prompt]:
    """Contexts of 6 to 12 blocks in families that share their first half."""
    found = []
    for number in range(count):
        shared = fresh(3 * BLOCK, ("family", number % 5))
        tokens = [*shared, *fresh((3 + number % 7) * BLOCK + number, ("own", number))]
        found.append(Prompt(tuple(tokens), tuple(reference(tokens, REPLY))))
    return found


@dataclass(slots=True)
class Load:
    """Agents that ask without pause while the block lasts."""

    openai: Callable[[], str]
    prompts: list[Prompt]
    agents: int = 4
    done: list[Done] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Self:
        """Begin."""
        numbers = itertools.count()
        self._threads = [
            threading.Thread(target=self._run, args=(numbers,), daemon=True) for _ in range(self.agents)
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Let the running requests end."""
        self._stop.set()
        for thread in self._threads:
            thread.join(DEADLINE_S + 30)

    def rate(self, since: float, until: float) -> float:
        """Right answers per second in a span of time."""
        with self._lock:
            right = sum(d.outcome is Outcome.RIGHT and since <= d.ended < until for d in self.done)
        return right / (until - since)

    def recovered_s(self, ended: float, wanted: float, within_s: float) -> float | None:
        """After how many seconds from `ended` on a window carries the wanted rate; None: not in time."""
        while (now := time.monotonic()) < ended + within_s + WINDOW_S:
            if now - ended >= WINDOW_S and self.rate(now - WINDOW_S, now) >= wanted:
                return max(0.0, now - WINDOW_S - ended)
            time.sleep(0.2)
        return None

    def _run(self, numbers: itertools.count[int]) -> None:
        while not self._stop.is_set():
            with self._lock:
                prompt = self.prompts[next(numbers) % len(self.prompts)]
            done = self._ask(prompt)
            with self._lock:
                self.done.append(done)
            if done.outcome is Outcome.REFUSED:
                self._stop.wait(0.5)

    def _ask(self, prompt: Prompt) -> Done:
        body = {
            "model": "tiny",
            "prompt": list(prompt.tokens),
            "max_tokens": REPLY,
            "temperature": 0,
            "ignore_eos": True,
            "return_token_ids": True,
        }
        began = time.monotonic()
        outcome, told = Outcome.LOST, ""
        try:
            request = urllib.request.Request(f"{self.openai()}/completions", json.dumps(body).encode())
            request.add_header("Content-Type", "application/json")
            with urllib.request.urlopen(request, timeout=DEADLINE_S) as answer:
                tokens = tuple(json.load(answer)["choices"][0]["token_ids"])
            outcome = Outcome.RIGHT if tokens == prompt.reply else Outcome.WRONG
            told = "" if outcome is Outcome.RIGHT else f"{tokens} instead of {prompt.reply}"
        except urllib.error.HTTPError as error:
            outcome = Outcome.REFUSED if error.code in {429, 503} else Outcome.LOST
            told = f"{error.code} {error.read().decode(errors='replace')[:200]}"
        except TimeoutError:
            outcome, told = Outcome.HUNG, f"no answer in {DEADLINE_S:g} s"
        except urllib.error.URLError as error:
            timed_out = isinstance(error.reason, TimeoutError)
            outcome, told = (Outcome.HUNG if timed_out else Outcome.REFUSED), str(error.reason)
        except (OSError, ValueError, KeyError, http.client.HTTPException) as error:
            told = f"{type(error).__name__}: {error}"
        return Done(began=began, ended=time.monotonic(), outcome=outcome, told=told)
