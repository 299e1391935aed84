"""Releases of the charts on a real API server: install, upgrade, roll back, uninstall, again; by whom, and how many."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from charts_bed import CLUSTER, CRDS, OPERATOR, granted, only, render
from cryptography import x509
from helm_bed import CLUSTER_ROLES, KINDS, MUTATING, VALIDATING, HelmBed, cluster, older
from kube_api import ApiError, Object
from kwok_stages import BEHAVIOUR
from object_listing import leaves_nothing, listing, names
from waiting import until

NAMESPACED: Object = {"rbac": {"scope": "namespaced"}}
QUICK: Object = {"webhook": {"timeoutSeconds": 1}}


@pytest.fixture(scope="module")
def bed(helm_bed: HelmBed) -> HelmBed:
    """With our kinds."""
    helm_bed.install_kinds(CRDS)
    return helm_bed


@pytest.fixture
def operator_release(bed: HelmBed) -> Iterator[str]:
    """An operator of the whole cluster, in the namespace that this gives."""
    namespace = bed.namespace()
    bed.install("dp", OPERATOR, namespace, QUICK)
    yield namespace
    bed.uninstall("dp", namespace, "--no-hooks", "--ignore-not-found")


def deployment(bed: HelmBed, namespace: str, release: str = "dp") -> Any:
    return bed.kube.get("deployments.apps", f"{release}-dualpath-operator", namespace)


def certificate(bed: HelmBed, namespace: str) -> Any:
    return bed.kube.get("secrets", "dp-dualpath-operator-webhook-certificate", namespace)["data"]


def trusted(bed: HelmBed, namespace: str) -> set[str]:
    """The authorities that the webhook configurations of a release trust."""
    return {
        bed.kube.get(kind, f"{namespace}-dp-dualpath-operator")["webhooks"][0]["clientConfig"]["caBundle"]
        for kind in (VALIDATING, MUTATING)
    }


def test_definitions_come_change_stay_and_are_taken_over_again(helm_bed: HelmBed, tmp_path: Path) -> None:
    bare, namespace = helm_bed, helm_bed.namespace()
    bare.install_kinds(older(CRDS, tmp_path, "0.0.9"))
    bare.kube.create(cluster("kept", namespace))
    assert "kubectl explain dualpathcluster.spec" in bare.install_kinds(CRDS)
    said = bare.uninstall("dualpath-crds", "default")
    bare.wait_for_kinds()
    assert "[CustomResourceDefinition] dualpathclusters.dualpath.io" in said
    assert not [key for key in listing(bare.kube, namespaces=[]) if key[2].startswith("dualpath-")]
    assert bare.kube.get(KINDS[0], "kept", namespace)["spec"]["kv"] == {"blockTokens": 64}
    bare.install_kinds(CRDS)
    assert bare.kube.get(CLUSTER_ROLES, "dualpath-edit")["rules"]
    bare.kube.delete(KINDS[0], "kept", namespace)


def test_an_upgrade_a_rollback_an_uninstall_and_a_second_install_of_the_operator(
    bed: HelmBed, tmp_path: Path
) -> None:
    namespace = bed.namespace()
    before = listing(bed.kube, namespaces=[namespace])
    former = older(OPERATOR, tmp_path, "0.0.9", {"replicaCount: 2": "replicaCount: 1"})

    def state() -> tuple[int, str, str]:
        (container,) = deployment(bed, namespace)["spec"]["template"]["spec"]["containers"]
        status = deployment(bed, namespace)["status"]
        version = deployment(bed, namespace)["metadata"]["labels"]["app.kubernetes.io/version"]
        return status["readyReplicas"], container["image"], version

    bed.install("dp", former, namespace, wait=True)
    assert state() == (1, "dualpath/operator:0.0.9", "0.0.9")
    first = certificate(bed, namespace)
    said = bed.install("dp", OPERATOR, namespace, {"log": {"level": "DEBUG"}}, wait=True)
    assert "The operator runs DualPathClusters of all namespaces." in said
    assert "The kinds are missing" not in said
    assert state() == (2, "dualpath/operator:0.1.0", "0.1.0")
    settings = bed.kube.get("configmaps", "dp-dualpath-operator", namespace)["data"]["operator.yaml"]
    assert "level: DEBUG" in settings
    bed.helm("rollback", "dp", "1", "--namespace", namespace, "--wait", "--timeout", "120s")
    assert state() == (1, "dualpath/operator:0.0.9", "0.0.9")
    assert certificate(bed, namespace) == first
    assert trusted(bed, namespace) == {first["ca.crt"]}
    bed.uninstall("dp", namespace)
    leaves_nothing(bed.kube, before, namespaces=[namespace])
    bed.install("dp", OPERATOR, namespace, wait=True)
    assert state() == (2, "dualpath/operator:0.1.0", "0.1.0")
    assert certificate(bed, namespace) != first
    bed.uninstall("dp", namespace)
    leaves_nothing(bed.kube, before, namespaces=[namespace])


def test_a_certificate_near_its_end_is_made_anew_by_the_next_upgrade(
    bed: HelmBed, operator_release: str
) -> None:
    first = certificate(bed, operator_release)
    bed.install("dp", OPERATOR, operator_release, QUICK)
    assert certificate(bed, operator_release) == first
    secret = "dp-dualpath-operator-webhook-certificate"
    bed.kube.annotate("secrets", secret, operator_release, {"dualpath.io/renew-after": "1"})
    bed.install("dp", OPERATOR, operator_release, QUICK)
    second = certificate(bed, operator_release)
    assert second != first
    assert trusted(bed, operator_release) == {second["ca.crt"]}
    served, authority = (
        x509.load_pem_x509_certificate(base64.b64decode(second[name])) for name in ("tls.crt", "ca.crt")
    )
    served.verify_directly_issued_by(authority)


def test_a_second_operator_of_all_namespaces_is_refused_by_name(bed: HelmBed, operator_release: str) -> None:
    other = bed.namespace()
    said = bed.install("two", OPERATOR, other, check=False)
    assert f"release dp in namespace {operator_release} already runs the operator of all namespaces" in said
    assert bed.releases(other) == {}
    some = {"watchNamespaces": [other], **QUICK}
    bed.install("some", OPERATOR, other, some)
    bed.install("own", OPERATOR, other, NAMESPACED)
    assert bed.releases(other) == {"some": "deployed", "own": "deployed"}
    for release in ("some", "own"):
        bed.uninstall(release, other)


def test_webhooks_that_do_not_answer_stop_new_specs_and_nothing_else(
    bed: HelmBed, operator_release: str
) -> None:
    namespace = bed.namespace()
    bed.install("dp", OPERATOR, operator_release, {"webhook": {"enabled": False}})
    body = bed.kube.create(cluster("a", namespace))
    bed.install("dp", OPERATOR, operator_release, QUICK)
    bed.silence_webhooks(operator_release)

    def patch(change: Object, subresource: str | None = None) -> None:
        bed.kube.patch(KINDS[0], "a", change, namespace, subresource)

    def refuses() -> bool:  # the API server learns of a new webhook after a moment
        with pytest.raises(ApiError, match="failed calling webhook"):
            bed.kube.create({**cluster("b", namespace)}, dryRun="All")
        return True

    until(refuses, 60)
    with pytest.raises(ApiError, match="failed calling webhook"):
        patch({"spec": {"paused": True}})
    patch({"metadata": {"finalizers": ["dualpath.io/finalizer"], "labels": {"a": "b"}}})
    patch({"status": {"observedGeneration": body["metadata"]["generation"]}}, "status")
    bed.kube.delete(KINDS[0], "a", namespace)
    patch({"metadata": {"finalizers": None}})
    until(lambda: bed.kube.find(KINDS[0], "a", namespace) is None, 60)
    bed.kube.create(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "namespace": namespace}}
    )


def test_an_uninstall_stops_when_the_guard_fails_and_can_be_taken_back_or_forced(
    bed: HelmBed, operator_release: str
) -> None:
    namespace = operator_release
    # kwok runs no program: it fails the guard's Pods, as the guard itself does while there are clusters
    failing = {**QUICK, "podAnnotations": {BEHAVIOUR: "evict"}}
    bed.install("dp", OPERATOR, namespace, failing)  # revision 2
    said = bed.uninstall("dp", namespace, check=False)
    assert "job dp-dualpath-operator-uninstall-guard failed" in said
    assert names(bed.kube, "deployments.apps", namespace) == ["dp-dualpath-operator"]
    assert names(bed.kube, "jobs.batch", namespace) == ["dp-dualpath-operator-uninstall-guard"]
    assert not [key for key in bed.cluster_wide() if key[2].endswith("uninstall-guard")]
    assert bed.releases(namespace) == {"dp": "uninstalling"}
    bed.helm("rollback", "dp", "2", "--namespace", namespace)
    assert bed.releases(namespace) == {"dp": "deployed"}
    bed.install("dp", OPERATOR, namespace, {**QUICK, "uninstall": {"force": True}})
    bed.uninstall("dp", namespace)
    assert bed.releases(namespace) == {}


@pytest.fixture
def admin_of(bed: HelmBed) -> Any:
    """A user who is admin of namespaces and has no right outside them: their kubeconfig."""

    def make(user: str, *namespaces: str) -> Path:
        for namespace in namespaces:
            bed.kube.create(
                {
                    "apiVersion": "rbac.authorization.k8s.io/v1",
                    "kind": "RoleBinding",
                    "metadata": {"name": f"admin-{user}", "namespace": namespace},
                    "roleRef": {
                        "apiGroup": "rbac.authorization.k8s.io",
                        "kind": "ClusterRole",
                        "name": "admin",
                    },
                    "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
                }
            )
        return bed.plane.kubeconfig(user)

    return make


def test_the_admin_of_namespaces_installs_an_operator_without_any_cluster_right(
    bed: HelmBed, admin_of: Any
) -> None:
    home, away = bed.namespace(), bed.namespace()
    alice = admin_of("alice", home, away)
    values = {**NAMESPACED, "watchNamespaces": [home, away]}
    refused = bed.install("dp", OPERATOR, home, values, check=False, as_user=alice)
    assert "is attempting to grant RBAC permissions not currently held" in refused
    bed.uninstall("dp", home, check=False, as_user=alice)

    bed.install_kinds(CRDS, {"userRoles": {"installOperator": True}})
    wanted = granted(bed.kube.get(CLUSTER_ROLES, "dualpath-admin")["rules"])
    until(lambda: wanted <= granted(bed.kube.get(CLUSTER_ROLES, "admin")["rules"]), 60)
    before = bed.cluster_wide()
    for _ in range(2):  # the second is an upgrade
        bed.install("dp", OPERATOR, home, values, as_user=alice, wait=True)
    assert deployment(bed, home)["status"]["readyReplicas"] == 2
    assert bed.cluster_wide() == before
    operator = bed.plane.for_service_account(home, "dp-dualpath-operator")
    may = "auth", "can-i", "list", "dualpathclusters.dualpath.io", "--namespace"
    answers = [
        bed.plane.kubectl(*may, place, check=False, as_user=operator) for place in (home, away, "default")
    ]
    assert [answer.split()[-1] for answer in answers] == ["yes", "yes", "no"]
    bed.uninstall("dp", home, as_user=alice)
    until(lambda: not names(bed.kube, "deployments.apps", home), 60)
    bed.install_kinds(CRDS)


def test_kubernetes_admins_lack_exactly_what_the_definitions_chart_adds(bed: HelmBed) -> None:
    asked = granted(only(render(OPERATOR), "ClusterRole", suffix="-operator")["rules"])
    install = render(CRDS, {"userRoles": {"installOperator": True}})
    added = granted(only(install, "ClusterRole", suffix="-admin")["rules"])
    own = {
        right
        for role in ("view", "edit", "admin")
        for right in granted(bed.kube.get(CLUSTER_ROLES, f"system:aggregate-to-{role}")["rules"])
    }
    assert asked - own <= added
    for_users = granted(only(render(CRDS), "ClusterRole", suffix="-admin")["rules"])
    assert added - for_users <= asked - own


def test_optional_kinds_are_detected_once_they_exist(bed: HelmBed) -> None:
    namespace = bed.namespace()
    bed.install("dp", OPERATOR, namespace, NAMESPACED)
    bed.add_foreign_kinds()
    monitors = "servicemonitors.monitoring.coreos.com"
    assert names(bed.kube, monitors, namespace) == []
    bed.install("dp", OPERATOR, namespace, NAMESPACED)
    assert names(bed.kube, monitors, namespace) == ["dp-dualpath-operator"]
    assert names(bed.kube, "prometheusrules.monitoring.coreos.com", namespace) == ["dp-dualpath-operator"]
    bed.uninstall("dp", namespace)
    until(lambda: names(bed.kube, monitors, namespace) == [], 60)


def test_a_cluster_comes_changes_and_goes_with_its_release(bed: HelmBed) -> None:
    namespace = bed.namespace()
    values: Object = {"model": {"uri": "hf://a/b"}, "decode": {"replicas": 2}}
    said = bed.install("agents", CLUSTER, namespace, values)
    assert f"kubectl -n {namespace} wait --for=condition=Ready" in said
    spec = bed.kube.get(KINDS[0], "agents", namespace)["spec"]
    assert spec["decode"]["scaling"] == {"mode": "Static", "replicas": 2}
    over = {**values, "spec": {"paused": True, "prefill": {"scaling": {"mode": "External"}}}}
    bed.install("agents", CLUSTER, namespace, over)
    assert bed.kube.get(KINDS[0], "agents", namespace)["spec"]["paused"] is True
    refused = bed.install("agents", CLUSTER, namespace, {"model": {"uri": "hf://a/c"}}, check=False)
    assert "model.uri cannot be changed; make another DualPathCluster" in refused
    bed.uninstall("agents", namespace)
    until(lambda: names(bed.kube, KINDS[0], namespace) == [], 60)
