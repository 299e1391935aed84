"""Pods with names and volumes of their own: what every part of a managed store is made of."""

from __future__ import annotations

from dataclasses import dataclass, field

from dualpath_operator.desired import fabric, processes
from dualpath_operator.desired.common import filled, metadata, selector
from dualpath_operator.model import Cluster, Object

_STOP_S = 60
"""Storage Pods have this long to close their files and hand over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Crew:
    """The Pods of one component. `container` is the only one, without what all containers of ours have."""

    component: str
    replicas: int
    container: Object
    ports: dict[str, int]
    fabric: fabric.PodFields = field(default_factory=lambda: fabric.PodFields(parts=[fabric.Part()]))
    lock_memory: bool = False
    volumes: list[Object] = field(default_factory=list)
    claims: list[Object] = field(default_factory=list)  # a volume of its own for each Pod


def crew_objects(cluster: Cluster, crew: Crew) -> list[Object]:
    """A headless Service, a StatefulSet, and a budget that lets one of its Pods be evicted at a time."""
    name = f"{cluster.name}-{crew.component}"
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata(cluster, name, crew.component),
            "spec": _headless(cluster, crew),
        },
        {
            "apiVersion": "apps/v1",
            "kind": "StatefulSet",
            "metadata": metadata(cluster, name, crew.component),
            "spec": _stateful_set(cluster, name, crew),
        },
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": metadata(cluster, name, crew.component),
            "spec": {"maxUnavailable": 1, "selector": {"matchLabels": selector(cluster, crew.component)}},
        },
    ]


def volume_claim(cluster: Cluster, component: str, size: str, storage_class: str | None) -> Object:
    """The claim `data` of each Pod."""
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


def _headless(cluster: Cluster, crew: Crew) -> Object:
    return {
        "clusterIP": "None",
        "publishNotReadyAddresses": True,  # members find each other before they are ready
        "selector": selector(cluster, crew.component),
        "ports": [
            {"name": key, "port": number, "targetPort": key, "protocol": "TCP"}
            for key, number in crew.ports.items()
        ],
    }


def _stateful_set(cluster: Cluster, name: str, crew: Crew) -> Object:
    return filled(
        {
            "replicas": crew.replicas,
            "serviceName": name,
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": selector(cluster, crew.component)},
            "template": {"metadata": _head(cluster, crew), "spec": _pod_spec(cluster, name, crew)},
            "volumeClaimTemplates": crew.claims,
            "persistentVolumeClaimRetentionPolicy": {
                "whenDeleted": cluster.spec.storage.retention,
                "whenScaled": "Retain",
            },
        }
    )


def _head(cluster: Cluster, crew: Crew) -> Object:
    labels = metadata(cluster, "", crew.component)["labels"]
    return filled({"labels": labels, "annotations": crew.fabric.annotations})


def _pod_spec(cluster: Cluster, name: str, crew: Crew) -> Object:
    same_host = {
        "labelSelector": {"matchLabels": selector(cluster, crew.component)},
        "topologyKey": "kubernetes.io/hostname",
    }
    apart = {
        "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": same_host}]
    }
    return filled(
        {
            **processes.pod_basics(cluster),
            "affinity": {"podAntiAffinity": apart},
            "terminationGracePeriodSeconds": _STOP_S,
            "containers": [_container(cluster, crew)],
            "volumes": crew.volumes,
            **crew.fabric.spec,
            **fabric.resource_claims(name, crew.fabric),
        }
    )


def _container(cluster: Cluster, crew: Crew) -> Object:
    on_host = crew.fabric.spec.get("hostNetwork", False)
    return filled(
        {
            "name": crew.component,
            **crew.container,
            "imagePullPolicy": cluster.spec.image_pull_policy,
            "ports": [processes.port(key, number, on_host=on_host) for key, number in crew.ports.items()],
            "securityContext": processes.security(lock_memory=crew.lock_memory),
            "terminationMessagePolicy": "FallbackToLogsOnError",
        }
    )
