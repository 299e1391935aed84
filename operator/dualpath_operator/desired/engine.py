"""The Pod of an engine replica: one container a rank. Complete: what is not here, an engine does not have."""

from __future__ import annotations

import math

from dualpath_api.cluster import RoleSpec
from dualpath_api.spec.fabric import FabricMode
from dualpath_operator import names
from dualpath_operator.desired import commands, config, fabric, processes, storage, weights
from dualpath_operator.desired.common import (
    cpu_millis,
    cpu_quantity,
    filled,
    memory_shares,
    owned_by,
    shares,
    stamped,
)
from dualpath_operator.desired.merge import merge_pod_template
from dualpath_operator.desired.owned import OUR_CONTAINER
from dualpath_operator.model import ADMITTED, Cluster, Object, Surroundings

DRAIN_MARGIN_S = 30
"""Beyond the drain's deadline: time for an engine to close and for its store to finish writing."""


def role_spec(cluster: Cluster, role: str) -> RoleSpec:
    """This role's part of the spec."""
    return cluster.spec.prefill if role == "prefill" else cluster.spec.decode


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
    pod = rendered(cluster, around, role, revision, index, node)
    owner = owned_by("DualPathEngineGroup", names.group(cluster.name, role), group_uid)
    pod["metadata"]["ownerReferences"] = owner
    deadline = math.ceil(cluster.spec.drain.deadline)
    pod["spec"]["terminationGracePeriodSeconds"] = deadline + DRAIN_MARGIN_S
    hook = {"preStop": {"exec": {"command": commands.prestop(deadline)}}}
    for container in pod["spec"]["containers"]:
        if OUR_CONTAINER.match(container["name"]):
            container["lifecycle"] = hook
    return stamped(pod)


def rendered(
    cluster: Cluster, around: Surroundings, role: str, revision: str, index: int, node: int
) -> Object:
    """The Pod as far as its revision depends on it: without how it ends."""
    own = role_spec(cluster, role)
    nodes = own.parallelism.nodes
    name = names.pod(cluster.name, role, revision, index, node, nodes)
    added = nics(cluster, role)
    labels = names.labels(cluster.name, role) | {
        names.ROLE_LABEL: role,
        names.REVISION_LABEL: revision,
        names.REPLICA_LABEL: str(index),
        names.NODE_LABEL: str(node),
    }
    image = cluster.spec.image or around.images.worker
    containers = [
        _container(cluster, role, revision, index, node, rank, image, added.parts[rank])
        for rank in range(own.parallelism.data)
    ]
    spec: Object = {
        **processes.pod_basics(cluster),
        "restartPolicy": "Always",
        "readinessGates": [{"conditionType": ADMITTED}],
        "affinity": _affinity(cluster, role, revision, index, nodes),
        "containers": containers,
        "volumes": _volumes(cluster, revision),
        **added.spec,
        **fabric.resource_claims(fabric.claim_owner(cluster, role), added),
    }
    init = _init_containers(cluster, image, added)
    if init:
        spec["initContainers"] = init
    if nodes > 1:
        spec |= {"hostname": name, "subdomain": names.group(cluster.name, role)}
    metadata = filled(
        {
            "name": name,
            "namespace": cluster.namespace,
            "labels": labels,
            "annotations": {**added.annotations},
        }
    )
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    return merge_pod_template(pod, own.pod_template, where=f"spec.{role}.podTemplate")


def nics(cluster: Cluster, role: str) -> fabric.PodFields:
    """What the fabric's mode adds to a role's Pods."""
    own = role_spec(cluster, role)
    needs = fabric.Needs(
        namespace=cluster.namespace,
        ranks=own.parallelism.data,
        gpus=own.resources.gpus,
        gpu_resource=own.resources.gpu_resource,
    )
    return fabric.pod_fields(cluster.spec.fabric, needs)


def port_name(rank: int) -> str:
    """Metrics port of a local rank."""
    return f"metrics-{rank}" if rank else "metrics"


def _container(
    cluster: Cluster,
    role: str,
    revision: str,
    index: int,
    node: int,
    rank: int,
    image: str,
    part: fabric.Part,
) -> Object:
    spec, own = cluster.spec, role_spec(cluster, role)
    on_host = fabric.on_host(spec.fabric)
    port = commands.host_port(role, revision, index, rank) if on_host else commands.METRICS_PORT + rank
    group_rank = node * own.parallelism.data + rank
    return filled(
        {
            "name": f"engine-{rank}" if rank else "engine",
            "image": image,
            "imagePullPolicy": spec.image_pull_policy,
            "command": commands.engine(cluster, role, index, group_rank, port),
            "env": _environment(cluster, role, revision, index, node, group_rank),
            "ports": [processes.port(port_name(rank), port, on_host=on_host)],
            "resources": _resources(own, rank, part),
            "securityContext": processes.security(lock_memory=spec.fabric.rdma),
            "volumeMounts": _mounts(cluster),
            "terminationMessagePolicy": "FallbackToLogsOnError",
            **processes.probes(port_name(rank), ready="/readyz"),
        }
    )


def _environment(
    cluster: Cluster, role: str, revision: str, index: int, node: int, group_rank: int
) -> list[Object]:
    nodes = role_spec(cluster, role).parallelism.nodes
    found = processes.env_of_pod(
        DUALPATH_POD_NAME="metadata.name",
        DUALPATH_POD_UID="metadata.uid",
        DUALPATH_POD_IP="status.podIP",
        DUALPATH_NODE_NAME="spec.nodeName",
    )
    found += processes.env(
        DUALPATH_REVISION=revision,
        DUALPATH_RANK=str(group_rank),
        DUALPATH_SCHEDULER=commands.scheduler(cluster),
        DUALPATH_CONTROL_TOKEN_FILE=commands.TOKEN,
        HOME="/tmp",
        THP_MEM_ALLOC_ENABLE="1",  # torch then asks for huge pages, which decoding on a CPU needs
    )
    if nodes > 1:
        leader = names.pod(cluster.name, role, revision, index, 0, nodes)
        found += processes.env(
            DUALPATH_LEADER_ADDRESS=f"{leader}.{names.group(cluster.name, role)}.{cluster.namespace}.svc",
            DUALPATH_NODE_INDEX=str(node),
            DUALPATH_NODES=str(nodes),
        )
    return found


def _resources(own: RoleSpec, rank: int, part: fabric.Part) -> Object:
    """A rank's share. Without `memory` the Pod requests what its buffers take, and has no limit."""
    wanted, ranks = own.resources, own.parallelism.data
    devices = {name: str(count) for name, count in part.resources.items()}
    requests, limits = dict(devices), dict(devices)
    if wanted.cpu is not None:
        requests["cpu"] = cpu_quantity(shares(cpu_millis(wanted.cpu), ranks)[rank])
    if wanted.memory is not None:
        requests["memory"] = limits["memory"] = memory_shares(wanted.memory, ranks)[rank]
    else:
        buffers = wanted.dram_buffer + (0 if wanted.gpus else wanted.kv_cache)
        requests["memory"] = memory_shares(buffers, ranks)[rank]
    return filled({"requests": requests, "limits": limits, "claims": part.claims})


def _mounts(cluster: Cluster) -> list[Object]:
    found: list[Object] = [
        processes.CONFIG_MOUNT,
        processes.CONTROL_MOUNT,
        processes.SCRATCH,
        {"name": "shm", "mountPath": "/dev/shm"},
        *weights.mounts(cluster),
    ]
    if cluster.spec.storage.files is not None:
        found.append(
            {"name": "store", "mountPath": commands.STORE, "subPath": _as_path(config.domain(cluster))}
        )
    return found


def _as_path(domain: str) -> str:
    """The directory of a domain; the API server refuses steps upwards."""
    steps = [step if step.strip(".") else step.replace(".", "%2E") for step in domain.split("/")]
    return "/".join(step for step in steps if step)


def _volumes(cluster: Cluster, revision: str) -> list[Object]:
    found = processes.volumes(cluster, names.config(cluster.name, revision))
    # the default has 64Mi, too small for what UCX and torch keep there; ranks reach each other through it
    found.append({"name": "shm", "emptyDir": {"medium": "Memory"}})
    found += weights.volumes(cluster)
    if (files := cluster.spec.storage.files) is not None:
        claim = files.claim_name or storage.claim_name(cluster)
        found.append({"name": "store", "persistentVolumeClaim": {"claimName": claim}})
    return found


def _init_containers(cluster: Cluster, image: str, added: fabric.PodFields) -> list[Object]:
    spec = cluster.spec
    found = weights.init_containers(cluster, image, processes.security(), processes.SCRATCH, weights=True)
    if spec.fabric.mode is not FabricMode.NONE and spec.fabric.preflight:
        found.append(_preflight(cluster, image, added))
    return found


def _preflight(cluster: Cluster, image: str, added: fabric.PodFields) -> Object:
    """The check of the NICs. It sees all devices that the Pod's ranks get after it."""
    devices: dict[str, int] = {}
    for part in added.parts:
        for name, count in part.resources.items():
            devices[name] = devices.get(name, 0) + count
    amounts = {name: str(count) for name, count in devices.items()}
    claims = [{"name": name} for name in added.claim_specs]
    return filled(
        {
            "name": "fabric",
            "image": image,
            "imagePullPolicy": cluster.spec.image_pull_policy,
            "command": commands.preflight(cluster.spec.fabric.on_mismatch),
            "env": processes.env_of_pod(DUALPATH_NODE_NAME="spec.nodeName"),
            "resources": filled({"requests": amounts, "limits": amounts, "claims": claims}),
            "securityContext": processes.security(lock_memory=cluster.spec.fabric.rdma),
            "volumeMounts": [processes.CONFIG_MOUNT, processes.SCRATCH],
            "terminationMessagePolicy": "FallbackToLogsOnError",
        }
    )


def _affinity(cluster: Cluster, role: str, revision: str, index: int, nodes: int) -> Object:
    """Replicas of a role apart, nodes of a replica on different hosts, all within one topology domain."""
    engines = {
        "matchLabels": {names.CLUSTER_LABEL: cluster.name},
        "matchExpressions": [{"key": names.ROLE_LABEL, "operator": "Exists"}],
    }
    alike = {names.CLUSTER_LABEL: cluster.name, names.ROLE_LABEL: role}
    apart: Object = {
        "preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 50, "podAffinityTerm": _term({"matchLabels": alike}, "kubernetes.io/hostname")}
        ]
    }
    if nodes > 1:
        same = alike | {names.REVISION_LABEL: revision, names.REPLICA_LABEL: str(index)}
        apart["requiredDuringSchedulingIgnoredDuringExecution"] = [
            _term({"matchLabels": same}, "kubernetes.io/hostname")
        ]
    found: Object = {"podAntiAffinity": apart}
    placement = cluster.spec.placement
    if placement.topology_key is not None:
        term = _term(engines, placement.topology_key)
        if placement.mode == "Required":
            found["podAffinity"] = {"requiredDuringSchedulingIgnoredDuringExecution": [term]}
        else:
            weighted = [{"weight": 100, "podAffinityTerm": term}]
            found["podAffinity"] = {"preferredDuringSchedulingIgnoredDuringExecution": weighted}
    return found


def _term(selector: Object, topology_key: str) -> Object:
    return {"labelSelector": selector, "topologyKey": topology_key}


def claim_templates(cluster: Cluster, role: str) -> dict[str, Object]:
    """Name to spec of the ResourceClaimTemplates that a role's Pods need."""
    owner = fabric.claim_owner(cluster, role)
    specs = nics(cluster, role).claim_specs
    return {fabric.claim_template_name(owner, claim, spec): spec for claim, spec in specs.items()}
