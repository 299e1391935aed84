"""spec.pathPolicy: which side reads what, and how the operator moves the share."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from pydantic import Field

from dualpath_api.spec.base import Rule, Section
from dualpath_api.units import Duration


class PathMode(StrEnum):
    """How hit blocks are read from storage."""

    PREFILL_ONLY = "PrefillOnly"
    DECODE_ONLY = "DecodeOnly"
    SHORTER_QUEUE = "ShorterQueue"
    SPLIT = "Split"
    AUTO = "Auto"


class DecodeShare(Section):
    """The decode side's share of the bytes read, in thousandths."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self.minPermille <= self.maxPermille",
            message="decodeShare.minPermille is larger than maxPermille; swap them",
            holds=lambda share: share.min_permille <= share.max_permille,
        ),
        Rule(
            cel=(
                "!has(self.initialPermille)"
                " || (self.minPermille <= self.initialPermille && self.initialPermille <= self.maxPermille)"
            ),
            message="decodeShare.initialPermille lies outside minPermille to maxPermille; move it inside",
            holds=lambda share: (
                share.initial_permille is None
                or share.min_permille <= share.initial_permille <= share.max_permille
            ),
        ),
    )

    initial_permille: int | None = Field(
        None, ge=0, le=1000, strict=True, description="Where tuning starts; default: decode over all engines."
    )
    min_permille: int = Field(0, ge=0, le=1000, strict=True, description="Tuning goes no lower.")
    max_permille: int = Field(1000, ge=0, le=1000, strict=True, description="Tuning goes no higher.")


class RetuneSpec(Section):
    """The slow loop that moves the share by measured NIC utilisation."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="duration(self.staleAfter) >= duration(self.interval)",
            message="retune.staleAfter is shorter than retune.interval; make it at least as long",
            holds=lambda retune: retune.stale_after >= retune.interval,
        ),
    )

    enabled: bool = Field(True, strict=True, description="Whether the operator moves the share at all.")
    interval: Duration = Field(10.0, validate_default=True, ge=1, le=3600, description="Time between steps.")
    max_step_permille: int = Field(50, ge=1, le=500, strict=True, description="Largest step.")
    deadband_permille: int = Field(
        40, ge=0, le=500, strict=True, description="A smaller difference of utilisation is left alone."
    )
    stale_after: Duration = Field(
        60.0, validate_default=True, ge=1, le=86400, description="Older reports are not acted on."
    )


class PathPolicySpec(Section):
    """How reads are shared between the two sides."""

    mode: PathMode = Field(
        PathMode.AUTO,
        description=(
            "PrefillOnly and DecodeOnly: that side reads every hit. ShorterQueue: the side with fewer "
            "bytes to read does, the rule of the DualPath paper. Split: both read a part of every hit at "
            "once. Auto: large hits are split, small ones go to the shorter queue."
        ),
    )
    decode_share: DecodeShare = Field(
        DecodeShare(), description="The decode side's share with Split and Auto."
    )
    retune: RetuneSpec = Field(RetuneSpec(), description="How the operator moves that share.")
