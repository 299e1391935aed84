"""What clusters' gateways report, and what is asked of them: drains, tuning.

One poller visits each cluster's gateway: often while something is waited for, else once per tuning interval.
A pass reads the newest report here. It waits for a gateway only to ask for a drain, if that answered lately.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from datetime import UTC, datetime

from pydantic import ValidationError

from dualpath_api.report import ControlReport, EngineReport
from dualpath_api.status import ClusterStatus, Pair
from dualpath_operator import metrics
from dualpath_operator.control import Control, GatewayAbsentError, GatewaySilentError, TokenRefusedError
from dualpath_operator.findings import Judgement
from dualpath_operator.gauges import forget_age, set_age, set_gauges
from dualpath_operator.heard import Contact, Heard, admissions_of, by_pod, drains_of, idle
from dualpath_operator.model import Cluster
from dualpath_operator.observe import Drains, ReplicaView
from dualpath_operator.sizing import Fleet, Sized
from dualpath_operator.tuner import Moment, Told, step
from dualpath_operator.views import ClusterKey, ClusterView, PodView

log = logging.getLogger(__name__)

EAGER_S = 1.0
"""Between visits while Pods wait for admission, engines drain or requests wait for a first engine."""

WEARY_S = 5.0
"""The same after a minute: what has not come by then is not about to."""

IDLE_S = 30.0
"""Most time between visits."""

QUIET_AFTER_S, QUIET_S = 60.0, 90.0
"""A cluster without any request for so long is visited so rarely: hundreds of idle ones cost little."""

PATIENCE_S = (2.0, 5.0, 15.0, 60.0, 300.0)
"""Between visits to a gateway that cannot be reached."""


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
        """What mode Planner wants. At first sight of a cluster the loops go on from its status."""
        if key not in self._heard:
            self._heard[key].told = _remembered(view)
        return self._heard[key].told.sized.planned

    # ------------------------------------------------------------ for passes

    def follow(
        self, cluster: Cluster, token: str, *, gateway_ready: bool, awaited: bool, fleet: Fleet | None = None
    ) -> None:
        """Tell how the cluster is now; plans a visit where one is worth it."""
        key = (cluster.namespace, cluster.name)
        heard, now = self._heard[key], self._clock()
        if heard.cluster is None:
            heard.at = now
        changed = heard.cluster is None or heard.cluster.generation != cluster.generation
        eager = awaited and heard.awaited_since is None
        back = gateway_ready and not heard.gateway_ready and heard.contact is not Contact.ANSWERED
        renewed = token != heard.token
        heard.cluster, heard.token, heard.fleet = cluster, token, fleet
        heard.gateway_ready = gateway_ready
        if cluster.spec.suspend:
            forget_age(key)
        heard.awaited_since = (now if eager else heard.awaited_since) if awaited else None
        if changed or eager or back or renewed:
            heard.failures = min(heard.failures, 1)
            self._visit_later(key, 0.0)

    def refused(self, key: ClusterKey) -> bool:
        """Whether the gateway refused the token since this was asked last: it may be an old one."""
        heard = self._heard[key]
        refused, heard.refused = heard.refused, False
        return refused

    def drains(self, key: ClusterKey, cluster: Cluster, pods: Iterable[PodView]) -> Drains:
        """Which Pods drain, which have proven to be empty, and which replicas may go without proof."""
        return drains_of(self._heard[key], cluster, pods, self._clock())

    def admissions(self, key: ClusterKey, pods: Iterable[PodView]) -> list[tuple[PodView, bool]]:
        """Pods whose readiness gate has to change. Without a report nothing changes."""
        return admissions_of(self._heard[key], pods)

    async def drain(self, cluster: Cluster, view: ReplicaView) -> None:
        """Ask a replica's engines to finish: first nothing new; when idle, no reads for others either."""
        key, replica = (cluster.namespace, cluster.name), view.replica.id
        heard = self._heard[key]
        heard.draining.setdefault(replica, self._clock())
        self._visit_later(key, EAGER_S)
        engines = _engines(heard, view)
        serve_reads = not idle(engines)
        url = self._address(cluster)
        asked = [e for e in engines if e.accept_new or e.serve_reads != serve_reads]
        calls = [
            self._control.drain(url, heard.token, e.id, e.pod_uid, serve_reads=serve_reads) for e in asked
        ]
        await self._ask(heard, calls)

    async def resume(self, cluster: Cluster, view: ReplicaView) -> None:
        """Let a replica's engines take work again."""
        key = (cluster.namespace, cluster.name)
        heard, url = self._heard[key], self._address(cluster)
        heard.draining.pop(view.replica.id, None)
        self._visit_later(key, EAGER_S)
        engines = [e for e in _engines(heard, view) if not (e.accept_new and e.serve_reads)]
        await self._ask(heard, [self._control.resume(url, heard.token, e.id) for e in engines])

    def gone(self, key: ClusterKey, replicas: Iterable[str]) -> None:
        """Forget the drains of replicas that do not exist any more, and measure them."""
        heard = self._heard[key]
        present = set(replicas)
        for replica in [name for name in heard.draining if name not in present]:
            role = replica.rsplit("-", 3)[1]  # NAME-ROLE-REVISION-INDEX
            took = self._clock() - heard.draining.pop(replica)
            late = heard.cluster is not None and took > heard.cluster.spec.drain.deadline
            metrics.DRAIN_SECONDS.labels(role, "deadline" if late else "done").observe(took)

    async def _ask(self, heard: Heard, calls: Iterable[Coroutine[None, None, None]]) -> None:
        """All at once. What fails is asked for again by a later pass, once the gateway answers."""
        for failed in await asyncio.gather(*calls, return_exceptions=True):
            if isinstance(failed, GatewayAbsentError | GatewaySilentError):
                heard.contact, heard.problem = Contact.SILENT, str(failed)
                log.debug("not asked: %s", failed)
            elif failed is not None:
                raise failed

    def _address(self, cluster: Cluster) -> str:
        return self._url.format(name=cluster.name, namespace=cluster.namespace)

    # ------------------------------------------------------------ visits

    async def visit(self, key: ClusterKey) -> float | None:
        """One visit to a cluster's gateway; returns when the next one is due."""
        heard = self._heard.get(key)
        if heard is None or heard.cluster is None:
            return None
        try:
            before = heard.contact, _closed(heard.report)
            await self._listen(heard)
            if self._heard.get(key) is not heard:
                return None  # the cluster went meanwhile
            changed = await self._act(key, heard)
            changed |= before != (heard.contact, _closed(heard.report))
            if changed or heard.awaited_since is not None or heard.draining:
                self._wake(key)
            return self._next_visit(heard)
        except Exception:  # a bug of ours in one cluster must not stop the others
            log.exception("%s/%s: the visit failed", *key)
            return PATIENCE_S[-2]

    async def _listen(self, heard: Heard) -> None:
        """Fetch the report."""
        assert heard.cluster is not None
        try:
            heard.report = await self._control.report(self._address(heard.cluster), heard.token)
            heard.at = self._clock()
            heard.contact, heard.failures, heard.problem = Contact.ANSWERED, 0, ""
        except (GatewayAbsentError, GatewaySilentError) as error:
            absent = isinstance(error, GatewayAbsentError)
            heard.contact, heard.problem = Contact.ABSENT if absent else Contact.SILENT, str(error)
            heard.failures += 1
            heard.refused = isinstance(error, TokenRefusedError)

    async def _act(self, key: ClusterKey, heard: Heard) -> bool:
        """One step of the loops; True when they say something else than before."""
        assert heard.cluster is not None
        moment = Moment(
            age_s=self._clock() - heard.at,
            clock=self._clock(),
            iso=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            fresh=heard.contact is Contact.ANSWERED,
            fleet=heard.fleet,
            problem=heard.problem,
        )
        before, heard.told = heard.told, step(heard.cluster, heard.report, heard.told, moment)
        await self._set(heard)
        if self._heard.get(key) is heard and heard.report is not None and moment.fresh:
            set_gauges(key, heard.report, heard.told)
            set_age(key, lambda: self._clock() - heard.at)
        return heard.told.differs(before)

    async def _set(self, heard: Heard) -> None:
        """Level-based: what is in force is in the report, so a gateway that started anew is told again."""
        report, cluster, tuning = heard.report, heard.cluster, heard.told.tuning
        if heard.contact is not Contact.ANSWERED or report is None or cluster is None:
            return
        if tuning is None or tuning == report.tuning:
            return
        try:
            await self._control.tune(self._address(cluster), heard.token, tuning)
        except (GatewayAbsentError, GatewaySilentError) as error:
            log.info("%s/%s: tuning not set: %s", cluster.namespace, cluster.name, error)

    def _next_visit(self, heard: Heard) -> float:
        cluster, now = heard.cluster, self._clock()
        assert cluster is not None
        if heard.contact is not Contact.ANSWERED:
            most = PATIENCE_S[-2] if heard.gateway_ready else PATIENCE_S[-1]
            return min(most, PATIENCE_S[min(heard.failures, len(PATIENCE_S)) - 1])
        if heard.awaited_since is not None or heard.draining:
            since = min([*heard.draining.values(), *filter(None, [heard.awaited_since])], default=now)
            return EAGER_S if now - since < 60.0 else WEARY_S
        planned = heard.told.sized.planned
        if planned is not None and planned.prefill == 0 and not cluster.spec.suspend:
            return EAGER_S  # the first request has to wait for this visit
        active = now if heard.told.active_at is None else heard.told.active_at
        if planned is None and now - active > QUIET_AFTER_S:
            return QUIET_S
        since_step = 0.0 if heard.told.stepped_at is None else now - heard.told.stepped_at
        return max(0.05, min(IDLE_S, cluster.spec.path_policy.retune.interval - since_step))


def _closed(report: ControlReport | None) -> frozenset[str]:
    """Engines that drain: also those that nobody wants drained any more, and that a pass has to resume."""
    engines = () if report is None else report.engines
    return frozenset(e.incarnation for e in engines if not (e.accept_new and e.serve_reads))


def _engines(heard: Heard, view: ReplicaView) -> list[EngineReport]:
    """A replica's engines, while the gateway answers: else nothing can be asked of them."""
    if heard.contact is not Contact.ANSWERED:
        return []
    engines = by_pod(heard.report)
    return [engine for pod in view.pods for engine in engines.get(pod.uid, ())]


def _remembered(view: ClusterView) -> Told:
    """What an earlier operator told, from the status that it wrote."""
    status = json.loads(view.status)
    known = {name: status[name] for name in ("paths", "nics", "planned", "lastScale") if name in status}
    try:
        stored = ClusterStatus.model_validate(known)
    except ValidationError:  # of a version that wrote it otherwise
        return Told()
    judged = {
        condition["type"]: Judgement(
            status=condition["status"] == "True",
            reason=condition["reason"],
            message=condition.get("message", ""),
        )
        for condition in status.get("conditions", ())
        if condition.get("status") in {"True", "False"}
    }
    scaling = judged.get("ScalingActive") if stored.planned is not None else None
    told = Told(
        paths=stored.paths,
        nics=stored.nics,
        sized=Sized(planned=stored.planned, scaling=scaling, last_scale=stored.last_scale),
    )
    return told if (tuned := judged.get("PathTuned")) is None else replace(told, tuned=tuned)
