"""What clusters' gateways report, and what is asked of them: drains, tuning.

One poller visits each cluster's gateway: often while something is waited for, else once per tuning interval.
A pass reads the newest report here and never waits for a gateway, except to ask for a drain.
"""

from __future__ import annotations

import json
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

from pydantic import ValidationError

from dualpath_api.report import ControlReport, EngineReport
from dualpath_api.status import ClusterStatus, Pair
from dualpath_operator import metrics, names
from dualpath_operator.control import Control, GatewayAbsentError, GatewaySilentError
from dualpath_operator.model import Cluster
from dualpath_operator.observe import Drains, ReplicaView
from dualpath_operator.tuner import Moment, Told, step
from dualpath_operator.views import ClusterKey, PodView
from dualpath_operator.world import ClusterView

log = logging.getLogger(__name__)

EAGER_S = 1.0
"""Between visits while Pods wait for admission or engines drain."""

IDLE_S = 30.0
"""Between visits where nothing is tuned."""

PATIENCE_S = (2.0, 5.0, 15.0, 60.0, 300.0)
"""Between visits to a gateway that cannot be reached."""


class Contact(StrEnum):
    """How the last visit ended."""

    NEVER = "Never"
    ANSWERED = "Answered"
    ABSENT = "Absent"
    SILENT = "Silent"


@dataclass(slots=True)
class Heard:
    """Of one cluster."""

    contact: Contact = Contact.NEVER
    failures: int = 0
    problem: str = ""
    report: ControlReport | None = None
    at: float = 0.0  # clock of the report
    cluster: Cluster | None = None
    token: str = ""
    awaited: bool = False  # a pass waits for what the next report says
    draining: dict[str, float] = field(default_factory=dict)  # replica -> clock of the first request
    reads_closed: set[str] = field(default_factory=set)  # replicas asked to serve no reads either
    told: Told = field(default_factory=Told)


class Telemetry:
    """Reports of all clusters. `wake` starts a pass, `visit_later` plans a visit."""

    def __init__(
        self,
        control: Control,
        url: str,
        wake: Callable[[ClusterKey], None],
        visit_later: Callable[[ClusterKey, float], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._control = control
        self._url = url
        self._wake = wake
        self._visit_later = visit_later
        self._clock = clock
        self._heard: dict[ClusterKey, Heard] = defaultdict(Heard)

    def forget(self, key: ClusterKey) -> None:
        """The cluster is gone."""
        self._heard.pop(key, None)

    def told(self, key: ClusterKey) -> Told:
        """What tuning and scaling say about a cluster."""
        return self._heard[key].told

    def recall(self, key: ClusterKey, view: ClusterView) -> Pair | None:
        """What mode Planner wants. At first sight of a cluster its status is taken up: the loops go on from it."""
        if key not in self._heard:
            status = json.loads(view.status)
            status = {name: status[name] for name in ("paths", "planned", "lastScale") if name in status}
            try:
                stored = ClusterStatus.model_validate(status)
            except ValidationError:  # of a version that wrote it otherwise
                stored = ClusterStatus()
            told = Told(paths=stored.paths, planned=stored.planned, last_scale=stored.last_scale)
            self._heard[key].told = told
        return self._heard[key].told.planned

    # ------------------------------------------------------------ for passes

    def follow(self, cluster: Cluster, token: str, *, gateway_ready: bool, awaited: bool) -> None:
        """Tell how the cluster is now; plans a visit where one is worth it."""
        key = (cluster.namespace, cluster.name)
        heard = self._heard[key]
        first = heard.cluster is None
        eager = awaited and not heard.awaited
        back = gateway_ready and heard.contact is Contact.ABSENT and heard.failures > 1 and awaited
        heard.cluster, heard.token, heard.awaited = cluster, token, awaited
        if first or eager or back:
            heard.failures = min(heard.failures, 1)
            self._visit_later(key, 0.0 if first or eager else EAGER_S)

    def drains(self, key: ClusterKey, cluster: Cluster, pods: Iterable[PodView]) -> Drains:
        """Which Pods drain, which have proven to be empty, and which replicas may go without proof."""
        heard, now = self._heard[key], self._clock()
        engines = _by_pod(heard.report)
        asked = {uid for uid, own in engines.items() if all(not e.accept_new for e in own)}
        asked |= {pod.uid for pod in pods if _replica_name(cluster, pod) in heard.draining}
        proven = {uid for uid, own in engines.items() if own and all(e.drained for e in own)}
        if heard.contact is Contact.ANSWERED:
            # an engine that the scheduler does not know has no work of it
            proven |= {pod.uid for pod in pods if pod.uid in asked and pod.uid not in engines}
        deadline = cluster.spec.drain.deadline
        over = {
            replica
            for replica, since in heard.draining.items()
            if heard.contact is Contact.ABSENT or now - since > deadline
        }
        return Drains(asked=asked, proven=proven, over=over)

    def admissions(self, key: ClusterKey, pods: Iterable[PodView]) -> list[tuple[PodView, bool]]:
        """Pods whose readiness gate has to change. Without a report nothing changes."""
        heard = self._heard[key]
        if heard.report is None or heard.contact is not Contact.ANSWERED:
            return []
        engines = _by_pod(heard.report)
        changes = []
        for pod in pods:
            serving = bool(engines.get(pod.uid))
            if pod.uid and pod.containers_ready and not pod.deletion and serving != bool(pod.admitted):
                changes.append((pod, serving))
        return changes

    async def drain(self, cluster: Cluster, view: ReplicaView) -> None:
        """Ask a replica's engines to finish: first nothing new; when idle, no reads for others either."""
        key, replica = (cluster.namespace, cluster.name), view.replica.id
        heard = self._heard[key]
        heard.draining.setdefault(replica, self._clock())
        engines = [e for pod in view.pods for e in _by_pod(heard.report).get(pod.uid, ())]
        idle = bool(engines) and all(e.in_flight == 0 and not e.accept_new for e in engines)
        await self._ask(heard, engines, serve_reads=not idle)
        self._visit_later(key, EAGER_S)

    async def resume(self, cluster: Cluster, view: ReplicaView) -> None:
        """Let a replica's engines take work again."""
        key = (cluster.namespace, cluster.name)
        heard = self._heard[key]
        heard.draining.pop(view.replica.id, None)
        assert heard.cluster is not None
        for engine in (e for pod in view.pods for e in _by_pod(heard.report).get(pod.uid, ())):
            try:
                await self._control.resume(self._address(heard.cluster), heard.token, engine.id)
            except (GatewayAbsentError, GatewaySilentError) as error:
                log.debug("resume of %s: %s", engine.id, error)
        self._visit_later(key, EAGER_S)

    def gone(self, key: ClusterKey, replicas: Iterable[str]) -> None:
        """Forget the drains of replicas that do not exist any more, and measure them."""
        heard = self._heard[key]
        present = set(replicas)
        for replica in [name for name in heard.draining if name not in present]:
            role = "prefill" if "-prefill-" in replica else "decode"
            outcome = "deadline" if heard.contact is Contact.SILENT else "done"
            metrics.DRAIN_SECONDS.labels(role, outcome).observe(self._clock() - heard.draining.pop(replica))

    async def _ask(self, heard: Heard, engines: Iterable[EngineReport], *, serve_reads: bool) -> None:
        assert heard.cluster is not None
        url = self._address(heard.cluster)
        for engine in engines:
            if not engine.accept_new and engine.serve_reads == serve_reads:
                continue
            try:
                await self._control.drain(
                    url, heard.token, engine.id, accept_new=False, serve_reads=serve_reads
                )
            except (GatewayAbsentError, GatewaySilentError) as error:
                log.debug("drain of %s: %s", engine.id, error)

    def _address(self, cluster: Cluster) -> str:
        return self._url.format(name=cluster.name, namespace=cluster.namespace)

    # ------------------------------------------------------------ visits

    async def visit(self, key: ClusterKey) -> float | None:
        """One visit to a cluster's gateway; returns when the next one is due."""
        heard = self._heard.get(key)
        if heard is None or heard.cluster is None:
            return None
        cluster, before = heard.cluster, heard.contact
        url = self._address(cluster)
        try:
            report = await self._control.report(url, heard.token)
            heard.report, heard.at = report, self._clock()
            heard.contact, heard.failures, heard.problem = Contact.ANSWERED, 0, ""
        except GatewayAbsentError as error:
            heard.contact, heard.problem = Contact.ABSENT, str(error)
            heard.failures += 1
        except GatewaySilentError as error:
            heard.contact, heard.problem = Contact.SILENT, str(error)
            heard.failures += 1
        age = None if heard.report is None else self._clock() - heard.at
        iso = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        moment = Moment(age_s=age, clock=self._clock(), iso=iso)
        told = step(cluster, heard.report, heard.told, moment)
        await self._set(heard, told)
        changed, heard.told = told.differs(heard.told), told
        if changed or heard.awaited or before is not heard.contact:
            self._wake(key)
        return self._next_visit(heard)

    async def _set(self, heard: Heard, told: Told) -> None:
        """Level-based: what is in force is in the report, so a gateway that started anew is told again."""
        report, cluster = heard.report, heard.cluster
        if heard.contact is not Contact.ANSWERED or report is None or cluster is None:
            return
        if told.tuning is None or told.tuning == report.tuning:
            return
        try:
            await self._control.tune(self._address(cluster), heard.token, told.tuning)
        except (GatewayAbsentError, GatewaySilentError) as error:
            log.info("%s/%s: tuning not set: %s", cluster.namespace, cluster.name, error)

    def _next_visit(self, heard: Heard) -> float:
        if heard.contact is not Contact.ANSWERED:
            return PATIENCE_S[min(heard.failures, len(PATIENCE_S)) - 1]
        if heard.awaited or heard.draining:
            return EAGER_S
        assert heard.cluster is not None
        policy = heard.cluster.spec.path_policy
        return policy.retune.interval if policy.retune.enabled else IDLE_S


def _by_pod(report: ControlReport | None) -> dict[str, list[EngineReport]]:
    found: dict[str, list[EngineReport]] = defaultdict(list)
    for engine in report.engines if report is not None else ():
        if engine.pod_uid:
            found[engine.pod_uid].append(engine)
    return dict(found)


def _replica_name(cluster: Cluster, pod: PodView) -> str:
    return names.replica(cluster.name, pod.role, pod.revision, pod.index)
