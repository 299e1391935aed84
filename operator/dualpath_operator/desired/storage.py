"""Objects of spec.storage: a claim for a directory, or a store of masters, nodes and their etcd."""

from __future__ import annotations

from dualpath_api.spec.storage import ManagedSpec
from dualpath_api.units import format_bytes
from dualpath_operator.desired import commands, config, fabric, processes
from dualpath_operator.desired.common import filled, metadata, selector
from dualpath_operator.desired.fabric import Needs, PodFields
from dualpath_operator.model import Cluster, Object, Surroundings

STORE, MASTER, ETCD = "store", "master", "etcd"
_ETCD_SIZE = "2Gi"
_OVERHEAD = 1 << 30
"""A store node's memory beside the blocks that it keeps there."""
_STOP_S = 60
"""Storage Pods have this long to close their files and hand over."""


def storage_objects(cluster: Cluster, around: Surroundings) -> list[Object]:
    """All objects of the spec's kind of storage; none for an external store."""
    storage = cluster.spec.storage
    if storage.files is not None and storage.files.claim_name is None:
        return [_claim(cluster)]
    if storage.managed is None:
        return []
    managed = storage.managed
    found: list[Object] = []
    if not managed.etcd.endpoints:
        found += _etcd(cluster, around)
    return found + _masters(cluster, around, managed) + _nodes(cluster, around, managed)


def claim_name(cluster: Cluster) -> str:
    """The claim for a directory."""
    return f"{cluster.name}-{STORE}"


def _claim(cluster: Cluster) -> Object:
    """NAME-store. With retention Retain nothing owns it: the next cluster of that name finds its blocks."""
    storage = cluster.spec.storage
    assert storage.files is not None
    spec: Object = {
        "accessModes": ["ReadWriteMany"],
        "resources": {"requests": {"storage": format_bytes(storage.files.size)}},
        "volumeMode": "Filesystem",
    }
    if storage.files.storage_class_name is not None:
        spec["storageClassName"] = storage.files.storage_class_name
    owned = storage.retention == "Delete"
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata(cluster, claim_name(cluster), STORE, owned=owned),
        "spec": spec,
    }


# ---------------------------------------------------------------- the managed store


def _etcd(cluster: Cluster, around: Surroundings) -> list[Object]:
    name = f"{cluster.name}-{ETCD}"
    ports = {"client": commands.ETCD_PORT, "peer": commands.ETCD_PEER_PORT}
    health = processes.http_probe("/health", "client", period_s=5, failures=3)
    container: Object = {
        "name": ETCD,
        "image": around.images.etcd,
        "command": commands.etcd(name, f"{name}.{cluster.namespace}.svc", config.ETCD_MEMBERS),
        "env": processes.env_of_pod(POD_NAME="metadata.name"),
        "volumeMounts": [{"name": "data", "mountPath": commands.ETCD_DATA}],
        # without a quorum etcd is unhealthy, and ending it then would only make that worse: no liveness probe
        "readinessProbe": health,
    }
    claims = [_volume_claim(cluster, ETCD, _ETCD_SIZE, None)]
    parts = PodFields(parts=[fabric.Part()])
    return _set_of_pods(cluster, ETCD, config.ETCD_MEMBERS, container, ports, parts, claims=claims)


def _masters(cluster: Cluster, around: Surroundings, managed: ManagedSpec) -> list[Object]:
    ports = {"rpc": commands.MASTER_PORT, "metrics": commands.STORE_METRICS_PORT}
    container: Object = {
        "name": MASTER,
        "image": around.images.store,
        "command": commands.store_master(",".join(config.etcd_endpoints(cluster))),
        "env": processes.env_of_pod(DUALPATH_POD_NAME="metadata.name", DUALPATH_POD_IP="status.podIP"),
        "volumeMounts": [processes.SCRATCH],
        **processes.probes("metrics", ready="/readyz"),
    }
    parts = PodFields(parts=[fabric.Part()])
    return _set_of_pods(cluster, MASTER, managed.masters, container, ports, parts, scratch=True)


def _nodes(cluster: Cluster, around: Surroundings, managed: ManagedSpec) -> list[Object]:
    ports = {"data": commands.STORE_PORT, "metrics": commands.STORE_METRICS_PORT}
    added = fabric.pod_fields(cluster.spec.fabric, Needs(namespace=cluster.namespace, networks=("storage",)))
    dram = managed.medium == "DRAM"
    devices = {name: str(count) for name, count in added.parts[0].resources.items()}
    memory = {"memory": format_bytes(managed.size + _OVERHEAD)} if dram else {}
    container: Object = {
        "name": STORE,
        "image": around.images.store,
        "command": commands.store_node(
            ",".join(config.etcd_endpoints(cluster)), managed.medium, managed.size
        ),
        "env": processes.env_of_pod(DUALPATH_POD_NAME="metadata.name", DUALPATH_POD_IP="status.podIP"),
        "resources": filled(
            {
                "requests": {**devices, **memory},
                "limits": {**devices, **memory},
                "claims": added.parts[0].claims,
            }
        ),
        "volumeMounts": [processes.SCRATCH, {"name": "data", "mountPath": commands.STORE}],
        **processes.probes("metrics", ready="/readyz"),
    }
    volumes, claims = [], []
    if dram:
        in_memory = {"medium": "Memory", "sizeLimit": format_bytes(managed.size)}
        volumes.append({"name": "data", "emptyDir": in_memory})
    else:
        claims.append(_volume_claim(cluster, STORE, format_bytes(managed.size), managed.storage_class_name))
    templates = [
        {
            "apiVersion": "resource.k8s.io/v1",
            "kind": "ResourceClaimTemplate",
            "metadata": metadata(
                cluster, fabric.claim_template_name(f"{cluster.name}-{STORE}", claim, spec), STORE
            ),
            "spec": {"spec": spec},
        }
        for claim, spec in added.claim_specs.items()
    ]
    pods = _set_of_pods(
        cluster,
        STORE,
        managed.replicas,
        container,
        ports,
        added,
        claims=claims,
        volumes=volumes,
        scratch=True,
    )
    return templates + pods


def _set_of_pods(
    cluster: Cluster,
    component: str,
    replicas: int,
    container: Object,
    ports: dict[str, int],
    added: PodFields,
    *,
    claims: list[Object] | None = None,
    volumes: list[Object] | None = None,
    scratch: bool = False,
) -> list[Object]:
    """A headless Service, a StatefulSet and a budget that lets one of its Pods be evicted at a time."""
    name = f"{cluster.name}-{component}"
    on_host = added.spec.get("hostNetwork", False)
    mine = selector(cluster, component)
    container = container | {
        "imagePullPolicy": cluster.spec.image_pull_policy,
        "ports": [processes.port(key, number, on_host=on_host) for key, number in ports.items()],
        "securityContext": processes.security(lock_memory=cluster.spec.fabric.rdma and component == STORE),
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    spread = [{"weight": 100, "podAffinityTerm": _same_host(mine)}]
    pod_spec = filled(
        {
            **processes.pod_basics(cluster),
            "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": spread}},
            "terminationGracePeriodSeconds": _STOP_S,
            "containers": [filled(container)],
            "volumes": [*(volumes or []), *([{"name": "tmp", "emptyDir": {}}] if scratch else [])],
            **added.spec,
            **fabric.resource_claims(name, added),
        }
    )
    head = filled({"labels": metadata(cluster, "", component)["labels"], "annotations": added.annotations})
    retention = cluster.spec.storage.retention
    stateful = filled(
        {
            "replicas": replicas,
            "serviceName": name,
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": mine},
            "template": {"metadata": head, "spec": pod_spec},
            "volumeClaimTemplates": claims,
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": retention, "whenScaled": "Retain"},
        }
    )
    return [
        _headless(cluster, name, component, ports),
        {
            "apiVersion": "apps/v1",
            "kind": "StatefulSet",
            "metadata": metadata(cluster, name, component),
            "spec": stateful,
        },
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": metadata(cluster, name, component),
            "spec": {"maxUnavailable": 1, "selector": {"matchLabels": mine}},
        },
    ]


def _same_host(labels: dict[str, str]) -> Object:
    return {"labelSelector": {"matchLabels": labels}, "topologyKey": "kubernetes.io/hostname"}


def _headless(cluster: Cluster, name: str, component: str, ports: dict[str, int]) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(cluster, name, component),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,  # members find each other before they are ready
            "selector": selector(cluster, component),
            "ports": [
                {"name": key, "port": number, "targetPort": key, "protocol": "TCP"}
                for key, number in ports.items()
            ],
        },
    }


def _volume_claim(cluster: Cluster, component: str, size: str, storage_class: str | None) -> Object:
    spec: Object = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": size}},
        "volumeMode": "Filesystem",
    }
    if storage_class is not None:
        spec["storageClassName"] = storage_class
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data", "labels": metadata(cluster, "", component)["labels"]},
        "spec": spec,
    }
