"""The DualPathCluster that the cluster's chart makes of values."""

from __future__ import annotations

from typing import Any

import pytest
from charts_bed import CLUSTER, SCENARIOS, of_kind, only, render
from kube_api import Object

from dualpath_api.cluster import DualPathCluster

MODEL: Object = {"model": {"uri": "hf://a/b"}}
CPU = {"type": "Resource", "resource": {"name": "cpu"}}


def spec_of(values: Object, **options: Any) -> Any:
    return only(render(CLUSTER, {**MODEL, **values}, **options), "DualPathCluster")["spec"]


@pytest.mark.parametrize(
    "scenario", [path for path in SCENARIOS if CLUSTER in path.parents], ids=lambda p: p.stem
)
def test_every_scenario_is_a_cluster_that_the_models_take(scenario: Any) -> None:
    body = only(render(CLUSTER, scenario), "DualPathCluster")
    assert DualPathCluster.model_validate(body, by_alias=True, by_name=False).metadata.namespace == "ns"


def test_a_model_is_all_that_is_needed() -> None:
    body = only(render(CLUSTER, MODEL, release="agents"), "DualPathCluster")
    assert body["metadata"]["name"] == "agents"
    assert body["spec"]["model"] == {"uri": "hf://a/b", "servedName": "agents"}
    assert body["spec"]["prefill"]["scaling"] == {"mode": "Static", "replicas": 1}
    assert body["spec"]["storage"] == {"files": {"size": "100Gi"}}


@pytest.mark.parametrize("mode", ["External", "Planner"])
@pytest.mark.parametrize("by_spec", [True, False])
def test_replicas_are_never_rendered_where_somebody_else_says_them(mode: str, by_spec: bool) -> None:
    role: Object = {"scaling": {"mode": mode, "replicas": 3, "maxReplicas": 4}}
    values = (
        {"spec": {"prefill": role}}
        if by_spec
        else {"prefill": {"mode": mode, "replicas": 3, "maxReplicas": 4}}
    )
    scaling = spec_of(values)["prefill"]["scaling"]
    assert scaling["mode"] == mode
    assert "replicas" not in scaling


def test_static_replicas_come_from_either_place_and_the_spec_wins() -> None:
    assert spec_of({"decode": {"replicas": 0}})["decode"]["scaling"]["replicas"] == 0
    both = {"decode": {"replicas": 2}, "spec": {"decode": {"scaling": {"replicas": 5}}}}
    assert spec_of(both)["decode"]["scaling"] == {"mode": "Static", "replicas": 5}


def test_the_spec_is_laid_over_the_values_and_replaces_storage_as_a_whole() -> None:
    over = {
        "prefill": {"resources": {"gpus": 8}, "batching": {"maxTokens": 1048576}},
        "storage": {"external": {"endpoints": ["store:2379"]}},
        "paused": True,
    }
    spec = spec_of({"prefill": {"dramBuffer": "8Gi"}, "spec": over})
    assert spec["prefill"]["resources"] == {"gpus": 8, "dramBuffer": "8Gi", "kvCache": "4Gi"}
    assert spec["prefill"]["batching"]["maxTokens"] == 1048576
    assert spec["storage"] == over["storage"]
    assert spec["paused"] is True


def test_an_autoscaler_is_made_for_external_roles_with_metrics() -> None:
    values = {
        **MODEL,
        "prefill": {"mode": "External", "minReplicas": 2, "maxReplicas": 6, "metrics": [CPU]},
        "decode": {"mode": "External", "maxReplicas": 6},
    }
    (autoscaler,) = of_kind(render(CLUSTER, values, release="agents"), "HorizontalPodAutoscaler")
    assert autoscaler["spec"] == {
        "scaleTargetRef": {
            "apiVersion": "dualpath.io/v1alpha1",
            "kind": "DualPathEngineGroup",
            "name": "agents-prefill",
        },
        "minReplicas": 2,
        "maxReplicas": 6,
        "metrics": [CPU],
    }


def test_labels_and_annotations_are_the_users() -> None:
    values = {**MODEL, "labels": {"team": "a"}, "annotations": {"x": "y"}}
    metadata = only(render(CLUSTER, values), "DualPathCluster")["metadata"]
    assert metadata["labels"]["team"] == "a"
    assert metadata["annotations"] == {"x": "y"}
