"""Which objects have to be applied, and which have to go, for the live ones to become the desired. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from dualpath_operator.drift import differences
from dualpath_operator.kinds import CLAIM
from dualpath_operator.model import INTENT, MANAGED_BY, MANAGER, Key, Object, key_of
from dualpath_operator.views import ObjectView


@dataclass(frozen=True, slots=True, kw_only=True)
class Apply:
    """Bring one object to its desired form."""

    obj: Object
    new: bool  # it does not exist, as far as we know
    created: bool = False  # it was made by a create: see `ownership`
    drift: tuple[str, ...] = ()  # paths that somebody else has changed


@dataclass(slots=True, kw_only=True)
class ObjectPlan:
    """What to do, in order. `in_sync`: what was found right, by version; it need not be compared again."""

    applies: list[Apply] = field(default_factory=list)
    prunes: list[ObjectView] = field(default_factory=list)
    clashes: list[Key] = field(default_factory=list)
    in_sync: dict[Key, tuple[str, str]] = field(default_factory=dict)


def plan_objects(
    desired: Iterable[Object],
    live: Mapping[Key, ObjectView],
    owner: str,
    known: Mapping[Key, tuple[str, str]],
    kept: Collection[Key] = (),
) -> ObjectPlan:
    """`owner` is the cluster's uid; `known` is `in_sync` of an earlier plan; `kept` is not pruned either."""
    plan = ObjectPlan()
    wanted: set[Key] = set(kept)
    for obj in desired:
        key = key_of(obj)
        wanted.add(key)
        found = live.get(key)
        if found is None:
            plan.applies.append(Apply(obj=obj, new=True))
        elif not is_ours(found, obj, owner):
            plan.clashes.append(key)
        else:
            _compare(plan, obj, found, known)
    plan.prunes = [view for key, view in live.items() if key not in wanted and view.owner == owner]
    return plan


def outlives(obj: Object) -> bool:
    """Whether an object may have been left by an earlier cluster, or may be left by this one."""
    return bool(obj["kind"] == CLAIM.name)


def is_ours(found: ObjectView, obj: Object, owner: str) -> bool:
    """Ours by its controller; claims that outlived a cluster have only our label, and are taken up again."""
    if found.owner or not outlives(obj):
        return found.owner == owner
    return bool(found.live()["metadata"].get("labels", {}).get(MANAGED_BY) == MANAGER)


def _compare(plan: ObjectPlan, obj: Object, found: ObjectView, known: Mapping[Key, tuple[str, str]]) -> None:
    intent = obj["metadata"]["annotations"][INTENT]
    if known.get(found.key) == (found.version, intent):
        plan.in_sync[found.key] = (found.version, intent)
        return
    if found.intent != intent:
        plan.applies.append(Apply(obj=obj, new=False, created=found.created))
        return
    content = {key: value for key, value in obj.items() if key not in {"apiVersion", "kind"}}
    drift = differences(content, found.live())
    if drift:
        plan.applies.append(Apply(obj=obj, new=False, created=found.created, drift=tuple(drift)))
    else:
        plan.in_sync[found.key] = (found.version, intent)
