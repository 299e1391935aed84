"""Admission over TLS: the API server asks the operator's processes, with the chart's configuration."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import urllib3
from admission_bed import Admission, Certificate
from controlplane import ControlPlane
from kube_api import ApiError, Kube, Object
from kube_objects import StartOperator
from operator_process import OperatorProcess
from samples import MINIMAL, changed, cluster
from waiting import until

CLUSTERS = "dualpathclusters.dualpath.io"
FINALIZER = "dualpath.io/finalizer"
OWNED = changed(MINIMAL, {"decode.podTemplate.spec": {"hostNetwork": True}})


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    return Certificate(tmp_path)


@pytest.fixture
def operator(
    definitions: None,
    control_plane: ControlPlane,
    namespace: str,
    start_operator: StartOperator,
    certificate: Certificate,
) -> OperatorProcess:
    """An operator of the test's namespace, with webhooks."""
    del definitions
    settings = {
        "namespace": namespace,
        "watchNamespaces": [namespace],
        "leaderElection": {"namespace": namespace},
        "webhook": certificate.settings,
        "gatewayUrl": "http://127.0.0.1:1/{namespace}/{name}",
    }
    return start_operator(control_plane.admin, settings)


@pytest.fixture
def admission(
    kube: Kube, namespace: str, certificate: Certificate, operator: OperatorProcess
) -> Iterator[Admission]:
    """The chart's configurations, in force."""
    made = Admission(kube, namespace, certificate)
    made.send_to(operator.webhook_port)
    try:
        until(lambda: asks_a_webhook(kube, namespace), 30, what="the webhooks to be in force")
        yield made
    finally:
        made.remove()


def create(kube: Kube, spec: Object, namespace: str, name: str = "sample", **query: str) -> Object:
    return kube.create(cluster(spec, name, namespace), **query)


def asks_a_webhook(kube: Kube, namespace: str) -> bool:
    """Whether both are in force: what they make of a good and of a bad one."""
    try:
        create(kube, OWNED, namespace, "probe", dryRun="All")
    except ApiError as error:
        made = create(kube, MINIMAL, namespace, "probe", dryRun="All")
        return "admission webhook" in error.message and FINALIZER in made["metadata"].get("finalizers", ())
    return False


@pytest.mark.usefixtures("admission")
def test_kubectl_shows_a_refusal_with_its_remedy_and_warnings_of_what_is_taken(
    control_plane: ControlPlane, namespace: str
) -> None:
    def apply(spec: Object) -> str:
        text = json.dumps(cluster(spec, namespace=namespace))
        return control_plane.kubectl("apply", "-f", "-", stdin=text, check=False)

    told = apply(OWNED)
    assert 'admission webhook "validate.dualpathclusters.dualpath.io" denied the request' in told
    assert "spec.decode.podTemplate.spec.hostNetwork is the operator's" in told
    assert "remedy: remove it and set spec.fabric.mode: HostNetwork" in told
    told = apply(MINIMAL)
    assert "Warning: spec.storage.files: the claim is made with ReadWriteMany" in told
    assert "created" in told


@pytest.mark.usefixtures("admission")
def test_a_new_cluster_has_the_finalizer_from_its_first_moment(kube: Kube, namespace: str) -> None:
    assert create(kube, MINIMAL, namespace)["metadata"]["finalizers"] == [FINALIZER]


def test_a_change_for_the_worse_is_refused_and_deletion_of_a_bad_one_never(
    kube: Kube, namespace: str, admission: Admission, operator: OperatorProcess
) -> None:
    admission.send_to(1, failurePolicy="Ignore")
    until(lambda: not asks_a_webhook(kube, namespace), 30)
    create(kube, OWNED, namespace)  # while nobody answered
    admission.send_to(operator.webhook_port)
    until(lambda: asks_a_webhook(kube, namespace), 30)
    worse = {"spec": {"gateway": {"podTemplate": {"spec": {"hostname": "a"}}}}}
    with pytest.raises(ApiError, match=r"gateway\.podTemplate\.spec\.hostname"):
        kube.patch(CLUSTERS, "sample", worse, namespace)
    until(lambda: "conditions" in kube.get(CLUSTERS, "sample", namespace).get("status", {}), 30)
    kube.annotate(CLUSTERS, "sample", namespace, {"a": "b"})
    operator.stop()
    held = {"metadata": {"finalizers": [FINALIZER]}}
    kube.patch(CLUSTERS, "sample", held, namespace)
    kube.delete(CLUSTERS, "sample", namespace)
    assert "deletionTimestamp" in kube.get(CLUSTERS, "sample", namespace)["metadata"]
    kube.patch(CLUSTERS, "sample", {"metadata": {"finalizers": None}}, namespace)
    assert kube.find(CLUSTERS, "sample", namespace) is None


@pytest.mark.usefixtures("admission")
def test_while_no_operator_answers_only_changes_of_a_spec_are_held_up(
    kube: Kube, namespace: str, operator: OperatorProcess
) -> None:
    create(kube, MINIMAL, namespace)
    operator.stop()
    with pytest.raises(ApiError, match="failed calling webhook"):
        kube.patch(CLUSTERS, "sample", {"spec": {"suspend": True}}, namespace)
    kube.patch(CLUSTERS, "sample", {"status": {"observedGeneration": 1}}, namespace, "status")
    kube.annotate(CLUSTERS, "sample", namespace, {"a": "b"})
    kube.patch(CLUSTERS, "sample", {"metadata": {"finalizers": None}}, namespace)
    kube.delete(CLUSTERS, "sample", namespace)
    until(lambda: kube.find(CLUSTERS, "sample", namespace) is None, 30)


@pytest.mark.usefixtures("admission")
def test_a_renewed_certificate_is_served_without_a_restart(
    kube: Kube, namespace: str, operator: OperatorProcess, certificate: Certificate
) -> None:
    assert certificate.served(operator.webhook_port) == "first"
    certificate.renew("second")
    until(lambda: certificate.served(operator.webhook_port) == "second", 30)
    assert asks_a_webhook(kube, namespace)
    operator.process.running()


def test_replicas_that_do_not_lead_answer_too(
    control_plane: ControlPlane,
    kube: Kube,
    namespace: str,
    start_operator: StartOperator,
    admission: Admission,
    operator: OperatorProcess,
    certificate: Certificate,
) -> None:
    until(lambda: "\ndualpath_operator_leader 1.0\n" in operator.metrics(), 30)
    second = start_operator(control_plane.admin, operator_settings(operator, certificate), name="second")
    admission.send_to(second.webhook_port)
    until(lambda: "denials" in second.metrics() and refused_by(kube, namespace, second), 30)
    assert "\ndualpath_operator_leader 0.0\n" in second.metrics()


def operator_settings(operator: OperatorProcess, certificate: Certificate) -> Object:
    chosen = {key: operator.settings[key] for key in ("namespace", "watchNamespaces", "gatewayUrl")}
    return {
        **chosen,
        "leaderElection": operator.settings["leaderElection"],
        "webhook": certificate.settings,
    }


def refused_by(kube: Kube, namespace: str, operator: OperatorProcess) -> bool:
    asks_a_webhook(kube, namespace)
    return 'webhook_denials_total{reason="spec"}' in operator.metrics()


def test_what_is_no_admission_review_is_answered_with_400_and_harms_nobody(
    operator: OperatorProcess, certificate: Certificate
) -> None:
    trust = ssl.create_default_context(cafile=certificate.authority.certificate)
    pool = urllib3.PoolManager(ssl_context=trust, retries=False)
    for path in ("/validate", "/default"):
        url = f"https://127.0.0.1:{operator.webhook_port}{path}"
        for garbage in (b"", b"\xff\x00", b"{}", b"[1]", b'{"request": {"uid": 1, "object": "a"}}'):
            assert pool.request("POST", url, body=garbage).status == 400
    assert operator.says("/healthz")
