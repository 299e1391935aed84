"""The objects of a cluster: put right when others change them, and never taken from others."""

from __future__ import annotations

from typing import Any

import pytest
from controlplane import ControlPlane
from kube_api import ApiError, Kube, Object
from kube_objects import pod
from kubernetes.aio.config import kube_config
from stories import GROUPS, Site, names_of, settled, spec
from waiting import until

from dualpath_operator.kinds import CLUSTER
from dualpath_operator.kube import Api

QUICK = {"resync": "1s"}


def foreign(kind: str, name: str, namespace: str) -> Object:
    """An object of somebody else."""
    labels = {"app": "foreign"}
    bodies: dict[str, Object] = {
        "Service": {"apiVersion": "v1", "spec": {"ports": [{"port": 1}], "selector": labels}},
        "ConfigMap": {"apiVersion": "v1", "data": {"mine": "true"}},
        "Secret": {"apiVersion": "v1", "data": {"token": "bWluZQ=="}},
        "Deployment": {
            "apiVersion": "apps/v1",
            "spec": {
                "replicas": 0,
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {"containers": [{"name": "a", "image": "a"}]},
                },
            },
        },
        "DualPathEngineGroup": {
            "apiVersion": "dualpath.io/v1alpha1",
            "spec": {"cluster": "other", "role": "prefill"},
        },
    }
    return {**bodies[kind], "kind": kind, "metadata": {"name": name, "namespace": namespace}}


@pytest.mark.parametrize(
    ("kind", "resource", "name"),
    [
        ("Service", "services", "c"),
        ("ConfigMap", "configmaps", "c-gateway"),
        ("Secret", "secrets", "c-control"),
        ("Deployment", "deployments.apps", "c-gateway"),
        ("DualPathEngineGroup", GROUPS, "c-prefill"),
    ],
    ids=["a", "b", "c", "d", "e"],
)
def test_a_foreign_object_is_not_touched(site: Site, kube: Kube, kind: str, resource: str, name: str) -> None:
    made = kube.create(foreign(kind, name, site.namespace))
    site.operator(**QUICK)
    site.apply(spec(1, 1))
    until(lambda: site.condition("Stalled")["status"] == "True", 60)
    stalled = site.condition("Stalled")
    assert stalled["reason"] == "NameClash"
    assert f"{kind} {name}" in stalled["message"]
    assert site.condition("Ready")["status"] == "False"
    now = kube.get(resource, name, site.namespace)
    assert {key: now.get(key) for key in made if key not in ("metadata", "status")} == {
        key: made[key] for key in made if key not in ("metadata", "status")
    }
    assert now["metadata"]["uid"] == made["metadata"]["uid"]
    assert "dualpath.io/cluster" not in now["metadata"].get("labels", {})
    done = [call for call in site.writes() if call.code < 400 and call.resource == resource.partition(".")[0]]
    assert name not in {call.name for call in done}
    kube.delete(resource, name, site.namespace)
    site.ready()
    assert site.condition("Stalled")["status"] == "False"


def test_objects_with_our_labels_but_another_owner_are_not_pruned(site: Site, kube: Kube) -> None:
    site.operator(**QUICK)
    site.apply(spec(1, 1))
    site.ready()
    labels = {
        "app.kubernetes.io/managed-by": "dualpath-operator",
        "dualpath.io/cluster": "c",
        "app.kubernetes.io/name": "dualpath",
    }
    owner = kube.get("configmaps", "kube-root-ca.crt", site.namespace)["metadata"]["uid"]
    reference = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "name": "kube-root-ca.crt",
        "uid": owner,
        "controller": True,
    }
    for name, owners in (("nobodys", []), ("anothers", [reference])):
        body = foreign("ConfigMap", name, site.namespace)
        body["metadata"] |= {"labels": labels, "ownerReferences": owners}
        kube.create(body)
    before = site.position()
    site.change(prefill={"scaling": {"replicas": 2}})
    until(lambda: site.serving("prefill") == 2, 60)
    site.ready()
    assert not [call for call in site.writes(before) if call.resource == "configmaps"]
    assert {"nobodys", "anothers"} <= set(names_of(kube.all("configmaps", site.namespace)))


CHILDREN = {
    "services/c": {"spec": {"ports": [{"name": "http", "port": 9999, "targetPort": "http"}]}},
    "configmaps/c-gateway": {"data": {"cluster.json": "{}"}},
    "serviceaccounts/c": {"automountServiceAccountToken": True},
    "deployments.apps/c-gateway": {"spec": {"replicas": 3}},
    "poddisruptionbudgets.policy/c-engines": {"spec": {"maxUnavailable": 7}},
    "networkpolicies.networking.k8s.io/c": {"spec": {"policyTypes": ["Egress"]}},
    "persistentvolumeclaims/c-store": {"metadata": {"labels": {"app.kubernetes.io/instance": "other"}}},
    f"{GROUPS}/c-prefill": {"spec": {"replicas": 5}},
}
"""Every kind of child of a cluster, and an edit that an operator must not leave."""


def test_edits_of_every_child_are_put_right_and_told(site: Site, kube: Kube) -> None:
    site.operator(**QUICK)
    site.apply(spec(1, 1))
    site.ready()
    settled(site.writes)
    for place, edit in CHILDREN.items():
        resource, name = place.split("/")
        good = essence(kube.get(resource, name, site.namespace))
        kube.patch(resource, name, edit, site.namespace)
        until(
            lambda r=resource, n=name, g=good: essence(kube.get(r, n, site.namespace)) == g,
            30,
            what=f"{place} to be put right",
        )

    def untold() -> list[str]:
        told = [event["message"] for event in site.events() if event["reason"] == "DriftCorrected"]
        names = [place.split("/")[1] for place in CHILDREN]
        return [name for name in names if not any(f" {name} was changed at" in message for message in told)]

    until(lambda: untold() == [], 30, what="every edit to be told")
    site.ready()


def test_deleted_children_come_back(site: Site, kube: Kube) -> None:
    site.operator(**QUICK)
    site.apply(spec(1, 1))
    site.ready()
    token = kube.get("secrets", "c-control", site.namespace)["data"]
    places = [place.split("/") for place in CHILDREN if "claims" not in place]
    places += [
        ["configmaps", f"c-{site.revision()}"],
        ["secrets", "c-control"],
        ["pods", names_of(site.pods())[0]],
    ]
    for resource, name in places:
        uid = kube.get(resource, name, site.namespace)["metadata"]["uid"]
        kube.delete(resource, name, site.namespace)

        def back(resource: str = resource, name: str = name, uid: str = uid) -> bool:
            return bool(kube.get(resource, name, site.namespace)["metadata"]["uid"] != uid)

        until(lambda back=back: caught(back), 60, what=f"{resource} {name} to come back")
    site.ready()
    assert kube.get("secrets", "c-control", site.namespace)["data"] == token


def test_a_foreign_pod_in_the_place_of_an_engine_is_told_and_left_alone(site: Site, kube: Kube) -> None:
    site.operator(**QUICK)
    site.apply(spec(1, 1))
    site.ready()
    taken = f"c-decode-{site.revision()}-1"
    made = kube.create(pod(taken, site.namespace))
    site.change(decode={"scaling": {"replicas": 3}})
    until(lambda: site.condition("Stalled").get("reason") == "NameClash", 60)
    assert f"Pod {taken} belongs to somebody else; remove it" in site.condition("Stalled")["message"]
    until(lambda: site.serving("decode") == 2, 60, what="the engines beside it")
    site.change(image="dualpath/worker:other")  # whose Pods have other names
    site.ready()
    assert site.serving("decode") == 3
    assert kube.get("pods", taken, site.namespace)["metadata"]["uid"] == made["metadata"]["uid"]
    site.change(image=None)
    until(lambda: site.condition("Stalled")["reason"] == "NameClash", 60)
    kube.delete("pods", taken, site.namespace, gracePeriodSeconds=0)
    site.ready()
    assert site.serving("decode") == 3


def test_a_kind_that_is_asked_for_in_vain_is_told_and_holds_nothing_up(site: Site) -> None:
    site.operator()
    site.apply(spec(1, 1, observability={"podMonitor": "Always"}))
    site.ready()
    until(lambda: site.condition("Ready")["reason"] == "KindMissing", 30)
    assert "without monitoring.coreos.com/v1/PodMonitor" in site.condition("Ready")["message"]
    site.change(observability={"podMonitor": "Auto"})
    until(lambda: site.condition("Ready")["reason"] == "AllRolesServing", 30)


def essence(body: Object) -> Object:
    """What an operator owns of an object: no status, no bookkeeping."""
    meta = body["metadata"]
    kept = {key: value for key, value in body.items() if key not in ("status", "metadata")}
    return {**kept, "labels": meta.get("labels"), "owners": meta.get("ownerReferences")}


def caught(condition: Any) -> bool:
    """The condition, or False while something is not there."""
    try:
        return bool(condition())
    except ApiError as error:
        if error.code == 404:
            return False
        raise


@pytest.mark.usefixtures("definitions")
async def test_a_listing_of_nothing_is_empty(
    control_plane: ControlPlane, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(control_plane.admin))
    async with await Api.connect() as api:
        assert await api.list(CLUSTER, namespace) == []
        assert await api.list(CLUSTER, namespace, metadata_only=True) == []
