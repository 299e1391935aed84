"""Carries out object plans: one write at a time and in order, so that a crash in between leaves a prefix."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from dualpath_operator import metrics
from dualpath_operator.kinds import BY_NAME, ENGINE_GROUP
from dualpath_operator.kube import Api, KubeError
from dualpath_operator.memory import Memory
from dualpath_operator.model import Key, Object, key_of
from dualpath_operator.ownership import as_applied, was_created
from dualpath_operator.plan import Apply, ObjectPlan, is_ours
from dualpath_operator.views import ObjectView, object_view
from dualpath_operator.world import intent_of

log = logging.getLogger(__name__)

SEED_MANAGER = "dualpath-operator-seed"
"""Owns spec.replicas of an engine group from when a cluster hands it over until an autoscaler writes it."""


@dataclass(slots=True)
class Applied:
    """What came of a plan."""

    drifted: list[tuple[Key, tuple[str, ...]]] = field(default_factory=list)
    clashes: list[Key] = field(default_factory=list)
    refused: list[tuple[Key, str]] = field(default_factory=list)  # the API server does not take them


class Applier:
    """Applies and prunes the children of clusters."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def carry_out(self, plan: ObjectPlan, owner: str, memory: Memory, now: float) -> Applied:
        """Raises KubeError for what may succeed later."""
        done = Applied(clashes=list(plan.clashes))
        for apply in plan.applies:
            key, intent = key_of(apply.obj), intent_of(apply.obj)
            if not apply.drift and memory.applied.get(key, ("", 0.0))[0] == intent:
                continue
            if await self._carry_out(apply, key, owner, done, memory):
                memory.applied[key] = (intent, now)
        await self._prune(plan.prunes)
        return done

    async def _carry_out(self, apply: Apply, key: Key, owner: str, done: Applied, memory: Memory) -> bool:
        """One write; False when it was not to be, which `done` then tells."""
        try:
            made = await (self._make(apply.obj, owner) if apply.new else self._bring(apply))
        except KubeError as error:
            metrics.APPLIES.labels(key.kind, "error").inc()
            if error.transient or error.status == 401:
                raise
            done.refused.append((key, error.said))
            return False
        if made is None:
            done.clashes.append(key)
            return False
        metrics.APPLIES.labels(key.kind, "applied").inc()
        if key.kind == ENGINE_GROUP.name:
            memory.group_uids[key.name] = made["metadata"]["uid"]
        if apply.drift:
            metrics.DRIFT.labels(key.kind).inc()
            done.drifted.append((key, apply.drift))
        return True

    async def _make(self, obj: Object, owner: str) -> Object | None:
        """Make an object; None when somebody else's has its name."""
        try:
            return await self._api.create(obj)
        except KubeError as error:
            if error.status != 409:
                raise
            meta = obj["metadata"]
            found = await self._api.get(BY_NAME[obj["kind"]], meta["namespace"], meta["name"])
            if found is None:
                raise
        if not is_ours(object_view(found), obj, owner):
            return None
        # made before, and no watch has told about it yet; or left by an earlier cluster
        return await self._bring(Apply(obj=obj, new=False, created=True))

    async def _bring(self, apply: Apply) -> Object:
        """Bring a live object to its desired form."""
        try:
            if apply.created:
                await self._own(apply.obj)
            return await self._api.apply(apply.obj)
        except KubeError as error:
            if not (apply.drift and error.status == 422):
                raise
            return await self._replace(apply.obj)

    async def _own(self, obj: Object) -> None:
        """Have the API server take our fields for applied ones, so that an apply can remove some."""
        kind, meta = BY_NAME[obj["kind"]], obj["metadata"]
        found = await self._api.get(kind, meta["namespace"], meta["name"])
        fields = [] if found is None else found["metadata"].get("managedFields", [])
        if found is None or not was_created(fields):
            return
        version = found["metadata"]["resourceVersion"]
        body = {"metadata": {"resourceVersion": version, "managedFields": as_applied(fields)}}
        await self._api.merge(kind, meta["namespace"], meta["name"], body)

    async def _replace(self, obj: Object) -> Object:
        """Put what we render in place of what is there.

        An apply merges lists by key: an item that somebody gave another key stays beside ours, and the two
        may not be valid together. A merge patch replaces lists.
        """
        kind, meta = BY_NAME[obj["kind"]], obj["metadata"]
        return await self._api.merge(kind, meta["namespace"], meta["name"], obj)

    async def _prune(self, prunes: Sequence[ObjectView]) -> None:
        for view in prunes:
            namespace = view.live()["metadata"]["namespace"]
            await self._api.delete(BY_NAME[view.key.kind], namespace, view.key.name, uid=view.uid)
            metrics.APPLIES.labels(view.key.kind, "pruned").inc()
            log.info("pruned %s %s/%s", view.key.kind, namespace, view.key.name)

    async def hand_over(self, group: Object, replicas: int) -> None:
        """Give spec.replicas of an engine group a neutral owner before we let go of it.

        A field that nobody owns any more would be removed, and come back with its default.
        """
        meta = group["metadata"]
        seed = {
            "apiVersion": group["apiVersion"],
            "kind": group["kind"],
            "metadata": {"name": meta["name"], "namespace": meta["namespace"]},
            "spec": {**group["spec"], "replicas": replicas},
        }
        await self._api.apply(seed, manager=SEED_MANAGER)
