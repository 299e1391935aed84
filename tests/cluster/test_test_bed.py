"""The test bed itself, fake nodes and volumes: what the other tests of this folder rest on."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from controlplane import ControlPlane
from fake_nodes import FakeNodes
from kube_api import ApiError, Kube
from kube_objects import MakeNamespace, condition, condition_of, has_condition, pod
from kwok_stages import BEHAVIOUR, HOLD
from object_listing import leaves_nothing, listing, names
from waiting import NotInTime, until

GATE = "dualpath.io/Admitted"


def test_a_pod_is_ready_when_its_containers_are(kube: Kube, namespace: str) -> None:
    kube.create(pod("a", namespace))
    until(lambda: condition(kube, namespace, "a") == "True", 30)
    kube.annotate("pods", "a", namespace, {BEHAVIOUR: "unready"})
    until(lambda: condition(kube, namespace, "a") == "False", 30)
    kube.annotate("pods", "a", namespace, {BEHAVIOUR: None})
    until(lambda: condition(kube, namespace, "a") == "True", 30)


def test_a_readiness_gate_holds_a_pod_until_somebody_sets_it(kube: Kube, namespace: str) -> None:
    kube.create(pod("a", namespace, readinessGates=[{"conditionType": GATE}]))
    until(lambda: condition(kube, namespace, "a", "ContainersReady") == "True", 30)
    assert condition(kube, namespace, "a") == "False"
    for status in ("True", "False", "True"):
        gate = {"status": {"conditions": [{"type": GATE, "status": status}]}}
        kube.patch("pods", "a", gate, namespace, "status", kind="strategic")
        until(partial(has_condition, kube, namespace, "a", status), 30)
    assert condition(kube, namespace, "a", GATE) == "True"


def test_a_pod_crashes_stays_pending_or_is_evicted_when_told(kube: Kube, namespace: str) -> None:
    def state(name: str) -> Any:
        return kube.get("pods", name, namespace)["status"]

    for behaviour in ("crash", "pending", "evict"):
        body = pod(behaviour, namespace)
        body["metadata"]["annotations"] = {BEHAVIOUR: behaviour}
        kube.create(body)
    missing = pod("missing", namespace)
    missing["spec"]["containers"][0]["image"] = "dualpath/worker:missing"
    kube.create(missing)
    until(
        lambda: state("crash")["containerStatuses"][0]["state"]["waiting"]["reason"] == "CrashLoopBackOff", 30
    )
    until(
        lambda: state("missing")["containerStatuses"][0]["state"]["waiting"]["reason"] == "ImagePullBackOff",
        30,
    )
    until(lambda: (state("evict")["phase"], state("evict").get("reason")) == ("Failed", "Evicted"), 30)
    until(lambda: condition(kube, namespace, "pending", "PodScheduled") == "True", 30)
    assert state("pending")["phase"] == "Pending"


def test_a_deleted_pod_stays_terminating_while_it_is_held(kube: Kube, namespace: str) -> None:
    for name in ("held", "quick"):
        kube.create(pod(name, namespace))
        until(partial(has_condition, kube, namespace, name, "True"), 30)
    kube.annotate("pods", "held", namespace, {HOLD: "true"})
    for name in ("held", "quick"):
        kube.delete("pods", name, namespace)
    until(lambda: names(kube, "pods", namespace) == ["held"], 30)
    assert kube.get("pods", "held", namespace)["metadata"]["deletionTimestamp"]
    kube.annotate("pods", "held", namespace, {HOLD: None})
    until(lambda: names(kube, "pods", namespace) == [], 30)


def test_a_lost_node_strands_its_pods_until_it_is_back(
    kube: Kube, fake_nodes: FakeNodes, namespace: str
) -> None:
    node = fake_nodes.add(1, labels={"test": namespace})[0]
    until(lambda: condition_of(kube.get("nodes", node), "Ready") == "True", 30)
    kube.create(pod("a", namespace, nodeSelector={"test": namespace}))
    until(lambda: has_condition(kube, namespace, "a", "True"), 30)
    fake_nodes.lose(node)
    until(lambda: has_condition(kube, namespace, "a", "False"), 60)
    until(lambda: "deletionTimestamp" in kube.get("pods", "a", namespace)["metadata"], 60)
    assert condition_of(kube.get("nodes", node), "Ready") == "Unknown"
    fake_nodes.restore(node)
    until(lambda: names(kube, "pods", namespace) == [], 30)
    until(lambda: condition_of(kube.get("nodes", node), "Ready") == "True", 30)
    fake_nodes.remove(node)


def test_deployments_and_claims_work_and_volumes_come_back(kube: Kube, namespace: str) -> None:
    template = pod("unused", namespace)
    claims = [{"name": "kv", "persistentVolumeClaim": {"claimName": "kv"}}]
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "kv", "namespace": namespace},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Ti"}}},
    }
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": namespace},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {**template["spec"], "volumes": claims},
            },
        },
    }

    def free() -> int:
        return sum(body["status"]["phase"] == "Available" for body in kube.all("persistentvolumes"))

    before = free()
    kube.apply(claim)
    kube.apply(deployment)
    until(lambda: kube.get("deployments.apps", "web", namespace)["status"].get("readyReplicas") == 2, 60)
    assert kube.get("persistentvolumeclaims", "kv", namespace)["status"]["phase"] == "Bound"
    kube.delete("deployments.apps", "web", namespace, propagationPolicy="Foreground")
    until(lambda: names(kube, "pods", namespace) == [], 60)
    kube.delete("persistentvolumeclaims", "kv", namespace)
    until(lambda: free() == before, 60)


def test_a_job_comes_to_its_end(kube: Kube, namespace: str) -> None:
    spec = {**pod("unused", namespace)["spec"], "restartPolicy": "Never"}
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "once", "namespace": namespace},
        "spec": {"template": {"spec": spec}},
    }
    kube.create(job)
    until(lambda: condition_of(kube.get("jobs.batch", "once", namespace), "Complete") == "True", 60)


def test_pod_security_refuses_a_privileged_pod_where_it_is_restricted(
    kube: Kube, namespace: str, make_namespace: MakeNamespace
) -> None:
    body = pod("root", namespace, hostNetwork=True)
    with pytest.raises(ApiError, match="violates PodSecurity"):
        kube.create(body)
    elsewhere = make_namespace({})
    kube.create({**body, "metadata": {"name": "root", "namespace": elsewhere}})


def test_a_listing_names_what_was_left(kube: Kube, namespace: str) -> None:
    before = listing(kube, namespaces=[namespace])
    kube.create(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "left", "namespace": namespace}}
    )
    with pytest.raises(NotInTime, match=f"left: .*'configmaps', '{namespace}', 'left'"):
        leaves_nothing(kube, before, 0.1, namespaces=[namespace])
    kube.delete("configmaps", "left", namespace)
    leaves_nothing(kube, before, namespaces=[namespace])


def test_stopping_leaves_no_process(tmp_path: Path) -> None:
    with ControlPlane(tmp_path) as running:
        pids = [process.pid for process in running.processes.values()]
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_the_control_plane_dies_with_the_tests_that_started_it(tmp_path: Path) -> None:
    program = (
        "import os, sys, pathlib; from controlplane import ControlPlane;"
        f"plane = ControlPlane(pathlib.Path({str(tmp_path)!r})).start();"
        "print(*(process.pid for process in plane.processes.values()), flush=True); os.kill(os.getpid(), 9)"
    )
    paths = os.pathsep.join(sys.path)
    started = subprocess.run(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": paths},
    )
    pids = [int(word) for word in started.stdout.split()]
    assert len(pids) == 5
    until(lambda: not [pid for pid in pids if Path(f"/proc/{pid}").exists()], 30)
