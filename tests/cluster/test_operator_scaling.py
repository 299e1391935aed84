"""Who says how many engines there are: the spec, `kubectl scale`, an autoscaler; and what becomes of those that go."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from controlplane import ControlPlane
from external_metrics import ExternalMetrics
from fake_nodes import FakeNodes
from kube_api import Kube, Object
from kube_objects import condition_of
from kwok_stages import BEHAVIOUR
from pod_watch import PodWatch
from stories import GROUPS, Site, names_of, settled, spec
from waiting import until

EXTERNAL: Object = {"scaling": {"mode": "External"}}


@pytest.fixture
def metrics(control_plane: ControlPlane, kube: Kube) -> Iterator[ExternalMetrics]:
    with ExternalMetrics(kube, control_plane.authority, control_plane.front_proxy_ca) as serving:
        yield serving


def external(**fields: object) -> Object:
    """A spec whose roles are scaled from outside."""
    wanted = spec(1, 1, **fields)
    for role in ("prefill", "decode"):
        wanted[role] = {**wanted[role], **EXTERNAL}
    return wanted


def writes_to_groups(site: Site, after: int) -> int:
    """Writes of the operator to engine groups, their status apart."""
    return sum(call.resource == GROUPS.partition(".")[0] for call in site.writes(after))


def test_kubectl_scale_of_an_engine_group_scales_its_role(site: Site) -> None:
    site.operator()
    site.apply(external())
    site.ready()
    assert site.condition("ScalingActive")["reason"] == "External"
    after = site.position()
    site.scale("decode", 3)
    until(lambda: site.serving("decode") == 3, 60)
    site.ready()
    scale = site.kube.get(GROUPS, "c-decode", site.namespace, "scale")
    until(lambda: site.kube.get(GROUPS, "c-decode", site.namespace, "scale")["status"]["replicas"] == 3, 30)
    assert "dualpath.io/node=0" in scale["status"]["selector"]
    site.scale("decode", 1)
    until(lambda: len(site.pods("decode")) == 1, 60)
    site.ready()
    assert writes_to_groups(site, after) == 0
    assert site.serving("prefill") == 1


def test_an_autoscaler_moves_a_role_and_nobody_fights_it(
    site: Site, kube: Kube, metrics: ExternalMetrics
) -> None:
    site.operator()
    site.apply(external())
    site.ready()
    metrics.values["depth"] = 30
    target = {"apiVersion": "dualpath.io/v1alpha1", "kind": "DualPathEngineGroup", "name": "c-decode"}
    value = {"metric": {"name": "depth"}, "target": {"type": "AverageValue", "averageValue": "10"}}
    kube.create(
        {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "scaler", "namespace": site.namespace},
            "spec": {
                "minReplicas": 1,
                "maxReplicas": 4,
                "scaleTargetRef": target,
                "metrics": [{"type": "External", "external": value}],
            },
        }
    )
    after = site.position()
    until(lambda: site.serving("decode") == 3, 90)
    site.ready()
    site.change(image="dualpath/worker:b")
    metrics.values["depth"] = 5
    until(lambda: len(site.pods("decode")) == 1, 120)
    site.ready()
    assert writes_to_groups(site, after) == 0


def test_the_count_stays_when_it_is_handed_over_and_comes_back_with_the_spec(site: Site) -> None:
    site.operator()
    site.apply(spec(1, 3))
    site.ready()
    before = names_of(site.pods())
    site.change(decode={"scaling": {"mode": "External", "replicas": None}})
    until(lambda: site.condition("ScalingActive")["reason"] == "External", 30)
    site.ready()
    settled(site.writes)
    assert site.group("decode")["spec"]["replicas"] == 3
    assert names_of(site.pods()) == before
    site.scale("decode", 2)
    until(lambda: len(site.pods("decode")) == 2, 60)
    site.change(decode={"scaling": {"mode": "Static", "replicas": 4}})
    until(lambda: site.serving("decode") == 4, 60)
    assert site.group("decode")["spec"]["replicas"] == 4


def test_scaling_from_outside_goes_on_in_a_rollout(site: Site) -> None:
    site.operator()
    site.apply(external(image="dualpath/worker:a"))
    site.ready()
    site.scale("prefill", 2)
    site.scale("decode", 2)
    until(lambda: site.serving("prefill") == site.serving("decode") == 2, 60)
    site.ready()
    with PodWatch(site) as watch:
        site.change(image="dualpath/worker:b")
        until(lambda: len(site.pods("decode")) == 3, 30)
        site.scale("decode", 3)
        until(lambda: {p["spec"]["containers"][0]["image"] for p in site.pods()} == {"dualpath/worker:b"}, 90)
        until(lambda: site.serving("decode") == 3, 60)
        site.ready()
    assert min(seen.serving("prefill") for seen in watch.seen) == 2
    assert min(seen.serving("decode") for seen in watch.seen) == 2


def test_a_role_goes_to_zero_and_comes_back(site: Site, kube: Kube) -> None:
    site.operator()
    site.apply(external())
    site.ready()
    for replicas in (0, 1):
        site.scale("decode", replicas)
        site.scale("prefill", replicas)
        until(lambda count=replicas: len(site.pods()) == 2 * count, 60)
        until(lambda count=replicas: site.status()["roles"]["decode"]["desired"] == count, 30)
        site.ready()
    assert condition_of(kube.get("deployments.apps", "c-gateway", site.namespace), "Available") == "True"


def test_an_engine_group_that_was_deleted_comes_back_with_its_count(site: Site, kube: Kube) -> None:
    site.operator()
    site.apply(external())
    site.ready()
    site.scale("decode", 3)
    until(lambda: site.serving("decode") == 3, 60)
    site.ready()
    uid = site.group("decode")["metadata"]["uid"]
    kube.delete(GROUPS, "c-decode", site.namespace)
    until(lambda: kube.find(GROUPS, "c-decode", site.namespace), 30)
    until(lambda: site.group("decode")["metadata"]["uid"] != uid, 30)
    until(lambda: site.serving("decode") == 3, 60)
    assert site.group("decode")["spec"]["replicas"] == 3
    until(lambda: "selector" in site.group("decode").get("status", {}), 30)
    site.scale("decode", 1)
    until(lambda: len(site.pods("decode")) == 1, 60)
    site.ready()


def test_engines_that_are_not_ready_go_first(site: Site, kube: Kube) -> None:
    site.operator()
    site.apply(external())
    site.ready()
    site.scale("decode", 3)
    until(lambda: site.serving("decode") == 3, 60)
    first, *others = names_of(site.pods("decode"))
    kube.annotate("pods", first, site.namespace, {BEHAVIOUR: "unready"})
    until(lambda: site.status()["roles"]["decode"]["ready"] == 2, 30)
    site.scale("decode", 2)
    until(lambda: names_of(site.pods("decode")) == others, 60)


def test_a_lost_node_is_replaced(site: Site, kube: Kube, fake_nodes: FakeNodes) -> None:
    label = {"test.dualpath.io/site": site.namespace}
    lost, kept = fake_nodes.add(1, labels=label)[0], fake_nodes.add(1, labels=label)[0]
    template = {"podTemplate": {"spec": {"nodeSelector": label}}}
    site.operator()
    site.apply(spec(2, 1, prefill=template, drain={"deadline": "1s"}))
    site.ready()
    stranded = [p for p in site.pods("prefill") if p["spec"]["nodeName"] == lost]
    assert len(stranded) == 1
    fake_nodes.lose(lost)
    until(lambda: site.serving("prefill") == 2, 90)
    assert {p["spec"]["nodeName"] for p in site.pods("prefill") if condition_of(p, "Ready") == "True"} == {
        kept
    }
    fake_nodes.restore(lost)
    until(lambda: len(site.pods("prefill")) == 2, 60)
    site.ready()
    fake_nodes.remove(lost)
    site.stop()
    fake_nodes.remove(kept)
