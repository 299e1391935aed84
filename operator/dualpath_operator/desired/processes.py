"""Parts that all our Pods have: users, scratch directories, the token, probes, the environment."""

from __future__ import annotations

from typing import Any

from dualpath_operator import names
from dualpath_operator.desired import commands
from dualpath_operator.desired.common import USER
from dualpath_operator.model import Cluster, Object

SCRATCH = {"name": "tmp", "mountPath": "/tmp"}
CONFIG_MOUNT = {"name": "config", "mountPath": commands.CONFIG_DIR, "readOnly": True}
CONTROL_MOUNT = {"name": "control", "mountPath": commands.CONTROL_DIR, "readOnly": True}

STARTUP_S = 7200
"""Loading a large model from a slow disk takes this long at most."""


def pod_security() -> Object:
    """The Pod's part of the `restricted` level."""
    return {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def security(*, lock_memory: bool = False) -> Object:
    """A container's part of the `restricted` level; RDMA needs locked memory beyond it."""
    capabilities = {"drop": ["ALL"]} | ({"add": ["IPC_LOCK"]} if lock_memory else {})
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": capabilities,
    }


def pod_basics(cluster: Cluster) -> Object:
    """Fields that every Pod of a cluster has."""
    found: Object = {
        "serviceAccountName": cluster.name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": pod_security(),
    }
    if cluster.spec.image_pull_secrets:
        found["imagePullSecrets"] = [{"name": ref.name} for ref in cluster.spec.image_pull_secrets]
    return found


def volumes(cluster: Cluster, config_map: str) -> list[Object]:
    """Config, token and scratch space of a Pod."""
    secret = {
        "secretName": names.control_secret(cluster.name),
        "defaultMode": 0o400,  # and fsGroup lets our group read it
        "items": [{"key": commands.TOKEN_KEY, "path": commands.TOKEN_KEY}],
    }
    return [
        {"name": "config", "configMap": {"name": config_map, "defaultMode": 0o444}},
        {"name": "control", "secret": secret},
        {"name": "tmp", "emptyDir": {}},
    ]


def env(**values: str | None) -> list[Object]:
    """Environment from texts."""
    return [{"name": name, "value": value} for name, value in values.items() if value]


def env_of_pod(**paths: str) -> list[Object]:
    """Environment from fields of the Pod."""
    return [
        {"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}
        for name, path in paths.items()
    ]


def port(name: str, number: int, *, on_host: bool = False) -> Object:
    """A container's port."""
    found: dict[str, Any] = {"name": name, "containerPort": number, "protocol": "TCP"}
    return found | ({"hostPort": number} if on_host else {})


def http_probe(path: str, port_name: str, *, period_s: int, failures: int, timeout_s: int = 5) -> Object:
    """A probe that asks a container over HTTP."""
    return {
        "httpGet": {"path": path, "port": port_name, "scheme": "HTTP"},
        "periodSeconds": period_s,
        "timeoutSeconds": timeout_s,
        "failureThreshold": failures,
    }


def probes(port_name: str, *, ready: str) -> Object:
    """Startup, readiness and liveness."""
    return {
        "startupProbe": http_probe("/healthz", port_name, period_s=5, failures=STARTUP_S // 5),
        "readinessProbe": http_probe(ready, port_name, period_s=5, failures=2),
        "livenessProbe": http_probe("/healthz", port_name, period_s=10, failures=6),
    }
