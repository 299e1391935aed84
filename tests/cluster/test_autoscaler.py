"""The autoscaler of the control plane follows a metric that a test sets, on anything with /scale."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from controlplane import ControlPlane
from external_metrics import ExternalMetrics
from kube_api import Kube, Object
from kube_objects import pod
from waiting import until


@pytest.fixture
def metrics(control_plane: ControlPlane, kube: Kube) -> Iterator[ExternalMetrics]:
    with ExternalMetrics(kube, control_plane.authority, control_plane.front_proxy_ca) as serving:
        yield serving


def autoscaler(namespace: str, target: Object, metric: str, each: int) -> Object:
    """An autoscaler between 1 and 4 replicas at `each` of the metric a replica."""
    source = {"metric": {"name": metric}, "target": {"type": "AverageValue", "averageValue": str(each)}}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "scaler", "namespace": namespace},
        "spec": {
            "minReplicas": 1,
            "maxReplicas": 4,
            "scaleTargetRef": target,
            "metrics": [{"type": "External", "external": source}],
        },
    }


def test_replicas_follow_an_external_metric_up_and_down(
    metrics: ExternalMetrics, kube: Kube, namespace: str
) -> None:
    labels = {"app": "web"}
    template = {"metadata": {"labels": labels}, "spec": pod("unused", namespace)["spec"]}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": namespace},
        "spec": {"selector": {"matchLabels": labels}, "template": template},
    }
    kube.create(deployment)
    metrics.values["queue"] = 30
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    kube.create(autoscaler(namespace, target, "queue", 10))
    until(lambda: kube.get("deployments.apps", "web", namespace, "scale")["spec"]["replicas"] == 3, 90)
    metrics.values["queue"] = 5
    until(lambda: kube.get("deployments.apps", "web", namespace, "scale")["spec"]["replicas"] == 1, 90)
