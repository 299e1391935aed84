"""Who may do what by the operator's chart: roles in both scopes, webhooks and their certificate, the uninstall guard."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import pytest
import yaml
from charts_bed import (
    CLUSTER_WIDE,
    CRDS,
    MONITORING,
    OPERATOR,
    granted,
    hooks,
    installed,
    of_kind,
    only,
    render,
    settings_file,
)
from cryptography import x509
from kube_api import Object

NAMESPACED: Object = {"rbac": {"scope": "namespaced"}}


def test_an_operator_of_the_whole_cluster_has_one_cluster_role_and_webhooks() -> None:
    objects = installed(render(OPERATOR))
    role, binding = only(objects, "ClusterRole"), only(objects, "ClusterRoleBinding")
    assert binding["roleRef"]["name"] == role["metadata"]["name"] == "ns-r-dualpath-operator"
    assert binding["subjects"] == [
        {"kind": "ServiceAccount", "name": "r-dualpath-operator", "namespace": "ns"}
    ]
    assert len(of_kind(objects, "ValidatingWebhookConfiguration")) == 1
    assert len(of_kind(objects, "MutatingWebhookConfiguration")) == 1


def test_an_operator_of_some_namespaces_makes_nothing_outside_namespaces() -> None:
    objects = render(OPERATOR, {**NAMESPACED, "watchNamespaces": ["a", "b"]}, apis=MONITORING)
    assert not {body["kind"] for body in objects} & CLUSTER_WIDE
    roles = {
        body["metadata"]["namespace"]
        for body in of_kind(installed(objects), "Role")
        if len(body["rules"]) > 1
    }
    assert roles == {"a", "b"}
    assert yaml.safe_load(settings_file(objects))["watchNamespaces"] == ["a", "b"]
    assert yaml.safe_load(settings_file(objects))["webhook"]["enabled"] is False
    assert not of_kind(objects, "Secret")


def test_an_operator_of_its_own_namespace_watches_that_one() -> None:
    assert yaml.safe_load(settings_file(render(OPERATOR, NAMESPACED)))["watchNamespaces"] == ["ns"]


def test_rights_are_the_same_in_both_scopes_and_none_is_a_wildcard() -> None:
    wide = granted(only(installed(render(OPERATOR)), "ClusterRole")["rules"])
    objects = installed(render(OPERATOR, NAMESPACED))
    narrow = granted(only(objects, "Role", suffix="ns-r-dualpath-operator")["rules"])
    assert wide == narrow
    assert not [right for right in wide if "*" in right]
    assert {verb for _, resource, verb in wide if resource == "secrets"} == {"get", "create"}
    lease = only(objects, "Role", suffix="-lease")
    assert {resource for _, resource, _ in granted(lease["rules"])} == {"leases"}


def test_without_rbac_somebody_else_gives_the_rights() -> None:
    objects = render(OPERATOR, {"rbac": {"create": False}})
    assert not [body for body in objects if "Role" in body["kind"]]


@pytest.mark.parametrize("scope", ["cluster", "namespaced"])
def test_webhooks_look_only_at_specs_of_our_kinds_outside_kube_system(scope: str) -> None:
    objects = render(OPERATOR, {"rbac": {"scope": scope}, "webhook": {"enabled": True}})
    service = only(objects, "Service", suffix="-webhook")
    for kind, path in (("Validating", "/validate"), ("Mutating", "/default")):
        (hook,) = only(objects, f"{kind}WebhookConfiguration")["webhooks"]
        assert hook["clientConfig"]["service"] == {
            "name": service["metadata"]["name"],
            "namespace": "ns",
            "path": path,
            "port": service["spec"]["ports"][0]["port"],
        }
        assert [rule["resources"] for rule in hook["rules"]] == [["dualpathclusters"]]
        assert [rule["apiGroups"] for rule in hook["rules"]] == [["dualpath.io"]]
        assert (hook["failurePolicy"], hook["matchPolicy"], hook["timeoutSeconds"]) == (
            "Fail",
            "Equivalent",
            10,
        )
        assert "object.spec != oldObject.spec" in hook["matchConditions"][0]["expression"]
        chosen = hook["namespaceSelector"]["matchExpressions"]
        assert {
            "key": "kubernetes.io/metadata.name",
            "operator": "NotIn",
            "values": ["kube-system"],
        } in chosen
        own = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["ns"]}
        assert (own in chosen) == (scope == "namespaced")


def test_a_generated_certificate_is_for_the_service_and_trusted_by_the_configurations() -> None:
    objects = render(OPERATOR, {"webhook": {"certificate": {"validityDays": 100}}})
    secret = only(objects, "Secret")
    assert secret["type"] == "kubernetes.io/tls"
    authority, served = (
        x509.load_pem_x509_certificate(base64.b64decode(secret["data"][name]))
        for name in ("ca.crt", "tls.crt")
    )
    served.verify_directly_issued_by(authority)
    names = served.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "r-dualpath-operator-webhook.ns.svc" in names.get_values_for_type(x509.DNSName)
    lasts = served.not_valid_after_utc - datetime.now(UTC)
    assert timedelta(days=99) < lasts <= timedelta(days=100)
    renewed = datetime.fromtimestamp(int(secret["metadata"]["annotations"]["dualpath.io/renew-after"]), UTC)
    assert timedelta(days=74) < renewed - datetime.now(UTC) <= timedelta(days=75)
    for kind in ("Validating", "Mutating"):
        (hook,) = only(objects, f"{kind}WebhookConfiguration")["webhooks"]
        assert hook["clientConfig"]["caBundle"] == secret["data"]["ca.crt"]


def test_cert_manager_makes_the_certificate_and_tells_the_configurations() -> None:
    objects = render(OPERATOR, {"webhook": {"certificate": {"source": "certManager"}}})
    certificate, issuer = only(objects, "Certificate"), only(objects, "Issuer")
    assert certificate["spec"]["issuerRef"] == {"kind": "Issuer", "name": issuer["metadata"]["name"]}
    assert not of_kind(objects, "Secret")
    configuration = only(objects, "ValidatingWebhookConfiguration")
    assert configuration["metadata"]["annotations"] == {
        "cert-manager.io/inject-ca-from": f"ns/{certificate['metadata']['name']}"
    }
    assert "caBundle" not in configuration["webhooks"][0]["clientConfig"]
    (mounted,) = [
        volume["secret"]["secretName"]
        for volume in only(objects, "Deployment")["spec"]["template"]["spec"]["volumes"]
        if "secret" in volume
    ]
    assert mounted == certificate["spec"]["secretName"]
    issuer_ref = {"name": "ours", "kind": "ClusterIssuer"}
    given = {"webhook": {"certificate": {"source": "certManager", "issuerRef": issuer_ref}}}
    objects = render(OPERATOR, given)
    assert only(objects, "Certificate")["spec"]["issuerRef"] == issuer_ref
    assert not of_kind(objects, "Issuer")


def test_an_existing_secret_is_mounted_and_its_authority_trusted() -> None:
    objects = render(OPERATOR, OPERATOR / "ci" / "existing-secret-values.yaml")
    volumes = only(objects, "Deployment")["spec"]["template"]["spec"]["volumes"]
    assert {"name": "webhook-certificate", "secret": {"secretName": "webhook-certificate"}} in volumes
    (hook,) = only(objects, "ValidatingWebhookConfiguration")["webhooks"]
    assert base64.b64decode(hook["clientConfig"]["caBundle"]).startswith(b"-----BEGIN CERTIFICATE-----")
    assert hook["namespaceSelector"]["matchLabels"] == {"team": "inference"}
    assert len(hook["namespaceSelector"]["matchExpressions"]) == 2


@pytest.mark.parametrize(
    ("values", "arguments", "kind"),
    [
        ({}, ["--all"], "ClusterRole"),
        ({"watchNamespaces": ["a", "b"]}, ["--namespaces", "a,b"], "Role"),
        (NAMESPACED, ["--namespaces", "ns"], "Role"),
        ({**NAMESPACED, "watchNamespaces": ["a", "b"]}, ["--namespaces", "a,b"], "Role"),
    ],
)
def test_the_uninstall_guard_may_list_clusters_where_the_operator_watches_and_no_more(
    values: Object, arguments: list[str], kind: str
) -> None:
    guard = hooks(render(OPERATOR, values))
    job = only(guard, "Job")
    container = job["spec"]["template"]["spec"]["containers"][0]
    assert container["command"] == ["python", "-P", "-m", "dualpath_operator.uninstall"]
    assert container["args"] == arguments
    roles = of_kind(guard, kind)
    assert [granted(role["rules"]) for role in roles] == [
        {("dualpath.io", "dualpathclusters", "list")}
    ] * len(roles)
    namespaces = [role["metadata"].get("namespace") for role in roles]
    assert namespaces == ([None] if kind == "ClusterRole" else arguments[1].split(","))
    weights = {body["kind"]: int(body["metadata"]["annotations"]["helm.sh/hook-weight"]) for body in guard}
    assert weights["ServiceAccount"] < weights[kind] < weights[f"{kind}Binding"] < weights["Job"]
    assert {body["metadata"]["annotations"]["helm.sh/hook"] for body in guard} == {"pre-delete"}


def test_force_takes_the_uninstall_guard_away() -> None:
    assert not hooks(render(OPERATOR, {"uninstall": {"force": True}}))


def test_user_roles_let_users_change_clusters_and_only_scale_engine_groups() -> None:
    roles = {
        body["metadata"]["name"]: granted(body["rules"]) for body in of_kind(render(CRDS), "ClusterRole")
    }
    writes = {"create", "update", "patch", "delete", "deletecollection"}
    changed = {name: {right[1] for right in rights if right[2] in writes} for name, rights in roles.items()}
    both = {"dualpathclusters", "dualpathenginegroups/scale"}
    assert changed == {"dualpath-view": set(), "dualpath-edit": both, "dualpath-admin": both}
    assert {right[0] for rights in roles.values() for right in rights} == {"dualpath.io"}
    assert not of_kind(render(CRDS, {"userRoles": {"create": False}}), "ClusterRole")
