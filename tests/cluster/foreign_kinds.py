"""Definitions of the other projects' kinds that the charts make objects of: the fields that are used, and no others.

They stand in for the Prometheus operator and cert-manager, so that charts detect the kinds, the API server takes the
objects, and a field that those projects do not have is refused.
"""

from __future__ import annotations

from typing import Any

from kube_api import Object

TEXT: Object = {"type": "string"}
YES_NO: Object = {"type": "boolean"}
TEXTS: Object = {"type": "array", "items": TEXT}
MAP: Object = {"type": "object", "additionalProperties": TEXT}


def fields(required: tuple[str, ...] = (), **properties: Object) -> Object:
    """An object with these fields."""
    return {
        "type": "object",
        "properties": properties,
        **({"required": list(required)} if required else {}),
    }


def items(of: Object) -> Object:
    """A list."""
    return {"type": "array", "items": of}


SERVICE_MONITOR = fields(
    ("selector", "endpoints"),
    selector=fields(matchLabels=MAP),
    namespaceSelector=fields(any=YES_NO, matchNames=TEXTS),
    endpoints=items(fields(port=TEXT, path=TEXT, interval=TEXT, honorLabels=YES_NO)),
)
RULE: Object = fields(
    ("expr",), alert=TEXT, record=TEXT, expr=TEXT, labels=MAP, annotations=MAP, **{"for": TEXT}
)
PROMETHEUS_RULE = fields(groups=items(fields(("name",), name=TEXT, interval=TEXT, rules=items(RULE))))
ISSUER_REF = fields(("name",), name=TEXT, kind=TEXT, group=TEXT)
ROTATION: Object = {"type": "string", "enum": ["Never", "Always"]}
CERTIFICATE = fields(
    ("secretName", "issuerRef"),
    secretName=TEXT,
    dnsNames=TEXTS,
    issuerRef=ISSUER_REF,
    privateKey=fields(rotationPolicy=ROTATION),
)
ISSUER = fields(selfSigned=fields(crlDistributionPoints=TEXTS))


def definition(group: str, kind: str, plural: str, spec: Object) -> Object:
    """The CustomResourceDefinition of a namespaced kind with version v1."""
    schema: dict[str, Any] = {"type": "object", "required": ["spec"], "properties": {"spec": spec}}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "names": {"kind": kind, "plural": plural, "singular": kind.lower(), "listKind": f"{kind}List"},
            "scope": "Namespaced",
            "versions": [version],
        },
    }


FOREIGN = (
    definition("monitoring.coreos.com", "ServiceMonitor", "servicemonitors", SERVICE_MONITOR),
    definition("monitoring.coreos.com", "PrometheusRule", "prometheusrules", PROMETHEUS_RULE),
    definition("cert-manager.io", "Certificate", "certificates", CERTIFICATE),
    definition("cert-manager.io", "Issuer", "issuers", ISSUER),
)
