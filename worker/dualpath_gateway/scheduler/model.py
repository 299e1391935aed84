"""Requests as the scheduler sees them: turns (of a client), their choices, and jobs (for engines).

A turn starts as one job with all its choices. When an engine dies after its choices have drifted apart,
every unfinished choice goes on as a job of its own, because an assignment carries one token sequence.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from dualpath_api.keys import KvLayout, all_keys, block_keys
from dualpath_api.wire import Assign, ReadMode, Sampling
from dualpath_gateway.scheduler.record import Record


class State(StrEnum):
    """Where a job stands (docs/concepts.md)."""

    QUEUED = "QUEUED"
    MATCHED = "MATCHED"
    ASSIGNED = "ASSIGNED"
    READING = "READING"
    PREFILLING = "PREFILLING"
    FIRST_TOKEN = "FIRST_TOKEN"
    FILLING = "FILLING"
    DECODING = "DECODING"
    DONE = "DONE"
    ABORTED = "ABORTED"


WAITING = (State.QUEUED, State.MATCHED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long each step may take, in seconds, and how many attempts may fail."""

    match: float = 2.0  # then another engine is asked
    match_asks: int = 3  # engines asked; then the hit is taken as 0
    pending: float = 5.0  # wait for blocks that are still in a write queue
    assign: float = 10.0  # per Accepted
    read: float = 120.0
    prefill: float = 600.0
    fill: float = 120.0
    token: float = 120.0  # between two steps of the decode engine
    request: float = 600.0  # without any new token, over all attempts
    attempts: int = 3
    queue_limit: int = 1024
    match_ahead: int = 16  # queued jobs that are matched before their turn
    match_fresh: float = 5.0  # a match older than this is asked again
    backoff_first: float = 0.02  # after a refusal, doubling
    backoff_most: float = 0.5
    records: int = 1000  # finished requests kept for debug pages


@dataclass(slots=True)
class Choice:
    """One of n answers."""

    index: int
    tokens: list[int] = field(default_factory=list)
    finished: bool = False


@dataclass(slots=True)
class Turn:
    """One prompt of one client call and its n choices."""

    id: str
    tokens: tuple[int, ...]
    keys: dict[KvLayout, tuple[bytes, ...]]  # of the prompt, by layout, as far as they were needed
    sampling: Sampling
    arrived: float
    choices: list[Choice]
    record: Record
    give_up_at: float
    jobs: set[str] = field(default_factory=set)
    cached_tokens: int = 0
    first_token_at: float | None = None
    last_token_at: float = 0.0

    def open_choices(self) -> list[int]:
        """Indices of the choices that are not finished."""
        return [choice.index for choice in self.choices if not choice.finished]

    def keys_of(self, layout: KvLayout) -> tuple[bytes, ...]:
        """Keys of the prompt's complete blocks."""
        keys = self.keys.get(layout)
        if keys is None:
            keys = self.keys[layout] = all_keys(layout, self.tokens)
        return keys


@dataclass(slots=True)
class KeyChain:
    """Keys of the blocks that a growing sequence completes.

    The KV of the newest token does not exist yet, so a block counts once one more token is known.
    """

    parent: bytes
    tail: list[int]
    block_tokens: int

    def push(self, token: int) -> bytes | None:
        """Add a token; the key of the block before it if that is now complete."""
        key = None
        if len(self.tail) == self.block_tokens:
            key = self.parent = block_keys(self.parent, self.tail, self.block_tokens)[0]
            self.tail.clear()
        self.tail.append(token)
        return key


@dataclass(slots=True)
class Job:
    """Choices of a turn that are computed together, and where that stands."""

    id: str
    turn: Turn
    choices: tuple[int, ...]
    order: int  # arrival; kept over attempts, so nobody loses their place in the queue
    tokens: tuple[int, ...]
    since: float  # of the state
    state: State = State.QUEUED
    attempt: int = 0
    failures: int = 0  # that count
    refusals: int = 0  # in a row
    excluded: set[str] = field(default_factory=set)
    not_before: float = 0.0
    queued_at: float = 0.0
    query: int | None = None
    asked_at: float = 0.0
    asks: int = 0  # engines that were asked and did not answer
    hits: dict[KvLayout, int] = field(default_factory=dict)  # blocks in storage; the oldest answer first
    layout: KvLayout | None = None  # of the newest attempt
    hit_blocks: int = 0  # of the newest attempt
    prefill: str | None = None
    decode: str | None = None
    mode: ReadMode = ReadMode.PREFILL
    assign_prefill: Assign | None = None  # held until the decode engine has accepted
    numbers: list[tuple[str, int]] = field(default_factory=list)  # (engine, assignment number)
    accepted: set[str] = field(default_factory=set)
    firsts: dict[int, int] = field(default_factory=dict)  # choice -> first token of this attempt
    started: bool = False
    filled: bool = False
    chains: dict[int, KeyChain] = field(default_factory=dict)
    unstored: dict[bytes, None] = field(default_factory=dict)  # keys that the decode engine will write
    progress_at: float = 0.0
    _keys: dict[KvLayout, tuple[bytes, ...]] = field(default_factory=dict)

    @property
    def waiting(self) -> bool:
        """In the queue, on no engine."""
        return self.state in WAITING

    def unfinished(self) -> list[Choice]:
        """Choices of this job that still need tokens."""
        return [c for c in (self.turn.choices[i] for i in self.choices) if not c.finished]

    def blocks(self, block_tokens: int) -> int:
        """Slots that the sequence takes, the incomplete last block included."""
        return -(-len(self.tokens) // block_tokens)

    def keys_of(self, layout: KvLayout) -> tuple[bytes, ...]:
        """Keys of the complete blocks of `tokens`."""
        prompt = self.turn.keys_of(layout)
        if len(self.tokens) == len(self.turn.tokens):
            return prompt
        keys = self._keys.get(layout)
        if keys is None:
            keys = self._keys[layout] = all_keys(layout, self.tokens, prompt)
        return keys

    def resume(self, choices: list[Choice]) -> None:
        """Compute these choices, after the tokens that the client has."""
        self.choices = tuple(choice.index for choice in choices)
        self.tokens = self.turn.tokens
        if len(choices) == 1:
            self.tokens = (*self.turn.tokens, *choices[0].tokens)
        self.unstored.clear()
        self.chains.clear()
        self.hits.clear()
        self._keys.clear()
