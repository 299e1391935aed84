"""The comparison of what was asked with what is granted, on a service account with a sample role."""

from __future__ import annotations

import pytest
import yaml
from audit_log import Asked, Right, calls, not_granted, position, rights, service_account, unused
from controlplane import ControlPlane
from kube_api import ApiError, Kube, Object
from waiting import until

ROLE = """
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: sample}
rules:
- {apiGroups: [""], resources: [configmaps], verbs: [get, list, create, patch, delete]}
- {apiGroups: [""], resources: [pods/status], verbs: [patch]}
- {apiGroups: [""], resources: [secrets], resourceNames: [token], verbs: [get]}
"""


def granted_to_default(kube: Kube, namespace: str) -> Object:
    role: Object = yaml.safe_load(ROLE)
    kube.apply_yaml(ROLE, namespace)
    reference = {"kind": "Role", "name": "sample", "apiGroup": "rbac.authorization.k8s.io"}
    subject = {"kind": "ServiceAccount", "name": "default", "namespace": namespace}
    metadata = {"name": "sample", "namespace": namespace}
    body = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": metadata}
    kube.create({**body, "roleRef": reference, "subjects": [subject]})
    return role


def test_rights_that_nobody_used_and_calls_that_nobody_granted_are_named(
    control_plane: ControlPlane, kube: Kube, namespace: str
) -> None:
    granted = rights([granted_to_default(kube, namespace)])
    begin = position(control_plane.audit_log)
    me = Kube(control_plane.for_service_account(namespace, "default"))
    config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": namespace}}
    me.apply(config_map)
    me.get("configmaps", "a", namespace)
    me.delete("configmaps", "a", namespace)
    with pytest.raises(ApiError, match="forbidden"):
        me.get("secrets", "other", namespace)
    user = service_account(namespace, "default")
    until(lambda: any(call.resource == "secrets" for call in calls(control_plane.audit_log, user, begin)), 30)
    made = calls(control_plane.audit_log, user, begin)
    assert [(one.verb, one.resource) for one in unused(granted, made)] == [
        ("get", "secrets"),
        ("list", "configmaps"),
        ("patch", "pods/status"),
    ]
    assert [(one.verb, one.resource, one.name) for one in not_granted(granted, made)] == [
        ("get", "secrets", "other")
    ]


def test_wildcards_and_paths_cover_what_kubernetes_lets_them() -> None:
    anything = Right(verb="*", group="*", resource="*")
    metrics = Right(verb="get", path="/metrics/*")
    status = Asked(verb="patch", group="apps", resource="deployments/status")
    assert not_granted([anything, metrics], [status, Asked(verb="get", path="/metrics/a")]) == []
    assert not_granted([Right(verb="patch", group="apps", resource="deployments")], [status]) == [status]
