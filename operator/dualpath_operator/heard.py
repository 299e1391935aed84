"""What is known of one cluster's gateway, and what follows from it for Pods. The functions are pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from dualpath_api.report import ControlReport, EngineReport
from dualpath_operator import names
from dualpath_operator.model import Cluster, role_spec
from dualpath_operator.observe import Drains
from dualpath_operator.sizing import Fleet
from dualpath_operator.tuner import Told
from dualpath_operator.views import PodView


class Contact(StrEnum):
    """How the last visit ended."""

    NEVER = "Never"
    ANSWERED = "Answered"
    ABSENT = "Absent"
    SILENT = "Silent"


@dataclass(slots=True)
class Heard:
    """Of one cluster. Times are of the caller's clock."""

    contact: Contact = Contact.NEVER
    failures: int = 0  # visits in a row
    problem: str = ""
    report: ControlReport | None = None
    at: float = 0.0  # when the report came; before the first one, when it was first asked for
    cluster: Cluster | None = None
    token: str = ""
    refused: bool = False  # the gateway did not take the token
    gateway_ready: bool = False  # as Kubernetes sees it
    fleet: Fleet | None = None
    awaited_since: float | None = None  # a pass waits for what the next report says
    draining: dict[str, float] = field(default_factory=dict)  # replica -> time of the first request
    told: Told = field(default_factory=Told)


def by_pod(report: ControlReport | None) -> dict[str, list[EngineReport]]:
    """Connected engines by the uid of their Pod."""
    found: dict[str, list[EngineReport]] = defaultdict(list)
    for engine in report.engines if report is not None else ():
        if engine.pod_uid:
            found[engine.pod_uid].append(engine)
    return dict(found)


def idle(engines: Iterable[EngineReport]) -> bool:
    """Whether engines that take nothing new have finished: then nobody needs their reads either."""
    every = list(engines)
    return bool(every) and all(e.in_flight == 0 and not e.accept_new for e in every)


def drains_of(heard: Heard, cluster: Cluster, pods: Iterable[PodView], now: float) -> Drains:
    """Which Pods drain, which have proven to be empty, and which replicas may go without proof."""
    engines = by_pod(heard.report)
    asked = {uid for uid, own in engines.items() if all(not e.accept_new for e in own)}
    every = list(pods)
    asked |= {pod.uid for pod in every if _replica(cluster, pod) in heard.draining}
    proven = {uid for uid, own in engines.items() if all(e.drained for e in own)}
    if heard.contact is Contact.ANSWERED:
        # an engine that the scheduler does not know has no work of it
        proven |= {pod.uid for pod in every if pod.uid in asked and pod.uid not in engines}
    over = {
        replica
        for replica, since in heard.draining.items()
        if heard.contact is Contact.ABSENT or now - since > cluster.spec.drain.deadline
    }
    return Drains(asked=asked, proven=proven, over=over)


def admissions_of(heard: Heard, pods: Iterable[PodView]) -> list[tuple[PodView, bool]]:
    """Pods whose readiness gate has to change. Without a report nothing changes."""
    if heard.report is None or heard.cluster is None or heard.contact is not Contact.ANSWERED:
        return []
    engines, changes = by_pod(heard.report), []
    for pod in pods:
        role = role_spec(heard.cluster, pod.role)
        known = len(engines.get(pod.uid, ()))
        # ranks may be fewer in Pods of an older revision: what was admitted stays so while any is known
        serving = known > 0 if pod.admitted else known >= role.parallelism.data and pod.containers_ready
        if pod.uid and not pod.deletion and serving != bool(pod.admitted):
            changes.append((pod, serving))
    return changes


def _replica(cluster: Cluster, pod: PodView) -> str:
    return names.replica(cluster.name, pod.role, pod.revision, pod.index)
