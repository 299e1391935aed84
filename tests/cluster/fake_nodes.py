"""Nodes and volumes that exist only in the API: kwok plays the kubelet, and can be told to lose a node."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count

from kube_api import Kube, Object
from kwok_stages import NODE_LABEL, NODE_VALUE
from waiting import until

STORAGE_CLASS = "test-files"


class FakeNodes:
    """The nodes that kwok runs in one cluster."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._numbers = count()

    def add(
        self, nodes: int, *, pods: int = 250, gpus: int = 8, labels: Mapping[str, str] | None = None
    ) -> list[str]:
        """Add nodes with room for `pods` pods and `gpus` GPUs each; their names. They are Ready within a second."""
        return [self._add(next(self._numbers), pods, gpus, labels or {}) for _ in range(nodes)]

    def lose(self, name: str) -> None:
        """The node falls silent: it is Unknown and tainted, and its pods are not Ready, as after its lease ran out."""
        self._kube.patch("nodes", name, {"metadata": {"labels": {NODE_LABEL: "lost"}}})
        silent = {"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}
        self._kube.patch("nodes", name, _conditions(silent), subresource="status", kind="strategic")
        until(lambda: self._unreachable(name), 60, what=f"the taint of {name}, which is lost")
        for body in self._kube.all("pods"):
            if body["spec"].get("nodeName") == name:
                lost = {"type": "Ready", "status": "False", "reason": "NodeNotReady"}
                where = body["metadata"]["name"], _conditions(lost), body["metadata"]["namespace"]
                self._kube.patch("pods", *where, "status", kind="strategic")

    def restore(self, name: str) -> None:
        """The node is back: kwok makes it Ready and deals with what happened meanwhile."""
        self._kube.patch("nodes", name, {"metadata": {"labels": {NODE_LABEL: NODE_VALUE}}})

    def remove(self, name: str) -> None:
        """The node object goes; the control plane then deletes its pods."""
        self._kube.delete("nodes", name)

    def _unreachable(self, name: str) -> bool:
        taints = self._kube.get("nodes", name)["spec"].get("taints", [])
        return any(taint["key"] == "node.kubernetes.io/unreachable" for taint in taints)

    def _add(self, number: int, pods: int, gpus: int, labels: Mapping[str, str]) -> str:
        name = f"fake-{number}"
        room = {
            "cpu": "10k",
            "memory": "1Pi",
            "ephemeral-storage": "1Pi",
            "pods": str(pods),
            "nvidia.com/gpu": str(gpus),
        }
        topology = {
            "kubernetes.io/hostname": name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": "amd64",
        }
        address = f"10.199.{number // 250}.{number % 250 + 1}"
        metadata = {
            "name": name,
            "labels": {NODE_LABEL: NODE_VALUE, **topology, **labels},
            "annotations": {"test.dualpath.io/address": address},
        }
        self._kube.create(
            {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": metadata,
                "status": {"capacity": room, "allocatable": room},
            }
        )
        return name


def _conditions(*conditions: Object) -> Object:
    return {"status": {"conditions": list(conditions)}}


def add_volumes(kube: Kube, volumes: int) -> None:
    """A default storage class with that many volumes of 1 PiB; a claim binds to one, and gives it back when deleted."""
    kube.apply(
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {
                "name": STORAGE_CLASS,
                "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
            },
            "provisioner": "kubernetes.io/no-provisioner",
        }
    )
    for number in range(volumes):
        kube.apply(_volume(f"fake-{number}"))


def _volume(name: str) -> Object:
    spec = {
        "storageClassName": STORAGE_CLASS,
        "capacity": {"storage": "1Pi"},
        "accessModes": ["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany"],
        "persistentVolumeReclaimPolicy": "Retain",
        "hostPath": {"path": f"/nowhere/{name}"},
    }
    return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": spec}
