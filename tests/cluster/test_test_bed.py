"""The test bed itself: what the other tests of this folder rest on."""

from __future__ import annotations

from functools import partial
from typing import Any

from kube_api import Kube
from kube_objects import condition, has_condition, pod
from kwok_stages import BEHAVIOUR
from waiting import until

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
