"""The slow loop of a cluster: a report in, the next tuning and the status of paths and NICs out. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from dualpath_api.report import ControlReport, TuningReport
from dualpath_api.status import LastScale, NicsStatus, Pair, PathsStatus
from dualpath_operator.findings import Judgement
from dualpath_operator.model import Cluster

_NEVER = Judgement(status=None, reason="NoTelemetry", message="no report of the gateway yet")


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What the loop says: figures for the status, and what to set."""

    tuned: Judgement = _NEVER
    scaling: Judgement | None = None
    paths: PathsStatus = field(default_factory=PathsStatus)
    nics: NicsStatus = field(default_factory=NicsStatus)
    planned: Pair | None = None
    last_scale: LastScale | None = None
    tuning: TuningReport | None = None

    def worth_a_pass(self, before: Told) -> bool:
        """Whether the status would say something else."""
        return (self.tuned, self.scaling, self.paths, self.nics, self.planned) != (
            before.tuned,
            before.scaling,
            before.paths,
            before.nics,
            before.planned,
        )


class Tuner:
    """Steps of the loop."""

    def step(
        self, cluster: Cluster, report: ControlReport | None, age: float | None, before: Told, now: float
    ) -> Told:
        """The next state of the loop."""
        return before
