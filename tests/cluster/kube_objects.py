"""Objects that several tests make or look at."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from kube_api import ApiError, Kube, Object
from operator_process import OperatorProcess
from waiting import until

MakeNamespace = Callable[..., str]
StartOperator = Callable[..., OperatorProcess]
DEFINITIONS = Path(__file__).parents[2] / "crds"


def install_definitions(kube: Kube) -> None:
    """Install our CustomResourceDefinitions and wait until their kinds are served."""
    for file in sorted(DEFINITIONS.glob("*.yaml")):
        for body in kube.apply_yaml(file.read_text()):
            name = body["metadata"]["name"]
            until(partial(_established, kube, name), 60, what=f"the definition {name}")
            until(partial(_served, kube, name), 60, what=f"the objects of {name}")


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
    conditions = body.get("status", {}).get("conditions") or ()
    return next((str(one["status"]) for one in conditions if one["type"] == kind), "")


def has_condition(kube: Kube, namespace: str, name: str, status: str, kind: str = "Ready") -> bool:
    """Whether a pod's condition has this status."""
    return condition(kube, namespace, name, kind) == status


def _established(kube: Kube, name: str) -> bool:
    body = kube.get("customresourcedefinitions.apiextensions.k8s.io", name)
    return condition_of(body, "Established") == "True"


def _served(kube: Kube, name: str) -> bool:
    """Established is not all: until its watch cache is filled, the API server answers 404 or 429."""
    try:
        path = kube.resource(name).path()
        return "items" in kube.request("GET", path, query={"resourceVersion": "0"})
    except ApiError as error:
        if error.code not in (404, 429):
            raise
        return False
