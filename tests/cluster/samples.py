"""Samples of DualPathClusters: good ones that together have every field, and a bad one for every rule of the API."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from dualpath_api.cluster import MAX_NAME

Object = dict[str, Any]
EXAMPLES = Path(__file__).parents[2] / "examples"

MEMORY = {"dramBuffer": "256Mi", "kvCache": "256Mi"}
MINIMAL: Object = {
    "model": {"uri": "file:///models/qwen", "servedName": "qwen"},
    "prefill": {"resources": MEMORY},
    "decode": {"resources": MEMORY},
    "storage": {"files": {"size": "4Gi"}},
}
TEMPLATE = {
    "metadata": {"labels": {"team": "a"}, "annotations": {"team/page": "a"}},
    "spec": {"priorityClassName": "high", "containers": [{"name": "engine", "env": [{"name": "A"}]}]},
}


def _role(scaling: Object, **further: Object) -> Object:
    resources = {
        **MEMORY,
        "gpus": 8,
        "gpuResource": "nvidia.com/gpu",
        "cpu": "500m",
        "memory": "900Gi",
    }
    parallelism = {"data": 8, "nodes": 2}
    return {
        "scaling": scaling,
        "parallelism": parallelism,
        "resources": resources,
        "podTemplate": TEMPLATE,
        **further,
    }


PLANNED = {"mode": "Planner", "replicas": 1, "minReplicas": 1, "maxReplicas": 8}
_FULL: Object = {
    "model": {
        "uri": "hf://org/name",
        "revision": "v1",
        "servedName": "qwen/3:latest",
        "dtype": "float32",
        "secretRef": {"name": "hub", "key": "token"},
        "cache": {"claimName": "models"},
    },
    "image": "dualpath/worker:0.1.0",
    "imagePullPolicy": "Always",
    "imagePullSecrets": [{"name": "one"}, {"name": "two"}],
    "kv": {"blockTokens": 128},
    "prefill": _role(PLANNED, batching={"computeQuota": "0.3s", "maxTokens": 8192}),
    "decode": _role(PLANNED),
    "gateway": {
        "cpu": 2,
        "memory": "4Gi",
        "image": "dualpath/gateway:0.1.0",
        "service": {"type": "LoadBalancer", "annotations": {"a": "b"}},
        "podTemplate": {**TEMPLATE, "spec": {"nodeSelector": {"zone": "a"}}},
    },
    "storage": {
        "files": {"path": "/kv", "size": "4Gi", "claimName": "kv", "storageClassName": "nfs"},
        "dramTier": {"size": "2Gi"},
        "domain": "team/shared",
        "retention": "Delete",
    },
    "pathPolicy": {
        "mode": "Split",
        "decodeShare": {"initialPermille": 500, "minPermille": 100, "maxPermille": 900},
        "retune": {
            "enabled": False,
            "interval": "5s",
            "maxStepPermille": 10,
            "deadbandPermille": 5,
            "staleAfter": "1m",
        },
    },
    "fabric": {
        "mode": "DRA",
        "compute": {"network": "ns/c", "resourceName": "a.b/c", "deviceClass": "nic", "count": 8},
        "storage": {"network": "s", "resourceName": "a.b/s", "deviceClass": "snic", "count": 1},
        "gpuDeviceClass": "gpu.example",
        "rdma": True,
        "preflight": False,
        "onMismatch": "Degrade",
        "trafficClasses": {
            "kv": {"serviceLevel": 2, "dscp": 10},
            "inference": {"serviceLevel": 5, "dscp": 46},
        },
        "leastBandwidthPermille": 800,
        "localCopies": "Nic",
    },
    "nics": [{"role": "storage", "match": "eth*", "linkBps": 400000000000}],
    "hardware": {"computeNics": 8, "computeNicBytes": 50000, "storageBytes": 50000, "dramBytes": 500000},
    "gpuBudget": 128,
    "rollout": {
        "strategy": "Recreate",
        "maxSurge": 2,
        "maxUnavailable": 1,
        "progressDeadline": "1h",
    },
    "drain": {"deadline": "10m"},
    "disruption": {"maxUnavailable": 2},
    "placement": {"topologyKey": "rack", "mode": "Required"},
    "security": {"networkPolicy": "None"},
    "ingress": {
        "inferencePool": {"enabled": True, "failureMode": "FailOpen", "endpointPicker": "picker"},
        "httpRoute": {"parentRefs": [{"name": "gw", "namespace": "infra"}], "hostnames": ["*.a.example"]},
    },
    "observability": {"podMonitor": "Never", "logFormat": "text"},
    "restart": {"id": "2026-01-01T00:00"},
    "suspend": True,
    "paused": True,
}
MANAGED = {
    "replicas": 5,
    "masters": 3,
    "size": "20Ti",
    "medium": "NVMe",
    "copies": 3,
    "storageClassName": "nvme",
    "etcd": {"endpoints": ["a.infra:2379"]},
}


def cluster(spec: Mapping[str, Any], name: str = "sample", namespace: str = "default") -> Object:
    """The resource of a spec; a copy of its own."""
    return {
        "apiVersion": "dualpath.io/v1alpha1",
        "kind": "DualPathCluster",
        "metadata": {"name": name, "namespace": namespace},
        "spec": json.loads(json.dumps(spec)),
    }


def changed(spec: Mapping[str, Any], changes: Mapping[str, Any]) -> Object:
    """A copy with fields set by their dotted path; None removes one. `a[0].b` goes into a list's item."""
    made: Object = json.loads(json.dumps(spec))
    for path, value in changes.items():
        place: Any = made
        *above, last = path.replace("[", ".[").split(".")
        for step, after in zip(above, [*above, last][1:], strict=True):
            if step.startswith("["):
                place = place[int(step[1:-1])]
            else:
                place = place.setdefault(step, [{}] if after.startswith("[") else {})
        if last.startswith("["):
            place[int(last[1:-1])] = copy.deepcopy(value)
        elif value is None:
            place.pop(last, None)
        else:
            place[last] = copy.deepcopy(value)
    return made


def good() -> dict[str, Object]:
    """Specs that are acceptable; together they have every field."""
    specs = {
        "minimal": MINIMAL,
        "full": _FULL,
        "managed": changed(
            _FULL, {"storage.files": None, "storage.managed": MANAGED, "model.cache": {"hostPath": "/m"}}
        ),
        "external": changed(MINIMAL, {"storage": {"external": {"endpoints": ["[::1]:1", "a:65535"]}}}),
    }
    for file in sorted(EXAMPLES.glob("*.yaml")):
        for body in yaml.safe_load_all(file.read_text()):
            if body and body["kind"] == "DualPathCluster":
                specs[f"{file.name}:{body['metadata']['name']}"] = body["spec"]
    return specs


@dataclass(frozen=True, slots=True, kw_only=True)
class Bad:
    """A sample that just one rule refuses: the one with this message, at this path. `also`: or more.

    `spec` are changes of the minimal spec. `then` are those that make the good result bad, for rules about changes.
    """

    path: str
    message: str
    spec: Mapping[str, Any] = field(default_factory=dict)
    then: Mapping[str, Any] | None = None
    name: str = "sample"
    also: bool = False

    def __str__(self) -> str:
        return f"{self.path or 'name'}: {self.message[:40]}"


NAME = (
    f"the name must be at most {MAX_NAME} lower-case letters, digits and '-', and start with a letter; "
    "it becomes part of host names"
)
HUB = {"model.uri": "hf://org/name"}
PLANNER = {f"{role}.scaling": {"mode": "Planner", "maxReplicas": 4} for role in ("prefill", "decode")}


def _unchangeable(path: str, message: str, spec: Mapping[str, Any], then: Mapping[str, Any]) -> Bad:
    return Bad(path=path, message=f"{message} cannot be changed; make another DualPathCluster",
               spec=spec, then=then)  # fmt: skip


def _of_roles() -> Iterator[Bad]:
    for role in ("prefill", "decode"):
        at = f"spec.{role}"
        yield Bad(path=at, spec={f"{role}.resources.gpus": 3, f"{role}.parallelism.data": 2},
                  message="resources.gpus is no multiple of parallelism.data; every rank gets as many GPUs")  # fmt: skip
        at = f"spec.{role}.scaling"
        yield Bad(path=at, spec={f"{role}.scaling.minReplicas": 1},
                  message="minReplicas and maxReplicas are for mode Planner; remove them or set mode: Planner")  # fmt: skip
        yield Bad(path=at, spec={**PLANNER, f"{role}.scaling": {"mode": "Planner"}},
                  message="mode Planner needs maxReplicas; add it")  # fmt: skip
        yield Bad(path=at, spec={**PLANNER, f"{role}.scaling.minReplicas": 5},
                  message="minReplicas is larger than maxReplicas; swap them")  # fmt: skip
        for size in ("dramBuffer", "kvCache", "memory"):
            yield Bad(path=f"spec.{role}.resources.{size}", spec={f"{role}.resources.{size}": "1M"},
                      message="it must be at least 1Mi")  # fmt: skip


def _of_fabric() -> Iterator[Bad]:
    for mode, needed in (("Multus", "network"), ("DevicePlugin", "resourceName"), ("DRA", "deviceClass")):
        half = {"fabric": {"mode": mode, "compute": {"network": "a", "resourceName": "a/b", "deviceClass": "a"},
                           "storage": {"count": 1}}}  # fmt: skip
        message = f"mode {mode} needs {needed} in both compute and storage; add it"
        yield Bad(path="spec.fabric", message=message, spec=half)
    yield Bad(path="spec.fabric", spec={"fabric": {"mode": "HostNetwork", "compute": {"network": "a"}}},
              message="compute and storage are for modes Multus, DevicePlugin and DRA; remove them")  # fmt: skip
    yield Bad(path="spec.fabric", spec={"fabric.rdma": True},
              message="rdma needs NICs; set mode to HostNetwork, Multus, DevicePlugin or DRA")  # fmt: skip
    yield Bad(path="spec.fabric", spec={"fabric": {"mode": "HostNetwork", "gpuDeviceClass": "g"}},
              message="gpuDeviceClass is for mode DRA; remove it")  # fmt: skip
    for alike in ({"kv": {"dscp": 32}}, {"kv": {"serviceLevel": 3}, "inference": {"serviceLevel": 3}}):
        yield Bad(path="spec.fabric.trafficClasses", spec={"fabric.trafficClasses": alike},
                  message="kv and inference have the same mark; give each its own serviceLevel and dscp")  # fmt: skip


def _of_limits() -> Iterator[Bad]:
    for path, low, high in (
        ("pathPolicy.retune.interval", "1s", "1h"),
        ("pathPolicy.retune.staleAfter", "1s", "24h"),
        ("rollout.progressDeadline", "1s", "168h"),
        ("drain.deadline", "1s", "24h"),
    ):
        stale, of_interval = path.endswith("staleAfter"), path.endswith("interval")
        along = {"pathPolicy.retune.staleAfter": "24h"} if of_interval else {}
        above = "2h" if of_interval else "200h"
        # so short is shorter than any interval
        yield Bad(path=f"spec.{path}", spec={**along, path: "999ms"}, message=f"it must be at least {low}",
                  also=stale)  # fmt: skip
        yield Bad(path=f"spec.{path}", spec={**along, path: above}, message=f"it must be at most {high}")
    yield Bad(path="spec.prefill.batching.computeQuota", message="it must be more than 0s",
              spec={"prefill.batching.computeQuota": "0.0ms"})  # fmt: skip


_STORAGE_KIND = "the kind of storage"
BAD: tuple[Bad, ...] = (
    Bad(path="", message=NAME, name="a" * 41),
    Bad(path="", message=NAME, name="4a"),
    Bad(path="", message=NAME, name="a.b"),
    Bad(path="spec", spec={"prefill.scaling": {"mode": "Planner", "maxReplicas": 4}},
        message="mode Planner sizes prefill and decode together; set it for both roles or for neither"),
    Bad(path="spec", spec={"decode.scaling.replicas": 0},
        message="prefill and decode serve together; set both replicas to 0 or neither"),
    Bad(path="spec", spec={"decode.parallelism.nodes": 2},
        message="groups of several nodes need a compute network; set fabric.mode"),
    *(Bad(path="spec.model", spec={"model.uri": uri},
          message="model.uri is none of file:///absolute/path, hf://org/name and pvc://claim/path; "
                  "write one of them, without '.' or '..'")
      for uri in ("/models/qwen", "file://", "file:///a/../b", "hf://name", "hf://a/b/c", "pvc://", "s3://a/b")),
    Bad(path="spec.model", spec={"model.revision": "main"},
        message="revision is for hf:// models, a directory has none; remove revision"),
    Bad(path="spec.model", spec={"model.secretRef": {"name": "a"}},
        message="secretRef is the hub's token, only hf:// models need one; remove secretRef"),
    Bad(path="spec.model", spec={"model.cache": {"claimName": "a"}},
        message="cache keeps hf:// models, other models need none; remove cache"),
    *(Bad(path="spec.model.cache", spec={**HUB, "model.cache": cache},
          message="the model cache is one of claimName and hostPath; keep one of them")
      for cache in ({}, {"claimName": "a", "hostPath": "/a"})),
    _unchangeable("spec.model", "model.uri", {}, {"model.uri": "file:///models/other"}),
    _unchangeable("spec.model", "model.dtype", {}, {"model.dtype": "float32"}),
    _unchangeable("spec.kv", "kv.blockTokens", {}, {"kv.blockTokens": 32}),
    *_of_roles(),
    *_of_fabric(),
    *_of_limits(),
    *(Bad(path=f"spec.{path}", spec={path: -1}, message="it must be at least 0")
      for path in ("gateway.cpu", "prefill.resources.cpu", "decode.resources.cpu")),
    Bad(path="spec.gateway.memory", spec={"gateway.memory": 1000}, message="it must be at least 1Mi"),
    Bad(path="spec.storage.files.size", spec={"storage.files.size": "0"}, message="it must be at least 1Mi"),
    Bad(path="spec.storage.dramTier.size", spec={"storage.dramTier": {"size": "0.5Mi"}},
        message="it must be at least 1Mi"),
    Bad(path="spec.storage.managed.size", spec={"storage": {"managed": {"size": "0.5Mi"}}},
        message="it must be at least 1Mi"),
    *(Bad(path=f"spec.storage.{path}", spec={"storage": kind},
          message="the port of an endpoint is from 1 to 65535; correct it")
      for port in ("0", "65536", "99999")
      for path, kind in (("external", {"external": {"endpoints": [f"[::1]:{port}"]}}),
                         ("managed.etcd", {"managed": {"size": "1Gi", "etcd": {"endpoints": [f"e:{port}"]}}}))),
    *(Bad(path="spec.storage", spec={"storage": kinds},
          message="storage is exactly one of files, managed and external; keep one of them")
      for kinds in ({}, {"files": {"size": "1Gi"}, "managed": {"size": "1Gi"}})),
    _unchangeable("spec.storage", _STORAGE_KIND, {}, {"storage": {"managed": {"size": "1Gi"}}}),
    Bad(path="spec.storage.managed", spec={"storage": {"managed": {"size": "1Gi", "replicas": 1}}},
        message="copies is larger than replicas; a store node holds a block at most once"),
    Bad(path="spec.storage.managed", spec={"storage": {"managed": {"size": "1Gi", "storageClassName": "a"}}},
        message="storageClassName is for medium NVMe; remove it or set medium: NVMe"),
    Bad(path="spec.pathPolicy.decodeShare", spec={"pathPolicy.decodeShare": {"minPermille": 9, "maxPermille": 8}},
        message="decodeShare.minPermille is larger than maxPermille; swap them"),
    Bad(path="spec.pathPolicy.decodeShare",
        spec={"pathPolicy.decodeShare": {"initialPermille": 9, "maxPermille": 8}},
        message="decodeShare.initialPermille lies outside minPermille to maxPermille; move it inside"),
    Bad(path="spec.pathPolicy.retune", spec={"pathPolicy.retune.staleAfter": "9s"},
        message="retune.staleAfter is shorter than retune.interval; make it at least as long"),
    Bad(path="spec.rollout", spec={"rollout.maxSurge": 0},
        message="maxSurge and maxUnavailable are both 0, so nothing could ever be replaced; raise one"),
    Bad(path="spec.ingress.inferencePool", spec={"ingress.inferencePool.enabled": True},
        message="an InferencePool needs endpointPicker; name the picker's Service"),
)  # fmt: skip
