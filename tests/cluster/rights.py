"""The operator with just the rights that its chart gives it, and what it made of them."""

from __future__ import annotations

from pathlib import Path

from audit_log import Asked, Right, not_granted, rights, unused
from charts_bed import OPERATOR, installed, render
from foreign_kinds import definition
from kube_api import Kube, Object
from kube_objects import condition_of
from stories import ACCOUNT, Bed, Site
from waiting import until

ANYTHING: Object = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
OPTIONAL = (
    definition("monitoring.coreos.com", "PodMonitor", "podmonitors", ANYTHING),
    definition("gateway.networking.k8s.io", "HTTPRoute", "httproutes", ANYTHING),
    definition("inference.networking.k8s.io", "InferencePool", "inferencepools", ANYTHING),
)
RBAC = "rbac.authorization.k8s.io/v1"
DEFINITIONS = "customresourcedefinitions.apiextensions.k8s.io"
BY_ADMISSION = {
    ("update", "dualpathclusters/finalizers"),
    ("update", "dualpathenginegroups/finalizers"),
    ("delete", "persistentvolumeclaims"),
}
"""Used by no call: asked for by admission (OwnerReferencesPermissionEnforcement) when owners are written."""


def install_optional_kinds(kube: Kube) -> None:
    """The kinds of other projects that the operator makes objects of where they exist."""
    for body in OPTIONAL:
        approved = {"api-approved.kubernetes.io": "unapproved, a stand-in for tests"}
        kube.apply(body | {"metadata": {**body["metadata"], "annotations": approved}})
    for body in OPTIONAL:
        name = body["metadata"]["name"]
        until(lambda name=name: condition_of(kube.get(DEFINITIONS, name), "Established") == "True", 60)  # type: ignore[misc]


def remove_optional_kinds(kube: Kube) -> None:
    """Take them away again, with their objects."""
    for body in OPTIONAL:
        kube.delete(DEFINITIONS, body["metadata"]["name"])
    for body in OPTIONAL:
        name = body["metadata"]["name"]
        until(lambda name=name: kube.find(DEFINITIONS, name) is None, 60)  # type: ignore[misc]


class Bounded(Site):
    """A site whose operators have the rights that the chart gives in a scope, and no other."""

    def __init__(self, bed: Bed, namespace: str, scope: str) -> None:
        watched = [] if scope == "cluster" else [namespace]
        self.settings = {"watchNamespaces": watched}
        values = {
            "rbac": {"scope": scope},
            "serviceAccount": {"name": ACCOUNT},
            "watchNamespaces": watched,
        }
        made = installed(render(OPERATOR, values, release="dp", namespace=namespace))
        self.roles = [body for body in made if body["kind"] in ("Role", "ClusterRole")]
        self._wanted = [
            body for body in made if body["apiVersion"] == RBAC or body["kind"] == "ServiceAccount"
        ]
        super().__init__(bed, namespace)

    def _grant(self, account: str) -> Path:
        for body in self._wanted:
            self.kube.apply(body)
        return self.bed.plane.for_service_account(self.namespace, account)

    def revoke(self) -> None:
        """Remove what is not in the namespace."""
        for body in self._wanted:
            if "namespace" not in body["metadata"]:
                self.kube.delete(
                    f"{body['kind'].lower()}s.rbac.authorization.k8s.io", body["metadata"]["name"]
                )

    def take_away(self, verb: str, resource: str) -> None:
        """Grant all but one verb of a resource from now on."""
        for role in self.roles:
            role["rules"] = [
                {**rule, "resources": [one], "verbs": verbs}
                for rule in role["rules"]
                for one in rule["resources"]
                if (verbs := [each for each in rule["verbs"] if (each, one) != (verb, resource)])
            ]
            self.kube.apply(role)

    def granted(self) -> list[Right]:
        """Every single right of the operator."""
        return rights(self.roles)

    def unused(self) -> list[str]:
        """What it may do and did not."""
        return [
            _told(one)
            for one in unused(self.granted(), self.calls())
            if (one.verb, one.resource) not in BY_ADMISSION
        ]

    def not_granted(self) -> list[str]:
        """What it did, or tried, without the right.

        In other namespaces the clusters of earlier tests may be left; where a namespace is being deleted, the API
        server refuses with the same code what the operator has the right to.
        """
        own = [call for call in self.calls() if call.namespace in {self.namespace, ""}]
        return [_told(one) for one in not_granted(self.granted(), own)]


def _told(one: Right | Asked) -> str:
    return f"{one.verb} {one.resource}.{one.group}".rstrip(".") + one.path
