"""The operator's side of a gateway: its telemetry with a real client, a clock of the test's own, and Pods."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from desired_world import LOCAL, changed, cluster_of
from gateway_cluster import GatewayCluster, Pod

from dualpath_operator.control import Control
from dualpath_operator.model import Cluster
from dualpath_operator.observe import ReplicaView, replicas_of
from dualpath_operator.sizing import Fleet
from dualpath_operator.telemetry import Telemetry
from dualpath_operator.tuner import Told
from dualpath_operator.views import PodView
from dualpath_operator.world import ClusterView

KEY = ("team-a", "c")
INTERVAL_S = 10.0


def cluster_with(**fields: Any) -> Cluster:
    """Cluster `c`; a field is its path in the spec with _ for dots, such as pathPolicy_mode."""
    spec = LOCAL
    for path, value in fields.items():
        spec = changed(spec, f"spec.{path.replace('_', '.')}", value)
    return cluster_of(spec, "c", KEY[0])


def pod_view(pod: Pod, **more: Any) -> PodView:
    """As the watches tell of a Pod whose containers run."""
    role = "prefill" if "-prefill-" in pod.name else "decode"
    parts: dict[str, Any] = {
        "phase": "Running",
        "containers_ready": True,
        "ready": True,
        **more,
    }
    index = int(pod.name.rpartition("-")[2])
    return PodView(
        name=pod.name, uid=pod.uid, role=role, revision=pod.revision, index=index, node_index=0, **parts
    )


@dataclass
class Side:
    """What passes and the poller do, one at a time."""

    telemetry: Telemetry
    cluster: Cluster
    token: str = "secret"
    pods: list[PodView] = field(default_factory=list)
    fleet: Fleet = field(default_factory=lambda: Fleet(ready={"prefill": 1, "decode": 1}))
    woken: int = 0
    planned: list[float] = field(default_factory=list)  # visits asked for, after so many seconds
    now: float = 1000.0

    def follow(self, *, gateway_ready: bool = True, awaited: bool = False) -> None:
        told = {"gateway_ready": gateway_ready, "awaited": awaited, "fleet": self.fleet}
        self.telemetry.follow(self.cluster, self.token, **told)

    async def visit(self, after_s: float = INTERVAL_S) -> Told:
        """What is told after a visit that comes so much later."""
        self.now += after_s
        self.due = await self.telemetry.visit(KEY)
        return self.telemetry.told(KEY)

    def change(self, **fields: Any) -> None:
        """Another spec."""
        spec = cluster_with(**fields).spec
        self.cluster = replace(self.cluster, spec=spec, generation=self.cluster.generation + 1)
        self.follow()

    def replica(self, index: int = 0) -> ReplicaView:
        """A replica as a pass sees it now."""
        drains = self.telemetry.drains(KEY, self.cluster, self.pods)
        return replicas_of("c", self.pods, drains, datetime.now(UTC))[index]

    def admissions(self) -> dict[str, bool]:
        return {pod.name: gate for pod, gate in self.telemetry.admissions(KEY, self.pods)}


@asynccontextmanager
async def operator_of(
    gateway: GatewayCluster | str, status: bytes = b"{}", **fields: Any
) -> AsyncIterator[Side]:
    """The operator at its first sight of the cluster, before the first visit."""
    url = gateway if isinstance(gateway, str) else gateway.url
    async with Control() as control:

        def wake(key: tuple[str, str]) -> None:
            side.woken += 1

        telemetry = Telemetry(control, url, wake, lambda _, s: side.planned.append(s), lambda: side.now)
        side = Side(telemetry, cluster_with(**fields))
        view = ClusterView(
            uid="u", version="1", generation=1, deleting=False, finalizers=(), spec=b"{}", status=status
        )
        telemetry.recall(KEY, view)
        side.follow()
        yield side
