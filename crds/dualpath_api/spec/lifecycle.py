"""How a cluster changes over time: rollout, drain, disruption, restart."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar, Literal

from pydantic import Field

from dualpath_api.spec.base import Rule, Section
from dualpath_api.units import Duration


class RolloutStrategy(StrEnum):
    """How a new revision replaces the old one."""

    COORDINATED = "Coordinated"
    RECREATE = "Recreate"


class RolloutSpec(Section):
    """How a new revision of the engines replaces the old one."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self.strategy == 'Recreate' || self.maxSurge + self.maxUnavailable > 0",
            message="maxSurge and maxUnavailable are both 0, so nothing could ever be replaced; raise one",
            holds=lambda r: r.strategy == RolloutStrategy.RECREATE or r.max_surge + r.max_unavailable > 0,
        ),
    )

    strategy: RolloutStrategy = Field(
        RolloutStrategy.COORDINATED,
        description=(
            "Coordinated: prefill and decode groups are replaced together, so that the new revision can "
            "serve from the first step. Recreate: all old groups go before new ones come."
        ),
    )
    max_surge: int = Field(
        1, ge=0, le=64, strict=True, description="Groups of a role above the wanted number."
    )
    max_unavailable: int = Field(
        0, ge=0, le=64, strict=True, description="Groups of a role that may be missing meanwhile."
    )
    progress_deadline: Duration = Field(
        7200.0, validate_default=True, ge=1, le=604800, description="Without progress for so long: Stalled."
    )


class DrainSpec(Section):
    """How an engine stops."""

    deadline: Duration = Field(
        600.0,
        validate_default=True,
        ge=1,
        le=86400,
        description="Requests of an engine that stops may take so long.",
    )


class DisruptionSpec(Section):
    """What `kubectl drain` and other evictions may take."""

    max_unavailable: int = Field(
        1, ge=0, le=64, strict=True, description="Engine Pods of the cluster that may be evicted at a time."
    )


class PlacementSpec(Section):
    """Where engine Pods go, beyond what podTemplate says."""

    topology_key: str | None = Field(
        None,
        max_length=253,
        pattern=r"^[A-Za-z0-9./_-]+$",
        description="Node label; the cluster's engines are kept within one value of it.",
    )
    mode: Literal["Preferred", "Required"] = Field("Preferred", description="How strictly.")


class RestartSpec(Section):
    """A restart on request."""

    id: str = Field(
        "",
        max_length=64,
        pattern=r"^[A-Za-z0-9._:-]*$",
        description="Any change restarts all engines, rolling.",
    )
