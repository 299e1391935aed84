"""The real operator with the rights and the settings that its chart gives it: nothing is missing, in both scopes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from audit_log import calls, not_granted, position, rights, service_account
from charts_bed import OPERATOR, installed, render, settings_file
from controlplane import ControlPlane
from helm_bed import KINDS, cluster
from kube_api import Kube, Object
from kube_objects import StartOperator
from object_listing import leaves_nothing, listing, names
from waiting import until

ACCESS = ("ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")
WIDE = {"ClusterRole": "clusterroles", "ClusterRoleBinding": "clusterrolebindings"}
ACCOUNT = "dp-dualpath-operator"
LEASE = {"leaseDuration": "6s", "renewDeadline": "4s", "retryPeriod": "0.5s"}


@pytest.fixture(params=["cluster", "namespaced"])
def release(request: pytest.FixtureRequest, kube: Kube, namespace: str) -> Iterator[list[Object]]:
    """The chart's objects for a namespace; those about access exist."""
    values = {"rbac": {"scope": request.param}, "leaderElection": LEASE}
    objects = installed(render(OPERATOR, values, release="dp", namespace=namespace))
    for body in objects:
        if body["kind"] in ACCESS:
            kube.apply(body)
    yield objects
    for body in objects:
        if body["kind"] in WIDE:
            kube.delete(f"{WIDE[body['kind']]}.rbac.authorization.k8s.io", body["metadata"]["name"])


def settings_here(objects: list[Object]) -> Any:
    """The chart's settings, but for what only a Pod has: its ports, and names of services."""
    settings = yaml.safe_load(settings_file(objects))
    settings = {key: value for key, value in settings.items() if key not in ("http", "webhook")}
    return {**settings, "gatewayUrl": "http://127.0.0.1:9"}


def is_engine(pod: Object) -> bool:
    return "dualpath.io/role" in pod["metadata"]["labels"]


@pytest.mark.usefixtures("definitions")
def test_the_operator_makes_repairs_and_removes_a_cluster_with_the_rights_of_its_chart(
    release: list[Object],
    control_plane: ControlPlane,
    kube: Kube,
    namespace: str,
    start_operator: StartOperator,
) -> None:
    before = listing(kube, namespaces=[namespace])
    begin = position(control_plane.audit_log)
    start_operator(control_plane.for_service_account(namespace, ACCOUNT), settings_here(release))
    body = cluster("c", namespace)
    body["spec"]["storage"] |= {"retention": "Delete"}
    kube.create(body)
    until(lambda: len(names(kube, "pods", namespace, is_engine)) == 2, 90)
    until(lambda: kube.find("deployments.apps", "c-gateway", namespace), 90)
    kube.delete("services", "c", namespace)
    until(lambda: kube.find("services", "c", namespace), 60, what="the service to be made again")
    until(lambda: kube.get(KINDS[0], "c", namespace).get("status", {}).get("conditions"), 60)
    kube.delete(KINDS[0], "c", namespace)
    leaves_nothing(kube, before, namespaces=[namespace])
    made = calls(control_plane.audit_log, service_account(namespace, ACCOUNT), begin)
    given = rights(body for body in release if body["kind"] in ("Role", "ClusterRole"))
    assert not_granted(given, made) == []
    assert {call.namespace for call in made if call.verb in ("create", "patch", "delete")} == {namespace}
