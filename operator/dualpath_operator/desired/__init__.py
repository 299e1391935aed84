"""What a DualPathCluster becomes: pure functions of the spec and its surroundings, without I/O and clock.

The same input gives the same objects to the byte, so an object is applied only when the live one differs.
`revision_of` names what engines are made of, `engine_pod` is one engine, `objects` is everything else.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping

from dualpath_operator import names
from dualpath_operator.desired import gateway, groups, storage
from dualpath_operator.desired import revision as revisions
from dualpath_operator.desired.commands import TOKEN_KEY
from dualpath_operator.desired.common import digest, metadata, stamped
from dualpath_operator.desired.engine import engine_pod
from dualpath_operator.desired.merge import merge_pod_template
from dualpath_operator.desired.network import network_objects, wanted_kinds
from dualpath_operator.desired.owned import check_pod_templates, owned_keys, template_problems
from dualpath_operator.desired.revision import revision_of
from dualpath_operator.model import INTENT, Cluster, Key, Object, Surroundings

__all__ = [
    "check_pod_templates",
    "engine_pod",
    "kept",
    "merge_pod_template",
    "objects",
    "owned_keys",
    "revision_of",
    "secret",
    "template_problems",
    "wanted_kinds",
]


MAX_NODES = 16
"""Most nodes of a replica."""


def objects(
    cluster: Cluster,
    around: Surroundings,
    revision: str,
    replicas: Mapping[str, int | None],
) -> tuple[Object, ...]:
    """Everything but Pods and the control Secret, in the order to apply it.

    `replicas` of a role that is None belongs to an autoscaler and is left out. What Pods of older, live
    revisions started from cannot be rendered any more: `kept` names it, it must not be pruned.

    Raises SpecError when a podTemplate touches what is the operator's.
    """
    found = [
        service_account(cluster),
        revisions.config_map(cluster, revision),
        gateway.config_map(cluster),
        gateway.service(cluster),
        *groups.headless_services(cluster),
        *storage.storage_objects(cluster, around),
        *groups.claim_templates(cluster),
        *groups.engine_groups(cluster, replicas),
        gateway.deployment(cluster, around),
        *groups.disruption_budgets(cluster),
        *network_objects(cluster, around),
    ]
    return tuple(stamped(obj) for obj in found)


def kept(cluster: Cluster, live_revisions: frozenset[str]) -> frozenset[Key]:
    """Objects that are not desired, or not any more, and must not be pruned.

    Engines of older revisions start again from their ConfigMap, and may span nodes where new ones do not. The
    claim with the blocks goes with the cluster or never, whatever else the spec comes to say.
    """
    found = {Key(kind="ConfigMap", name=names.config(cluster.name, live)) for live in live_revisions}
    found.add(Key(kind="PersistentVolumeClaim", name=storage.claim_name(cluster)))
    if len(live_revisions) > 1:
        found |= {Key(kind="Service", name=names.group(cluster.name, role)) for role in names.ROLES}
        budgets = (groups.budget_name(cluster, node) for node in range(1, MAX_NODES))
        found |= {Key(kind="PodDisruptionBudget", name=name) for name in budgets}
    return frozenset(found)


def service_account(cluster: Cluster) -> Object:
    """The account of all Pods of a cluster: without rights, and without a token."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata(cluster, cluster.name, "cluster"),
        "automountServiceAccountToken": False,
    }


def secret(cluster: Cluster, token: str) -> Object:
    """The control token. Its intent hash does not cover the token: annotations are no place for secrets."""
    obj: Object = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata(cluster, names.control_secret(cluster.name), "cluster"),
        "type": "Opaque",
    }
    obj["metadata"]["annotations"] = {INTENT: digest(obj, 16)}
    return {**obj, "data": {TOKEN_KEY: base64.b64encode(token.encode()).decode()}}
