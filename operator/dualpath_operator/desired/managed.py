"""The managed store: nodes that hold blocks, masters that know where, and the etcd that elects a master."""

from __future__ import annotations

from dualpath_api.spec.storage import ManagedSpec
from dualpath_api.units import format_bytes
from dualpath_operator.desired import commands, config, fabric, processes
from dualpath_operator.desired.common import filled, metadata
from dualpath_operator.desired.stateful import Crew, crew_objects, volume_claim
from dualpath_operator.model import Cluster, Object, Surroundings

_ETCD_SIZE = "2Gi"
_OVERHEAD = 1 << 30
"""A store node's memory beside the blocks that it keeps there."""
_SCRATCH_VOLUME: Object = {"name": "tmp", "emptyDir": {}}


def store_objects(cluster: Cluster, around: Surroundings, managed: ManagedSpec) -> list[Object]:
    """All objects of the store. An etcd that exists is used instead of one of ours."""
    found: list[Object] = []
    if not managed.etcd.endpoints:
        found += crew_objects(cluster, _etcd(cluster, around))
    found += crew_objects(cluster, _masters(cluster, around, managed))
    added = fabric.pod_fields(
        cluster.spec.fabric, fabric.Needs(namespace=cluster.namespace, networks=("storage",))
    )
    found += _claim_templates(cluster, added)
    return found + crew_objects(cluster, _nodes(cluster, around, managed, added))


def _etcd(cluster: Cluster, around: Surroundings) -> Crew:
    name = f"{cluster.name}-etcd"
    container: Object = {
        "image": around.images.etcd,
        "command": commands.etcd(name, f"{name}.{cluster.namespace}.svc", config.ETCD_MEMBERS),
        "env": processes.env_of_pod(POD_NAME="metadata.name"),
        "volumeMounts": [{"name": "data", "mountPath": commands.ETCD_DATA}],
        # without a quorum etcd is unhealthy, and ending it then would only make that worse: no liveness probe
        "readinessProbe": processes.http_probe("/health", "client", period_s=5, failures=3),
    }
    return Crew(
        component="etcd",
        replicas=config.ETCD_MEMBERS,
        container=container,
        ports={"client": commands.ETCD_PORT, "peer": commands.ETCD_PEER_PORT},
        claims=[volume_claim(cluster, "etcd", _ETCD_SIZE, None)],
    )


def _masters(cluster: Cluster, around: Surroundings, managed: ManagedSpec) -> Crew:
    container: Object = {
        "image": around.images.store,
        "command": commands.store_master(_etcd_addresses(cluster), managed.medium),
        "env": _who_they_are(),
        "volumeMounts": [processes.SCRATCH],
        **processes.probes("metrics", ready="/readyz"),
    }
    return Crew(
        component="master",
        replicas=managed.masters,
        container=container,
        ports={"rpc": commands.MASTER_PORT, "metrics": commands.STORE_METRICS_PORT},
        volumes=[_SCRATCH_VOLUME],
    )


def _nodes(cluster: Cluster, around: Surroundings, managed: ManagedSpec, added: fabric.PodFields) -> Crew:
    (part,) = added.parts
    size, dram = format_bytes(managed.size), managed.medium == "DRAM"
    amounts = {name: str(count) for name, count in part.resources.items()}
    if dram:
        amounts["memory"] = format_bytes(managed.size + _OVERHEAD)
    nics = [rule["match"] for rule in config.nic_rules(cluster) if rule["role"] == "storage"]
    rdma = cluster.spec.fabric.rdma and bool(nics)  # engines without such a rule use TCP, too
    container: Object = {
        "image": around.images.store,
        "command": commands.store_node(
            _etcd_addresses(cluster), managed.medium, managed.size, nics, rdma=rdma
        ),
        "env": _who_they_are(),
        "resources": filled({"requests": amounts, "limits": amounts, "claims": part.claims}),
        "volumeMounts": [processes.SCRATCH, {"name": "data", "mountPath": commands.STORE}],
        **processes.probes("metrics", ready="/readyz"),
    }
    in_memory: Object = {"name": "data", "emptyDir": {"medium": "Memory", "sizeLimit": size}}
    own_volume = volume_claim(cluster, "store", size, managed.storage_class_name)
    return Crew(
        component="store",
        replicas=managed.replicas,
        container=container,
        ports={"data": commands.STORE_PORT, "metrics": commands.STORE_METRICS_PORT},
        fabric=added,
        lock_memory=cluster.spec.fabric.rdma,
        volumes=[in_memory, _SCRATCH_VOLUME] if dram else [_SCRATCH_VOLUME],
        claims=[] if dram else [own_volume],
    )


def _claim_templates(cluster: Cluster, added: fabric.PodFields) -> list[Object]:
    owner = f"{cluster.name}-store"
    return [
        {
            "apiVersion": "resource.k8s.io/v1",
            "kind": "ResourceClaimTemplate",
            "metadata": metadata(cluster, fabric.claim_template_name(owner, claim, spec), "store"),
            "spec": {"spec": spec},
        }
        for claim, spec in added.claim_specs.items()
    ]


def _etcd_addresses(cluster: Cluster) -> str:
    return ",".join(config.etcd_endpoints(cluster))


def _who_they_are() -> list[Object]:
    return processes.env_of_pod(DUALPATH_POD_NAME="metadata.name", DUALPATH_POD_IP="status.podIP")
