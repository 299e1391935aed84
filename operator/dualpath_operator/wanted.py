"""How many engine groups are wanted, by the spec's scaling modes. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from dualpath_api.spec.roles import RoleSpec, ScalingMode
from dualpath_api.status import Pair
from dualpath_operator.model import Cluster, role_spec
from dualpath_operator.names import ROLES
from dualpath_operator.rollout_model import RoleWish, Strategy, Wish
from dualpath_operator.views import ObjectView


def wanted_replicas(
    cluster: Cluster,
    groups: Mapping[str, ObjectView | None],
    planned: Pair | None,
    before: Mapping[str, int] | None = None,
) -> dict[str, int]:
    """Groups of each role.

    `groups` are the live ones, `planned` is the newest decision of mode Planner, `before` what was wanted
    last: what an autoscaler had set is not lost with the DualPathEngineGroup that it was set on.
    """
    if cluster.spec.suspend or cluster.deleting:
        return dict.fromkeys(ROLES, 0)
    last = before or {}
    return {
        role: _wanted(role_spec(cluster, role), groups.get(role), planned, role, last.get(role) or 1)
        for role in ROLES
    }


def _wanted(spec: RoleSpec, group: ObjectView | None, planned: Pair | None, role: str, last: int) -> int:
    scaling = spec.scaling
    if scaling.mode is ScalingMode.STATIC:
        return scaling.replicas
    if scaling.mode is ScalingMode.EXTERNAL:
        # one, not none: a HorizontalPodAutoscaler leaves what is at 0 alone
        return last if group is None or group.replicas is None else group.replicas
    low = 1 if scaling.min_replicas is None else scaling.min_replicas
    high = scaling.max_replicas or low
    count = low if planned is None else planned.prefill if role == "prefill" else planned.decode
    return min(max(count, low), high)


def owned_replicas(
    cluster: Cluster, wanted: Mapping[str, int], missing: Collection[str] = ()
) -> dict[str, int | None]:
    """spec.replicas of the engine groups; None where an autoscaler owns it.

    `missing` roles have no engine group: it is made with what is wanted, unless the default says the same,
    and its replicas are handed over afterwards.
    """
    return {role: _owned(cluster, role, wanted[role], role in missing) for role in ROLES}


def _owned(cluster: Cluster, role: str, wanted: int, missing: bool) -> int | None:
    external = role_spec(cluster, role).scaling.mode is ScalingMode.EXTERNAL
    return None if external and not (missing and wanted > 1) else wanted


def wish_for(cluster: Cluster, revision: str, wanted: Mapping[str, int]) -> Wish:
    """What the rollout planner is asked for."""
    rollout = cluster.spec.rollout
    prefill, decode = (
        RoleWish(
            wanted=wanted[role],
            max_surge=rollout.max_surge,
            max_unavailable=rollout.max_unavailable,
            gpus=role_spec(cluster, role).resources.gpus * role_spec(cluster, role).parallelism.nodes,
        )
        for role in ROLES
    )
    return Wish(
        target=revision,
        prefill=prefill,
        decode=decode,
        gpu_budget=cluster.spec.gpu_budget,
        paused=cluster.spec.paused and not cluster.deleting,
        strategy=Strategy(rollout.strategy.value),
    )
