"""What the tests with the official client share: extra fields, and streams put together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

IDS = {"return_token_ids": True}
EXACT = {"return_token_ids": True, "ignore_eos": True}
"""Extra fields: token ids come back, and an end-of-sequence token ends nothing."""


@dataclass(slots=True)
class Streamed:
    """The chunks of one choice of a stream, put together."""

    text: str = ""
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish: str | None = None
    usage: Any = None

    def add(self, chunk: Any, index: int = 0) -> None:
        """Append a chunk, if it is of this choice."""
        self.usage = chunk.usage or self.usage
        for choice in chunk.choices:
            if choice.index == index:
                self.text += text_of(choice)
                self.tokens += getattr(choice, "token_ids", None) or []
                self.logprobs += logprobs_of(choice)
                self.finish = choice.finish_reason or self.finish


def text_of(choice: Any) -> str:
    """The text of a choice, or what a chunk adds to it."""
    if hasattr(choice, "text"):
        return str(choice.text)
    return (choice.delta if hasattr(choice, "delta") else choice.message).content or ""


def logprobs_of(choice: Any) -> list[float]:
    """The log-probability of each token of a choice."""
    if choice.logprobs is None:
        return []
    if hasattr(choice, "text"):
        return list(choice.logprobs.token_logprobs)
    return [entry.logprob for entry in choice.logprobs.content]


def gather(chunks: Iterable[Any], index: int = 0) -> Streamed:
    """One choice of a whole stream."""
    found = Streamed()
    for chunk in chunks:
        found.add(chunk, index)
    return found


def cached(answer: Any) -> int:
    """`usage.prompt_tokens_details.cached_tokens`."""
    return int(answer.usage.prompt_tokens_details.cached_tokens)
