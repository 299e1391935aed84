"""The life of a cluster: made, told of, changed, put right, paused, suspended and deleted without a trace."""

from __future__ import annotations

import base64
import re
from typing import Any

from kube_api import Kube
from object_listing import Key, listing
from stories import CLUSTERS, GROUPS, Site, names_of, settled, spec
from waiting import until

QUICK = {"resync": "1s"}


def columns(site: Site, *options: str) -> dict[str, str]:
    """The line of `kubectl get dpc`."""
    told = site.bed.plane.kubectl("get", "dpc", site.cluster, "-n", site.namespace, *options)
    head, line = told.splitlines()
    starts = [match.start() for match in re.finditer(r"(?<!\S)\S", head)]
    ends = [*starts[1:], len(head) + len(line)]
    return {head[a:b].strip(): line[a:b].strip() for a, b in zip(starts, ends, strict=True)}


def test_a_cluster_becomes_ready_and_tells_its_story(site: Site) -> None:
    site.operator()
    site.apply(spec(2, 1))
    site.bed.plane.kubectl(
        "wait", "--for=condition=Ready", f"dpc/{site.cluster}", "-n", site.namespace, "--timeout=90s"
    )
    status = site.status()
    told = {c["type"]: (c["status"], c["reason"]) for c in status["conditions"]}
    assert told["Ready"] == ("True", "AllRolesServing")
    assert told["Reconciling"] == ("False", "UpToDate")
    assert told["Stalled"] == ("False", "Idle")
    assert {told[kind][0] for kind in ("PrefillReady", "DecodeReady", "StorageReady", "SchedulerReady")} == {
        "True"
    }
    assert told["RolloutComplete"] == ("True", "RolloutComplete")
    assert status["revision"]["current"] == status["revision"]["updated"]
    assert status["endpoints"] == [{"name": "openai", "url": f"http://c.{site.namespace}.svc:8000/v1"}]
    shown = columns(site)
    assert (shown["READY"], shown["REASON"], shown["P"], shown["D"]) == (
        "True",
        "AllRolesServing",
        "2/2",
        "1/1",
    )
    assert shown["REVISION"] == site.revision()
    assert columns(site, "-o", "wide")["URL"] == f"http://c.{site.namespace}.svc:8000/v1"
    assert [event["reason"] for event in site.events()].count("AllRolesServing") == 1


def test_pods_carry_role_revision_index_and_owner(site: Site) -> None:
    site.operator()
    site.apply(spec(2, 1))
    site.ready()
    revision = site.revision()
    assert names_of(site.pods()) == [
        f"c-decode-{revision}-0",
        f"c-prefill-{revision}-0",
        f"c-prefill-{revision}-1",
    ]
    for pod in site.pods():
        labels, (owner,) = pod["metadata"]["labels"], pod["metadata"]["ownerReferences"]
        role = labels["dualpath.io/role"]
        assert labels["dualpath.io/revision"] == revision
        assert pod["metadata"]["name"].endswith(f"-{labels['dualpath.io/replica']}")
        assert owner["uid"] == site.group(role)["metadata"]["uid"]
        assert owner["controller"]


def test_an_operator_that_starts_again_writes_nothing(site: Site) -> None:
    first = site.operator()
    site.apply(spec(1, 1))
    site.ready()
    settled(site.writes)
    assert first.stop() == 0
    before = site.position()
    second = site.operator("second")
    until(lambda: second.leads, 30)
    until(lambda: reports(site, before), 30, what="a pass, which reads the token of the cluster")
    settled(site.writes)
    assert site.writes(before) == []


def test_deleting_a_cluster_leaves_nothing(site: Site, kube: Kube) -> None:
    site.operator()  # with its account
    before = listing(kube, namespaces=[site.namespace])
    site.apply(spec(2, 2))
    site.ready()
    assert len(listing(kube, namespaces=[site.namespace]) - before) > 15
    site.delete()
    site.gone()

    def left() -> set[Key]:
        return listing(kube, namespaces=[site.namespace]) - before

    def nothing() -> bool:
        assert left() == set()
        return True

    until(nothing, 120)
    assert site.engines.refused == 0


def test_deleting_drains_the_engines_first(site: Site) -> None:
    site.operator()
    site.apply(spec(1, 1))
    site.ready()
    names = names_of(site.pods())
    site.engines.in_flight[names[0]] = 1
    site.delete()
    until(
        lambda: names_of(site.pods()) == names[:1], 30, what="the idle engine to go and the busy one to stay"
    )
    del site.engines.in_flight[names[0]]
    site.gone()
    assert site.engines.drained >= set(names)


def test_a_retained_claim_outlives_its_cluster_and_is_taken_up_by_the_next(site: Site, kube: Kube) -> None:
    site.operator()
    site.apply(spec(1, 1, storage={"retention": "Retain"}))
    site.ready()
    uid = kube.get("persistentvolumeclaims", "c-store", site.namespace)["metadata"]["uid"]
    site.delete()
    site.gone()
    until(lambda: kube.find("deployments.apps", "c-gateway", site.namespace) is None, 30)
    site.apply(spec(1, 1, storage={"retention": "Retain"}))
    site.ready()
    assert kube.get("persistentvolumeclaims", "c-store", site.namespace)["metadata"]["uid"] == uid
    site.change(storage={"retention": "Delete"})
    until(
        lambda: kube.get("persistentvolumeclaims", "c-store", site.namespace)["metadata"]["ownerReferences"],
        30,
    )
    site.delete()
    until(lambda: kube.find("persistentvolumeclaims", "c-store", site.namespace) is None, 60)


def test_a_suspended_cluster_keeps_everything_but_its_processes(site: Site, kube: Kube) -> None:
    site.operator()
    site.apply(spec(2, 1))
    site.ready()
    site.change(suspend=True)
    site.ready()
    assert site.condition("Ready")["reason"] == "Suspended"
    assert site.pods() == []
    until(lambda: kube.all("pods", site.namespace) == [], 30)
    assert kube.find("persistentvolumeclaims", "c-store", site.namespace)
    site.change(suspend=None)
    until(lambda: site.serving("prefill") == 2, 60)
    site.ready()


def test_a_paused_cluster_is_left_alone_and_told_of(site: Site, kube: Kube) -> None:
    site.operator(**QUICK)
    site.apply(spec(1, 1))
    site.ready()
    before = site.position()
    site.change(paused=True, prefill={"scaling": {"replicas": 3}}, image="dualpath/worker:other")
    kube.delete("services", "c", site.namespace)
    until(lambda: site.status()["observedGeneration"] == site.get()["metadata"]["generation"], 30)
    until(lambda: site.status()["roles"]["prefill"]["desired"] == 3, 30)
    assert {call.resource for call in site.writes(before)} <= {
        "dualpathclusters/status",
        "dualpathenginegroups/status",
    }
    assert kube.find("services", "c", site.namespace) is None
    site.change(paused=None)
    until(lambda: kube.find("services", "c", site.namespace), 30)
    until(lambda: site.serving("prefill") == 3, 60)
    site.ready()


def test_what_is_switched_off_is_removed_but_never_blocks(site: Site, kube: Kube) -> None:
    site.operator()
    site.apply(spec(1, 1))
    site.ready()
    claim = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    metadata = {"name": "other", "namespace": site.namespace}
    kube.create({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": claim})
    former = f"c-{site.revision()}"
    site.change(security={"networkPolicy": "None"}, storage={"files": {"claimName": "other"}})
    until(lambda: kube.find("networkpolicies.networking.k8s.io", "c", site.namespace) is None, 60)
    site.ready()
    until(lambda: kube.find("configmaps", former, site.namespace) is None, 30)
    assert kube.find("persistentvolumeclaims", "c-store", site.namespace)
    site.change(security=None)
    until(lambda: kube.find("networkpolicies.networking.k8s.io", "c", site.namespace), 60)


def test_the_token_is_nowhere_but_in_its_secret(site: Site, kube: Kube) -> None:
    operator = site.operator(log={"level": "DEBUG"})
    site.apply(spec(1, 1))
    site.ready()
    encoded = kube.get("secrets", "c-control", site.namespace)["data"]["token"]
    token = base64.b64decode(encoded).decode()
    assert len(token) >= 32
    everything = operator.log.read_text() + str(site.events()) + str(site.get()) + str(site.pods())
    for resource in ("configmaps", "deployments.apps", GROUPS):
        everything += str(kube.all(resource, site.namespace))
    assert token not in everything
    assert encoded not in everything


def test_a_spec_that_cannot_be_used_is_told_and_others_go_on(site: Site, kube: Kube) -> None:
    site.operator()
    template = {"spec": {"containers": [{"name": "engine", "command": ["sh"]}]}}
    bad = spec(1, 1, prefill={"podTemplate": template})
    kube.apply({**site.body(bad), "metadata": {"name": "bad", "namespace": site.namespace}})
    site.apply(spec(1, 1))
    site.ready()

    def stalled() -> Any:
        conditions = kube.get(CLUSTERS, "bad", site.namespace)["status"]["conditions"]
        return next(c for c in conditions if c["type"] == "Stalled")

    assert until(stalled)["reason"] == "InvalidSpec"
    assert "command" in stalled()["message"]
    kube.delete(CLUSTERS, "bad", site.namespace)
    until(lambda: kube.find(CLUSTERS, "bad", site.namespace) is None, 30)


def reports(site: Site, after: int) -> bool:
    """Whether an operator has made a pass: it reads the Secret in the first one."""
    return any(call.resource == "secrets" for call in site.calls(after))
