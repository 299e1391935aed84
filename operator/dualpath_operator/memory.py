"""What the operator remembers of a cluster between passes. All of it may be lost: it only saves calls."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from dualpath_api.cluster import ClusterSpec
from dualpath_operator.model import Key
from dualpath_operator.views import PodView

OVERLAY_S = 10.0
"""A write that no watch has told about after so long is taken for lost, and what it did is looked at anew."""


@dataclass(slots=True)
class Memory:
    """Of one cluster."""

    uid: str = ""
    generation: int = -1
    spec: ClusterSpec | None = None
    problem: str = ""  # why the spec of that generation cannot be used
    revision: str = ""  # of that generation
    in_step: tuple[object, ...] = ()  # what the objects were last found right for
    token: str = ""
    token_at: float = -1e9  # clock at which its Secret was last known to be there
    in_sync: dict[Key, tuple[str, str]] = field(default_factory=dict)
    applied: dict[Key, tuple[str, float]] = field(default_factory=dict)  # intent and clock
    created: dict[str, tuple[PodView, float]] = field(default_factory=dict)  # Pods by name
    deleted: dict[str, float] = field(default_factory=dict)  # Pods by uid
    group_uids: dict[str, str] = field(default_factory=dict)  # of engine groups just made, by name
    status_at: float = -1e9  # clock of the newest write of the status
    status: dict[str, Any] = field(default_factory=dict)  # as written last
    group_status_at: float = -1e9
    group_status: dict[str, dict[str, Any]] = field(default_factory=dict)  # by role
    failures: int = 0  # passes in a row
    retuned: tuple[int, float] | None = None  # target told last in an event, and when

    def expire(self, now: float) -> None:
        """Forget writes that nobody told about."""
        self.applied = {key: entry for key, entry in self.applied.items() if now - entry[1] < OVERLAY_S}
        self.created = {name: entry for name, entry in self.created.items() if now - entry[1] < OVERLAY_S}
        self.deleted = {uid: at for uid, at in self.deleted.items() if now - at < OVERLAY_S}
