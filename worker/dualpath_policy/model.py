"""What the policies are asked about, and what they answer.

Units: tokens, unless a name says blocks. Loads are what the engines reported plus what was assigned since.
Every answer carries its reason in one sentence; `dualpath explain` shows it.
"""

from __future__ import annotations

from dataclasses import dataclass

from dualpath_api.cluster import PathMode
from dualpath_api.wire import ReadMode, Role, StorageNic

GENERATION_ROOM = 256
"""Tokens of cache that a request is promised for its generation; more is taken while it grows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLoad:
    """One engine as the scheduler sees it now."""

    engine: str
    group: str
    role: Role
    seq_e: int = 0  # unfinished requests
    tok_e: int = 0  # their tokens
    read_q: int = 0  # tokens waiting to be read from storage on the engine's node, summed over the node
    free_tokens: int = 0  # room in the KV cache ("HBM"); decode engines only
    free_slots: int = 0  # Full Blocks free in the DRAM buffer
    accept_new: bool = True
    serve_reads: bool = True
    storage_nic: StorageNic = StorageNic.PRESENT
    node: str = ""  # "": outside of Kubernetes


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A request that waits for engines."""

    request: str
    prompt_tokens: int
    hit_tokens: int = 0
    max_tokens: int = 0  # of one choice, still to generate
    choices: int = 1
    slots: int = 0  # Full Block slots that it takes in the buffer of either side; 0: not checked
    excluded: frozenset[str] = frozenset()  # engines that failed it before

    @property
    def cache_tokens(self) -> int:
        """Room in the KV cache that it must find: the prompt, and a first allowance for each choice."""
        return self.prompt_tokens + self.choices * min(self.max_tokens, GENERATION_ROOM)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Thresholds of the prefill rule; None: not known, so no limit."""

    alpha: int | None = None  # a storage read queue up to this long is short
    beta: int | None = None  # an engine with more unfinished tokens is overloaded

    @classmethod
    def from_rates(cls, *, storage_tokens_per_s: float, prefill_tokens_per_s: float) -> Limits:
        """The paper's settings: alpha is what storage reads in 3 s, beta what one engine computes in 5 s."""
        return cls(
            alpha=int(3 * storage_tokens_per_s) if storage_tokens_per_s > 0 else None,
            beta=int(5 * prefill_tokens_per_s) if prefill_tokens_per_s > 0 else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """What the slow loop (or a person) asks of the read path."""

    path_policy: PathMode = PathMode.AUTO
    bias_tokens: int = 0  # added to the prefill side's queue; positive moves reads to the decode side
    decode_min_permille: int = 0  # bounds of the decode side's share of a split read
    decode_max_permille: int = 1000

    def __post_init__(self) -> None:
        """Raises ValueError unless 0 <= min <= max <= 1000."""
        if not 0 <= self.decode_min_permille <= self.decode_max_permille <= 1000:
            raise ValueError(
                f"decode share must be 0 <= min <= max <= 1000 permille, got "
                f"{self.decode_min_permille} to {self.decode_max_permille}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Which engine a request goes to; None: it waits."""

    request: str
    engine: str | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupChoice:
    """Which decode group a request is queued at; None: it waits."""

    request: str
    group: str | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SideChoice:
    """Which side of a pair reads."""

    side: Role
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModeChoice:
    """Who reads the hit blocks of one request; the bounds are blocks of the decode side, for split reads."""

    mode: ReadMode
    decode_min: int = 0
    decode_max: int | None = None
    reason: str
