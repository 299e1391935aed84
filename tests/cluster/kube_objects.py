"""Objects that several tests make or look at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kube_api import Kube, Object
from operator_process import OperatorProcess

MakeNamespace = Callable[..., str]
StartOperator = Callable[..., OperatorProcess]


def pod(name: str, namespace: str, **spec: Any) -> Object:
    """A pod that Pod Security `restricted` lets pass."""
    container = {
        "name": "main",
        "image": "dualpath/worker:0.1.0",
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    security = {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"securityContext": security, "containers": [container], **spec},
    }


def condition(kube: Kube, namespace: str, name: str, kind: str = "Ready") -> str:
    """The status of a pod's condition; "" when it has none."""
    return condition_of(kube.get("pods", name, namespace), kind)


def condition_of(body: Object, kind: str) -> str:
    """The status of an object's condition; "" when it has none."""
    conditions = body.get("status", {}).get("conditions", [])
    return next((str(one["status"]) for one in conditions if one["type"] == kind), "")


def has_condition(kube: Kube, namespace: str, name: str, status: str, kind: str = "Ready") -> bool:
    """Whether a pod's condition has this status."""
    return condition(kube, namespace, name, kind) == status
