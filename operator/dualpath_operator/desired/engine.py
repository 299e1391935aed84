"""The Pod of an engine replica, or of one of its nodes. Complete: an engine has nothing that is not here."""

from __future__ import annotations

import math

from dualpath_api.spec.fabric import FabricMode
from dualpath_operator import names
from dualpath_operator.desired import commands, fabric, processes, ranks, storage, weights
from dualpath_operator.desired.common import filled, owned_by, stamped
from dualpath_operator.desired.merge import merge_pod_template
from dualpath_operator.desired.owned import OUR_CONTAINER
from dualpath_operator.desired.place import Place, nics
from dualpath_operator.desired.placement import affinity
from dualpath_operator.model import ADMITTED, Cluster, Object, Surroundings

DRAIN_MARGIN_S = 30
"""Beyond the drain's deadline: time for an engine to close and for its store to finish writing."""


def engine_pod(
    cluster: Cluster,
    around: Surroundings,
    role: str,
    revision: str,
    index: int,
    node: int,
    group_uid: str,
) -> Object:
    """Node `node` of replica `index` of a role, owned by the role's DualPathEngineGroup.

    Raises SpecError when the podTemplate touches what is the operator's.
    """
    place = Place(cluster=cluster, around=around, role=role, revision=revision, index=index, node=node)
    pod = rendered(place)
    pod["metadata"]["ownerReferences"] = owned_by("DualPathEngineGroup", place.group, group_uid)
    if gpus := place.own.resources.gpus:
        pod["metadata"].setdefault("annotations", {})[names.GPUS] = str(gpus)
    deadline = math.ceil(cluster.spec.drain.deadline)
    pod["spec"]["terminationGracePeriodSeconds"] = deadline + DRAIN_MARGIN_S
    hook = {"preStop": {"exec": {"command": commands.prestop(deadline)}}}
    for container in pod["spec"]["containers"]:
        if OUR_CONTAINER.match(container["name"]):
            container["lifecycle"] = hook
    return stamped(pod)


def rendered(place: Place) -> Object:
    """The Pod as far as its revision depends on it: without its owner, and without how it ends."""
    cluster, name = place.cluster, place.pod_name(place.node)
    added = nics(cluster, place.role)
    spec: Object = {
        **processes.pod_basics(cluster),
        "restartPolicy": "Always",
        "readinessGates": [{"conditionType": ADMITTED}],
        "affinity": affinity(place),
        "initContainers": _init_containers(place, added),
        "containers": [ranks.container(place, rank, part) for rank, part in enumerate(added.parts)],
        "volumes": _volumes(place),
        **added.spec,
        **fabric.resource_claims(place.group, added),
    }
    if place.nodes > 1:
        spec |= {"hostname": name, "subdomain": place.group}
    metadata: Object = {
        "name": name,
        "namespace": cluster.namespace,
        "labels": place.labels(),
        "annotations": dict(added.annotations),
    }
    pod: Object = {"apiVersion": "v1", "kind": "Pod", "metadata": filled(metadata), "spec": filled(spec)}
    return merge_pod_template(pod, place.own.pod_template, where=f"spec.{place.role}.podTemplate")


def claim_templates(cluster: Cluster, role: str) -> dict[str, Object]:
    """Name to spec of the ResourceClaimTemplates that a role's Pods need."""
    owner, specs = names.group(cluster.name, role), nics(cluster, role).claim_specs
    return {fabric.claim_template_name(owner, claim, spec): spec for claim, spec in specs.items()}


def _volumes(place: Place) -> list[Object]:
    cluster = place.cluster
    found = processes.volumes(cluster, names.config(cluster.name, place.revision))
    # the default has 64Mi, too small for what UCX and torch keep there; ranks reach each other through it
    found.append({"name": "shm", "emptyDir": {"medium": "Memory"}})
    found += weights.volumes(cluster)
    if (files := cluster.spec.storage.files) is not None:
        claim = files.claim_name or storage.claim_name(cluster)
        found.append({"name": "store", "persistentVolumeClaim": {"claimName": claim}})
    return found


def _init_containers(place: Place, added: fabric.PodFields) -> list[Object]:
    cluster, wanted = place.cluster, place.cluster.spec.fabric
    security = processes.security()
    found = weights.init_containers(cluster, place.image, security, processes.SCRATCH, weights=True)
    if wanted.mode is not FabricMode.NONE and wanted.preflight:
        found.append(_preflight(place, added))
    return found


def _preflight(place: Place, added: fabric.PodFields) -> Object:
    """The check of the NICs. It sees all devices that the Pod's ranks get after it."""
    spec = place.cluster.spec
    devices: dict[str, int] = {}
    for part in added.parts:
        for name, count in part.resources.items():
            devices[name] = devices.get(name, 0) + count
    amounts = {name: str(count) for name, count in devices.items()}
    claims = [{"name": name} for name in added.claim_specs]
    return filled(
        {
            "name": "fabric",
            "image": place.image,
            "imagePullPolicy": spec.image_pull_policy,
            "command": commands.preflight(spec.fabric.on_mismatch),
            "env": processes.env_of_pod(DUALPATH_NODE_NAME="spec.nodeName"),
            "resources": filled({"requests": amounts, "limits": amounts, "claims": claims}),
            "securityContext": processes.security(lock_memory=spec.fabric.rdma),
            "volumeMounts": [processes.CONFIG_MOUNT, processes.SCRATCH],
            "terminationMessagePolicy": "FallbackToLogsOnError",
        }
    )
