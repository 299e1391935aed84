"""Specs, their objects, and objects as flat paths: what the tests of rendering share."""

from __future__ import annotations

import json
import re

from unit.operator.coverage_readings import readings, wanted_by

from dualpath_api.loading import build_cluster
from dualpath_operator.desired import engine_pod, objects, revision_of
from dualpath_operator.model import INTENT, OPTIONAL_KINDS, Cluster, Surroundings
from dualpath_operator.names import ROLES
from dualpath_operator.wanted import owned_replicas

UID = "11111111-2222-3333-4444-555555555555"
GROUP_UID = "66666666-7777-8888-9999-000000000000"
AROUND = Surroundings(kinds=frozenset(OPTIONAL_KINDS))

ROLE = {"resources": {"dramBuffer": "256Mi", "kvCache": "256Mi"}}
LOCAL = {
    "model": {"uri": "file:///models/qwen", "servedName": "qwen"},
    "prefill": ROLE,
    "decode": ROLE,
    "storage": {"files": {"size": "4Gi"}},
}
LARGE = {
    "parallelism": {"data": 8},
    "resources": {"gpus": 8, "cpu": "64", "memory": "900Gi", "dramBuffer": "400Gi", "kvCache": "80Gi"},
}
HUB = {"uri": "hf://Qwen/Qwen3-235B-A22B", "revision": "5d1a3f0", "servedName": "qwen3"}
DRA = {
    "mode": "DRA",
    "rdma": True,
    "compute": {"deviceClass": "rdma-nic", "count": 8},
    "storage": {"deviceClass": "storage-nic"},
}
MULTUS = {
    "mode": "Multus",
    "compute": {"network": "cnic", "count": 2},
    "storage": {"network": "fabric/snic", "resourceName": "example.com/snic"},
}
DEVICE_PLUGIN = {
    "mode": "DevicePlugin",
    "rdma": True,
    "compute": {"resourceName": "example.com/cnic", "count": 8},
    "storage": {"resourceName": "example.com/snic"},
}
MANAGED = {
    **LOCAL,
    "model": {**HUB, "secretRef": {"name": "hf-token"}, "cache": {"claimName": "models"}},
    "prefill": LARGE,
    "decode": LARGE,
    "storage": {"managed": {"size": "20Ti", "medium": "NVMe", "storageClassName": "local-nvme"}},
    "fabric": {**DRA, "gpuDeviceClass": "gpu.nvidia.com"},
    "placement": {"topologyKey": "topology.kubernetes.io/rack"},
    "ingress": {"httpRoute": {"parentRefs": [{"name": "inference-gw"}]}},
}
NODES = {
    **LOCAL,
    "model": {"uri": "pvc://checkpoints/qwen", "servedName": "qwen"},
    "prefill": {**ROLE, "parallelism": {"data": 2, "nodes": 2}},
    "fabric": MULTUS,
    "storage": {"external": {"endpoints": ["store.infra:2379"]}},
}
FABRICS = {
    "None": {},
    "HostNetwork": {"mode": "HostNetwork", "rdma": True},
    "Multus": MULTUS,
    "DevicePlugin": DEVICE_PLUGIN,
    "DRA": DRA,
}


def cluster_of(spec: dict, name: str = "qwen", namespace: str = "team-a") -> Cluster:
    data = {
        "apiVersion": "dualpath.io/v1alpha1",
        "kind": "DualPathCluster",
        "metadata": {"name": name, "namespace": namespace},
        "spec": json.loads(json.dumps(spec)),
    }
    read = build_cluster(data, source="test").spec
    return Cluster(namespace=namespace, name=name, uid=UID, generation=1, spec=read)


def revision(cluster: Cluster, around: Surroundings = AROUND) -> str:
    return revision_of(cluster, around)


def rendered(cluster: Cluster, around: Surroundings = AROUND, replicas=None) -> list[dict]:
    """All objects of a cluster, and the Pods of one replica of each role."""
    rev = revision_of(cluster, around)
    counts = {"prefill": 1, "decode": 1} if replicas is None else replicas
    return [
        *objects(cluster, around, rev, counts),
        *(
            engine_pod(cluster, around, role, rev, 0, node, GROUP_UID)
            for role in ROLES
            for node in range(getattr(cluster.spec, role).parallelism.nodes)
        ),
    ]


def pod_of(spec: dict, role: str = "decode", index: int = 0, node: int = 0) -> dict:
    cluster = cluster_of(spec)
    return engine_pod(cluster, AROUND, role, revision(cluster), index, node, GROUP_UID)


def found(items: list[dict], kind: str, name: str) -> dict:
    (item,) = (item for item in items if item["kind"] == kind and item["metadata"]["name"] == name)
    return item


def changed(spec: dict, path: str, value: object) -> dict:
    """A copy of the spec with one field set, by its dotted path; `[]` is the first item of a list."""
    copied = json.loads(json.dumps(spec))  # unlike deepcopy, it shares nothing between roles
    *above, last = path.removeprefix("spec.").split(".")
    place = copied
    for step in above:
        if step.endswith("[]"):
            items = place.setdefault(step.removesuffix("[]"), [{}])
            place = items[0]
        else:
            place = place.setdefault(step, {})
    place[last] = value
    return copied


def differences(before: Cluster, after: Cluster) -> set[str]:
    """Where two clusters differ in their objects, and in what the operator makes of them beside.

    `Pod NAME-prefill-REV-0 spec.containers[engine].image`; what exists on one side only is one place. Hashes of
    content and names made of them are not looked at.
    """
    found: set[str] = set()
    old, new = _readable(before), _readable(after)
    for key in old.keys() | new.keys():
        if key in old and key in new:
            _compare(old[key], new[key], f"{key} ", found)
        else:
            found.add(key)
    return found


def _readable(cluster: Cluster) -> dict[str, dict]:
    """Objects by kind and name, with cluster.json as JSON."""
    items = rendered(cluster, replicas=owned_replicas(cluster, wanted_by(cluster)))
    text = json.dumps(items).replace(revision(cluster), "REV")
    items = json.loads(re.sub(r"-(compute|storage)-[0-9a-f]{8}\b", r"-\1-HASH", text))
    for item in items:
        item["metadata"]["annotations"].pop(INTENT)
        if config := item.get("data", {}).get("cluster.json"):
            item["data"] = {"cluster.json": json.loads(config)}
    found = {
        f"{item['kind']} {item['metadata']['name'].replace(cluster.name, 'NAME')}": item for item in items
    }
    return found | readings(cluster)


def _compare(old: object, new: object, path: str, found: set[str]) -> None:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in old.keys() | new.keys():
            _compare(old.get(key), new.get(key), f"{path}{'' if path.endswith(' ') else '.'}{key}", found)
    elif _named(old) and _named(new):
        by_name = [{_name(item): item for item in items} for items in (old, new)]
        for name in by_name[0].keys() | by_name[1].keys():
            _compare(by_name[0].get(name), by_name[1].get(name), f"{path}[{name}]", found)
    elif old != new:
        found.add(path.strip())


def _named(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) and _name(item) for item in value)


def _name(item: dict) -> str | None:
    return item.get("name") or item.get("mountPath")
