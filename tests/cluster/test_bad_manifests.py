"""Sixty bad manifests: each is refused, or reported in a condition, by field and remedy; nothing else is troubled."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from admission_bed import Admission, Certificate
from bad_manifests import MANIFESTS, SERVER, WEBHOOK, Manifest
from kube_api import ApiError, Object
from processes import free_ports
from samples import MINIMAL, cluster
from stories import CLUSTERS, Site, spec
from waiting import until

OF_WEBHOOK = [one for one in MANIFESTS if one.by == WEBHOOK]
NOT_ASKED = [one for one in MANIFESTS if one.by == SERVER]


def missing(told: str, manifest: Manifest) -> str:
    """Which words a message lacks; empty when it has all. Line breaks are spaces in a condition."""
    words = " ".join(told.split())
    lacking = [part for part in manifest.says if part.lower() not in words.lower()]
    return f"{manifest.name}: {lacking} not in: {words}" if lacking else ""


def refusal(site: Site, manifest: Manifest) -> str:
    """What the API server says to a manifest; empty when it takes it."""
    body = cluster(manifest.spec(MINIMAL), manifest.name, site.namespace)
    try:
        site.kube.create(body, fieldValidation="Strict")
    except ApiError as error:
        assert error.code in (400, 422), error
        return error.message
    return ""


def unsaid(site: Site, manifest: Manifest) -> str:
    """What its conditions fail to tell; empty when all is told."""
    status = site.kube.get(CLUSTERS, manifest.name, site.namespace).get("status", {})
    found: Object = {one["type"]: one for one in status.get("conditions", ())}
    states = {kind: found.get(kind, {}).get("status") for kind in ("Stalled", "Ready", "Reconciling")}
    if states != {"Stalled": "True", "Ready": "False", "Reconciling": "False"}:
        return f"{manifest.name}: {states}: {found.get('Stalled')}"
    if found["Stalled"]["reason"] != manifest.by:
        return f"{manifest.name}: {found['Stalled']}"
    if found["Stalled"]["message"].startswith(("POST", "PATCH")):
        return f"{manifest.name} begins with the call: {found['Stalled']['message']}"
    return missing(found["Stalled"]["message"], manifest)


@pytest.fixture(params=["webhooks", "no-webhooks"])
def webhooks(request: pytest.FixtureRequest, site: Site, tmp_path: Path) -> Iterator[bool]:
    """An operator with a healthy cluster, and webhooks that answer, or none."""
    (port,) = free_ports(1)
    certificate = Certificate(tmp_path)
    settings = certificate.settings | {"host": "127.0.0.1", "port": port}
    asked = request.param == "webhooks"
    site.operator(webhook=settings if asked else {})
    admission = Admission(site.kube, site.namespace, certificate)
    if asked:
        admission.send_to(port)
        until(lambda: "admission webhook" in refusal(site, OF_WEBHOOK[0]) or again(site), 30)
    try:
        yield asked
    finally:
        admission.remove()


def again(site: Site) -> bool:
    """The webhooks were not in force yet: take the cluster away."""
    site.kube.delete(CLUSTERS, OF_WEBHOOK[0].name, site.namespace)
    return False


def test_there_are_sixty() -> None:
    assert len(MANIFESTS) == len({one.name for one in MANIFESTS}) >= 60


def test_a_bad_manifest_is_told_what_is_wrong_and_a_healthy_cluster_goes_on(
    site: Site, webhooks: bool
) -> None:
    site.apply(spec())
    site.ready()
    take_a_name(site)
    told = {manifest: refusal(site, manifest) for manifest in MANIFESTS}
    refused = [manifest for manifest in MANIFESTS if told[manifest]]
    assert refused == NOT_ASKED + (OF_WEBHOOK if webhooks else [])
    assert [lack for manifest in refused if (lack := missing(told[manifest], manifest))] == []
    by_webhook = [manifest for manifest in refused if "admission webhook" in told[manifest]]
    assert by_webhook == (OF_WEBHOOK if webhooks else [])

    def all_told() -> bool:
        taken = [manifest for manifest in MANIFESTS if manifest not in refused]
        lacks = [lack for manifest in taken if (lack := unsaid(site, manifest))]
        assert not lacks, "\n".join(lacks)
        return True

    until(all_told, 60, what="all that was taken to be told in conditions")
    site.change(decode={"scaling": {"replicas": 2}})
    site.ready()
    assert site.serving("decode") == 2
    (operator,) = site.operators
    assert operator.running()
    assert "Traceback" not in operator.log.read_text()
    for body in site.kube.all(CLUSTERS, site.namespace):
        site.kube.delete(CLUSTERS, body["metadata"]["name"], site.namespace)
    until(lambda: not site.kube.all(CLUSTERS, site.namespace), 90, what="all clusters to go")


def take_a_name(site: Site) -> None:
    """Somebody else's Service has the name of one of the clusters."""
    metadata = {"name": "clash", "namespace": site.namespace}
    site.kube.create(
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": [{"port": 1}]}}
    )
