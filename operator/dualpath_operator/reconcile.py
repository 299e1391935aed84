"""One pass over one cluster: read what is, compare with what should be, do what may be done now, tell.

Level-based: a pass knows nothing of what caused it. It may be cut short anywhere; the next one goes on from
what it finds. Order: finalizer, objects, drains and deletions, new Pods, admission, status.
"""

from __future__ import annotations

import json
import logging
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime

from dualpath_operator import metrics, names
from dualpath_operator.applier import Applier
from dualpath_operator.clusters import finalizers_with, patch_finalizers, read_cluster
from dualpath_operator.desired import kept, objects, wanted_kinds
from dualpath_operator.engines import Engines
from dualpath_operator.findings import Findings
from dualpath_operator.judgements import balance_of, gateway_ready, judge_scaling, judge_storage, problems_of
from dualpath_operator.kinds import CLUSTER, ENGINE_GROUP
from dualpath_operator.kube import Api, KubeError
from dualpath_operator.memory import Memory
from dualpath_operator.model import FINALIZER, Cluster, Key, Object, Surroundings
from dualpath_operator.observe import replicas_of
from dualpath_operator.one_pass import Pass, as_rendered, described
from dualpath_operator.plan import plan_objects
from dualpath_operator.recorder import event, retuned
from dualpath_operator.reporter import Reporter
from dualpath_operator.rollout import plan as plan_rollout
from dualpath_operator.rollout_model import Create, Delete, Drain, Resume, State
from dualpath_operator.secrets import Secrets
from dualpath_operator.settings import Settings
from dualpath_operator.telemetry import Telemetry
from dualpath_operator.views import ClusterKey, ClusterView, applied_by_us
from dualpath_operator.wanted import owned_replicas, wanted_replicas, wish_for
from dualpath_operator.world import World

log = logging.getLogger(__name__)

BACKOFF_S = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)

WATCHFUL_S = 30.0
"""Between passes while something is on its way: deadlines pass without any event."""


class Reconciler:
    """Passes over all clusters. `clock` is monotonic, in seconds."""

    def __init__(
        self,
        api: Api,
        world: World,
        settings: Settings,
        around: Surroundings,
        telemetry: Telemetry,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._world = world
        self._settings = settings
        self._around = around
        self._telemetry = telemetry
        self._clock = clock
        self._applier = Applier(api)
        self._engines = Engines(api, around)
        self._secrets = Secrets(api, 0.8 * settings.resync)
        self._reporter = Reporter(api, settings.status_interval)
        self._memories: dict[ClusterKey, Memory] = defaultdict(Memory)

    async def handle(self, key: ClusterKey) -> float | None:
        """One pass; returns after how many seconds the next is due, whatever happens meanwhile."""
        started, result = self._clock(), "ok"
        memory = self._memories[key]
        try:
            again = await self._pass(key, memory)
            memory.failures = 0
        except KubeError as error:
            result = "retry"
            metrics.RECONCILE_ERRORS.labels(CLUSTER.name, error.reason or str(error.status)).inc()
            again = error.retry_after or self._backoff(memory)
            level = logging.DEBUG if error.status == 409 else logging.WARNING
            log.log(level, "%s/%s: %s; next attempt in %.0f s", *key, error, again)
        except Exception:  # a bug of ours in one cluster must not stop the others
            result = "bug"
            metrics.RECONCILE_ERRORS.labels(CLUSTER.name, "bug").inc()
            again = self._backoff(memory)
            log.exception("%s/%s: the pass failed; next attempt in %.0f s", *key, again)
        metrics.RECONCILE_SECONDS.labels(CLUSTER.name, result).observe(self._clock() - started)
        return again

    def _backoff(self, memory: Memory) -> float:
        memory.failures += 1
        return BACKOFF_S[min(memory.failures, len(BACKOFF_S)) - 1]

    async def _pass(self, key: ClusterKey, memory: Memory) -> float | None:
        view = self._world.cluster(key)
        if view is None or (view.deleting and FINALIZER not in view.finalizers):
            self._forget(key)
            return None
        if memory.uid not in {"", view.uid}:  # another one of the same name
            self._forget(key)
            memory = self._memories[key]
        memory.uid = view.uid
        memory.expire(self._clock())
        cluster, problem = read_cluster(key, view, memory, self._around)
        if cluster is None:
            if view.deleting:
                await self._release(key, view)
            else:
                await self._reporter.invalid(key, view, problem, memory)
            return None
        if not view.deleting and FINALIZER not in view.finalizers:
            await patch_finalizers(self._api, key, view, finalizers_with(view.finalizers))
        now = self._observe(cluster, view, memory)
        if self._telemetry.refused(key):
            memory.token = ""  # made anew since it was read
        if not now.frozen:
            if cluster.deleting:
                await self._secrets.recall(cluster, memory)
            else:
                await self._apply_objects(now)
        self._follow(now)
        if not now.frozen:
            await self._carry_out(now)
        if cluster.deleting and all(v.replica.state is State.LOST for v in now.replicas):
            await self._release(key, view)
            return None
        await self._admit(now)
        await self._tell_retunes(now)
        told = await self._reporter.report(view, self._findings(now), now.groups, memory)
        return self._next_look(now, told)

    # ------------------------------------------------------------ looking

    def _observe(self, cluster: Cluster, view: ClusterView, memory: Memory) -> Pass:
        key = (cluster.namespace, cluster.name)
        live = self._world.objects(key, memory)
        groups = {
            role: live.get(Key(kind=ENGINE_GROUP.name, name=names.group(cluster.name, role)))
            for role in names.ROLES
        }
        revision = memory.revision
        status = memory.status or json.loads(view.status)
        before = {role: status.get("roles", {}).get(role, {}).get("desired", 0) for role in names.ROLES}
        wanted = wanted_replicas(cluster, groups, self._telemetry.recall(key, view), before)
        owners = {group.uid for group in groups.values() if group} | set(memory.group_uids.values())
        # labels can be copied by anyone: what another made is neither counted nor deleted
        pods = [pod for pod in self._world.pods(key, memory) if pod.owner in owners]
        drains = self._telemetry.drains(key, cluster, pods)
        replicas = tuple(replicas_of(cluster.name, pods, drains, datetime.now(UTC)))
        self._telemetry.gone(key, (view.replica.id for view in replicas))
        return Pass(
            cluster=cluster,
            view=view,
            memory=memory,
            live=live,
            groups=groups,
            wanted=wanted,
            revision=revision,
            replicas=replicas,
            plan=plan_rollout([v.replica for v in replicas], wish_for(cluster, revision, wanted)),
        )

    # ------------------------------------------------------------ doing

    async def _apply_objects(self, now: Pass) -> None:
        cluster, memory = now.cluster, now.memory
        has_token = await self._secrets.ensure(cluster, memory, self._clock())
        revisions = frozenset({now.revision, *(view.replica.revision for view in now.replicas)})
        missing = [role for role, group in now.groups.items() if group is None]
        owned = owned_replicas(cluster, now.wanted, missing)
        step = (cluster.generation, now.revision, revisions, tuple(owned.items()), bool(now.replicas))
        versions = {key: view.version for key, view in now.live.items()}
        if step == memory.in_step and versions == {key: seen for key, (seen, _) in memory.in_sync.items()}:
            return
        desired = objects(as_rendered(cluster, now.replicas), self._around, now.revision, owned)
        plan = plan_objects(desired, now.live, cluster.uid, memory.in_sync, kept(cluster, revisions))
        memory.in_sync = plan.in_sync
        for apply in plan.applies:
            name = apply.obj["metadata"]["name"]
            for role, group in now.groups.items():
                if group and group.key.name == name and owned[role] is None and applied_by_us(group):
                    await self._applier.hand_over(apply.obj, group.replicas or 0)
        now.applied = await self._applier.carry_out(plan, cluster.uid, memory, self._clock())
        memory.in_step = step if has_token and not plan.applies and not plan.clashes else ()
        if not has_token:
            now.applied.clashes.append(Key(kind="Secret", name=names.control_secret(cluster.name)))
        for key, paths in now.applied.drifted:
            message = f"{key.kind} {key.name} was changed at {', '.join(paths[:5])}; put right"
            await self._tell(cluster, "DriftCorrected", message)

    async def _carry_out(self, now: Pass) -> None:
        """Carry out the rollout plan. Pods are made last: what leaves makes room first."""
        cluster, memory, clock = now.cluster, now.memory, self._clock()
        by_id = {view.replica.id: view for view in now.replicas}
        for step in now.plan.steps:
            log.info("%s/%s: %s", *now.key, described(step, cluster.name))
            match step:
                case Drain(id=replica):
                    await self._telemetry.drain(cluster, by_id[replica])
                case Resume(id=replica):
                    await self._telemetry.resume(cluster, by_id[replica])
                case Delete(id=replica):
                    await self._engines.delete(cluster, by_id[replica], memory, clock)
        resumed = {step.id for step in now.plan.steps if isinstance(step, Resume)}
        for view in now.replicas:
            if view.replica.state is State.DRAINING and view.replica.id not in resumed:
                await self._telemetry.drain(cluster, view)
        if cluster.deleting:
            return
        uids = now.group_uids
        creates = [step for step in now.plan.steps if isinstance(step, Create)]
        newest = [view for view in now.replicas if view.replica.revision == now.revision]
        await self._engines.complete(cluster, uids, newest, memory, clock, now.applied)
        await self._engines.create(cluster, uids, creates, memory, clock, now.applied)

    async def _admit(self, now: Pass) -> None:
        """Set the gates that the scheduler's report asks for."""
        pods = [pod for view in now.replicas for pod in view.pods]
        when = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        for pod, admitted in self._telemetry.admissions(now.key, pods):
            await self._engines.admit(now.cluster.namespace, pod, admitted, when)

    def _follow(self, now: Pass) -> None:
        """Have the gateway asked more often while its answer is waited for."""
        self._telemetry.follow(
            now.cluster,
            now.memory.token,
            gateway_ready=gateway_ready(now.cluster, now.live),
            awaited=now.awaits_admission,
            fleet=now.fleet,
        )

    # ------------------------------------------------------------ telling

    def _findings(self, now: Pass) -> Findings:
        cluster, told = now.cluster, self._telemetry.told(now.key)
        balance, balanced = balance_of(cluster.spec, now.wanted)
        live_status = now.memory.status or json.loads(now.view.status)
        return Findings(
            cluster=cluster,
            revision=now.revision,
            wanted=now.wanted,
            replicas=now.replicas,
            plan=now.plan,
            gateway_ready=gateway_ready(cluster, now.live),
            storage=judge_storage(cluster, now.live),
            tuned=told.tuned,
            balanced=balanced,
            scaling=judge_scaling(cluster, told.sized.scaling),
            missing=tuple(sorted(wanted_kinds(cluster) - self._around.kinds)),
            problems=problems_of(now.applied, cluster, now.plan, live_status, datetime.now(UTC)),
            paths=told.paths,
            nics=told.nics,
            balance=balance,
            planned=told.sized.planned,
            last_scale=told.sized.last_scale,
            endpoint=f"http://{cluster.name}.{cluster.namespace}.svc:8000/v1",
        )

    async def _tell_retunes(self, now: Pass) -> None:
        share = self._telemetry.told(now.key).paths.decode_share_permille
        now.memory.retuned, news = retuned(now.cluster, share, now.memory.retuned, self._clock())
        if news is not None:
            await self._write_event(news)

    async def _tell(self, cluster: Cluster, reason: str, message: str, *, warning: bool = False) -> None:
        await self._write_event(event(cluster, reason, message, warning=warning))

    async def _write_event(self, told: Object) -> None:
        try:
            await self._api.create(told)
        except KubeError as error:
            log.debug("event not written: %s", error)

    def _next_look(self, now: Pass, told: bool) -> float:
        """Soon, when the status waits to be written; else at the resync, spread over time."""
        if not told:
            return max(0.5, now.memory.status_at + self._settings.status_interval - self._clock())
        applied = now.applied
        if not now.plan.complete or applied.clashes or applied.refused:
            return min(WATCHFUL_S, self._settings.resync)
        return self._settings.resync * (0.9 + 0.2 * (hash(now.key) % 100) / 100)

    # ------------------------------------------------------------ the cluster itself

    async def _release(self, key: ClusterKey, view: ClusterView) -> None:
        """Let a deleted cluster go; its children follow by their owner."""
        left = tuple(name for name in view.finalizers if name != FINALIZER)
        await patch_finalizers(self._api, key, view, left)
        self._forget(key)

    def _forget(self, key: ClusterKey) -> None:
        self._memories.pop(key, None)
        self._telemetry.forget(key)
        metrics.forget_cluster(*key)
