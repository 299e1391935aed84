"""Our kinds as kubectl, autoscalers and server-side apply see them on a real API server."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from api_schema import schema_of
from controlplane import ControlPlane
from kube_api import ApiError, Kube, Object
from pydantic import BaseModel
from samples import MINIMAL, changed, cluster

from dualpath_api.crd import cluster_crd, group_crd
from dualpath_api.loading import build_cluster
from dualpath_api.status import ClusterStatus, GroupStatus

pytestmark = pytest.mark.usefixtures("definitions")
CLUSTERS, GROUPS = "dualpathclusters.dualpath.io", "dualpathenginegroups.dualpath.io"
NOW = "2026-01-01T00:00:00Z"
STATUS: Object = {
    "conditions": [
        {
            "type": "Ready",
            "status": "True",
            "reason": "AllRolesServing",
            "lastTransitionTime": NOW,
            "observedGeneration": 1,
        },
    ],
    "revision": {"current": "aaaa1111", "updated": "bbbb2222"},
    "roles": {"prefill": {"summary": "1/2"}, "decode": {"summary": "3/4"}},
    "paths": {"decodeSharePermille": {"target": 620}, "kvHitPermille": 870},
    "nics": {"storageP95": "71% P"},
    "endpoints": [{"name": "openai", "url": "http://sample.ns.svc:8000/v1"}],
}
GROUP: Object = {
    "apiVersion": "dualpath.io/v1alpha1",
    "kind": "DualPathEngineGroup",
    "spec": {"cluster": "sample", "role": "decode"},
}


def written(kube: Kube, namespace: str, spec: Object = MINIMAL, status: Object | None = None) -> Object:
    body = kube.create(cluster(spec, namespace=namespace))
    if status is None:
        return body
    return kube.patch(CLUSTERS, "sample", {"status": status}, namespace, "status")


def columns(control_plane: ControlPlane, namespace: str, *what: str) -> list[dict[str, str]]:
    """What `kubectl get` prints, by column."""
    told = control_plane.kubectl("get", "--namespace", namespace, *what)
    names, *rows = [re.split(r" {2,}", line.strip()) for line in told.splitlines()]
    return [dict(zip(names, row, strict=True)) for row in rows]


def test_kubectl_get_dpc_tells_the_story(control_plane: ControlPlane, kube: Kube, namespace: str) -> None:
    written(kube, namespace, status=STATUS)
    (row,) = columns(control_plane, namespace, "dpc")
    assert row.pop("AGE")
    assert row == {
        "NAME": "sample",
        "READY": "True",
        "REASON": "AllRolesServing",
        "P": "1/2",
        "D": "3/4",
        "DECODESHARE": "620",
        "STORAGENIC-P95": "71% P",
        "REVISION": "bbbb2222",
    }
    (wide,) = columns(control_plane, namespace, "dpc", "-o", "wide")
    assert (wide["HIT"], wide["URL"]) == ("870", "http://sample.ns.svc:8000/v1")


def test_our_kinds_have_short_names_and_categories(
    control_plane: ControlPlane, kube: Kube, namespace: str
) -> None:
    written(kube, namespace)
    kube.create({**GROUP, "metadata": {"name": "sample-decode", "namespace": namespace}})
    get = ("get", "--namespace", namespace, "-o", "name")
    both = {"dualpathcluster.dualpath.io/sample", "dualpathenginegroup.dualpath.io/sample-decode"}
    assert set(control_plane.kubectl(*get, "dualpath").split()) == both
    assert set(control_plane.kubectl(*get, "dpc,dpeg").split()) == both
    assert "dualpathcluster.dualpath.io/sample" in control_plane.kubectl(*get, "all").split()


def test_kubectl_wait_and_explain_work(control_plane: ControlPlane, kube: Kube, namespace: str) -> None:
    written(kube, namespace, status=STATUS)
    wait = ("wait", "--namespace", namespace, "--for=condition=Ready", "dpc/sample", "--timeout=5s")
    assert "condition met" in control_plane.kubectl(*wait)
    assert "Tokens of a block" in control_plane.kubectl("explain", "dpc.spec.kv.blockTokens")


def test_kubectl_scale_and_autoscalers_use_the_scale_of_an_engine_group(
    control_plane: ControlPlane, kube: Kube, namespace: str
) -> None:
    kube.create({**GROUP, "metadata": {"name": "sample-decode", "namespace": namespace}})
    assert kube.get(GROUPS, "sample-decode", namespace)["spec"]["replicas"] == 1
    status = {"replicas": 2, "readyReplicas": 1, "selector": "dualpath.io/cluster=sample"}
    kube.patch(GROUPS, "sample-decode", {"status": status}, namespace, "status")
    scale = kube.get(GROUPS, "sample-decode", namespace, "scale")
    assert scale["spec"] == {"replicas": 1}
    assert scale["status"] == {"replicas": 2, "selector": "dualpath.io/cluster=sample"}
    control_plane.kubectl("scale", "--namespace", namespace, "dpeg/sample-decode", "--replicas=3")
    assert kube.get(GROUPS, "sample-decode", namespace)["spec"]["replicas"] == 3
    (row,) = columns(control_plane, namespace, "dpeg")
    assert (row["CLUSTER"], row["ROLE"], row["DESIRED"], row["REPLICAS"], row["READY"]) == (
        "sample", "decode", "3", "2", "1",
    )  # fmt: skip


def test_two_managers_own_different_items_of_one_list(kube: Kube, namespace: str) -> None:
    body = cluster(MINIMAL, namespace=namespace)
    kube.apply(body, manager="owner")

    def add(name: str, manager: str) -> None:
        item = {**body, "spec": {"imagePullSecrets": [{"name": name}]}}
        kube.apply(item, manager=manager, force="false")

    add("of-a", "a")
    add("of-b", "b")

    def secrets() -> set[str]:
        found = kube.get(CLUSTERS, "sample", namespace)["spec"]["imagePullSecrets"]
        return {one["name"] for one in found}

    assert secrets() == {"of-a", "of-b"}
    add("of-c", "b")
    assert secrets() == {"of-a", "of-c"}
    conditions = [{**STATUS["conditions"][0], "type": kind} for kind in ("Ready", "Mine")]
    for one in conditions:
        status = {**body, "status": {"conditions": [one]}}
        del status["spec"]
        path = kube.resource(CLUSTERS).path(namespace, "sample", "status")
        query = {"fieldManager": one["type"], "force": "false"}
        kube.request("PATCH", path, status, content_type="application/apply-patch+yaml", query=query)
    found = kube.get(CLUSTERS, "sample", namespace)["status"]["conditions"]
    assert [one["type"] for one in found] == ["Ready", "Mine"]


def test_a_value_of_another_manager_is_a_conflict_that_names_it(kube: Kube, namespace: str) -> None:
    kube.apply(cluster(MINIMAL, namespace=namespace), manager="owner")
    other = cluster(changed(MINIMAL, {"model.servedName": "other"}), namespace=namespace)
    with pytest.raises(ApiError, match=r'conflict with "owner".*\.spec\.model\.servedName'):
        kube.apply(other, manager="other", force="false")


def test_unknown_fields_are_refused_by_kubectl_and_warned_of_and_dropped_else(
    control_plane: ControlPlane, kube: Kube, namespace: str
) -> None:
    body = cluster(changed(MINIMAL, {"prefill.replica": 3}), namespace=namespace)
    told = control_plane.kubectl("create", "-f", "-", stdin=json.dumps(body), check=False)
    assert 'unknown field "spec.prefill.replica"' in told
    warned = control_plane.kubectl("create", "--validate=warn", "-f", "-", stdin=json.dumps(body))
    assert 'Warning: unknown field "spec.prefill.replica"' in warned
    assert "replica" not in kube.get(CLUSTERS, "sample", namespace)["spec"]["prefill"]


def test_defaults_are_filled_in_and_are_those_of_the_models(kube: Kube, namespace: str) -> None:
    spec = written(kube, namespace)["spec"]
    assert spec["kv"] == {"blockTokens": 64}
    assert spec["prefill"]["scaling"] == {"mode": "Static", "replicas": 1}
    assert spec["pathPolicy"]["retune"]["interval"] == "10s"
    assert spec["prefill"]["batching"] == {"computeQuota": "300ms", "maxTokens": 4096}
    plain = {"mode": "None", "rdma": False, "localCopies": "Direct"}
    assert spec["fabric"] == {**plain, "preflight": True, "onMismatch": "Fail"}
    assert spec["rollout"]["progressDeadline"] == "7200s"
    assert "hardware" not in spec
    assert "httpRoute" not in spec["ingress"]


def test_a_spec_with_its_defaults_means_the_same_as_without(kube: Kube, namespace: str) -> None:
    body = written(kube, namespace)
    body["metadata"] = {"name": "sample", "namespace": namespace}
    with_defaults = build_cluster(body, source="server")
    assert with_defaults == build_cluster(cluster(MINIMAL, namespace=namespace), source="file")


def most(schema: Object) -> Any:
    """The largest value of a schema."""
    if "enum" in schema:
        return schema["enum"][0]
    if schema["type"] == "object":
        return {name: most(inner) for name, inner in schema["properties"].items()}
    if schema["type"] == "array":
        return [most(schema["items"])]
    return "a" * schema["maxLength"] if schema["type"] == "string" else schema.get("maximum", (1 << 31) - 1)


@pytest.mark.parametrize(
    ("resource", "definition", "model"),
    [(CLUSTERS, cluster_crd(), ClusterStatus), (GROUPS, group_crd(), GroupStatus)],
    ids=["cluster", "group"],
)
def test_the_api_server_keeps_every_status_that_the_models_make(
    resource: str, definition: Object, model: type[BaseModel], kube: Kube, namespace: str
) -> None:
    largest = most(schema_of(definition)["properties"]["status"])
    for status in (model.model_validate(largest), model()):
        printed = status.model_dump(mode="json", by_alias=True, exclude_none=True)
        body = cluster(MINIMAL, namespace=namespace)
        body |= {} if resource == CLUSTERS else GROUP | {"metadata": body["metadata"]}
        kube.apply(body)
        path = kube.resource(resource).path(namespace, "sample", "status")
        wanted = {key: body[key] for key in ("apiVersion", "kind", "metadata")} | {"status": printed}
        query = {"fieldManager": "operator", "force": "true", "fieldValidation": "Strict"}
        kept = kube.request("PATCH", path, wanted, content_type="application/apply-patch+yaml", query=query)[
            "status"
        ]
        assert {key: kept.get(key, []) for key in printed} == printed
