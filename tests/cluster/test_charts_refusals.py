"""Values that the charts do not take, and what they say then: the value's name, and what to set instead."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from charts_bed import CLUSTER, CRDS, OPERATOR, refusal
from kube_api import Object

MODEL: Object = {"model": {"uri": "hf://a/b"}}


def sections(schema: Object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Paths of the sections of a schema that take known keys only."""
    if schema.get("additionalProperties") is False:
        yield path
        for name, inner in schema["properties"].items():
            yield from sections(inner, (*path, name))


def closed_sections() -> Iterator[Any]:
    for chart in (CRDS, OPERATOR, CLUSTER):
        schema = json.loads((chart / "values.schema.json").read_text())
        for path in sections(schema):
            yield pytest.param(chart, path, id=".".join((chart.name, *path)))


def nested(path: Sequence[str], value: Any) -> Any:
    """{a: {b: value}} for the path (a, b)."""
    for name in reversed(path):
        value = {name: value}
    return value


@pytest.mark.parametrize(("chart", "path"), closed_sections())
def test_a_key_that_no_section_has_is_refused_by_name(chart: Path, path: tuple[str, ...]) -> None:
    said = refusal(chart, nested((*path, "noSuchKey"), 1))
    assert "additional properties 'noSuchKey' not allowed" in said
    assert f"'/{'/'.join(path)}'" in said or not path


@pytest.mark.parametrize(
    ("values", "place", "why"),
    [
        ({"replicaCount": 0}, "/replicaCount", "minimum"),
        ({"replicaCount": "two"}, "/replicaCount", "want integer"),
        ({"image": {"digest": "sha256:12"}}, "/image/digest", "pattern"),
        ({"image": {"pullPolicy": "Sometimes"}}, "/image/pullPolicy", "'Always', 'IfNotPresent', 'Never'"),
        ({"rbac": {"scope": "everything"}}, "/rbac/scope", "'cluster', 'namespaced'"),
        ({"watchNamespaces": "team-a"}, "/watchNamespaces", "want array"),
        ({"watchNamespaces": ["a", "a"]}, "/watchNamespaces", "equal"),
        ({"watchNamespaces": ["Team"]}, "/watchNamespaces/0", "pattern"),
        ({"leaderElection": {"leaseDuration": "1m"}}, "/leaderElection/leaseDuration", "pattern"),
        ({"webhook": {"failurePolicy": "Retry"}}, "/webhook/failurePolicy", "'Fail', 'Ignore'"),
        ({"webhook": {"timeoutSeconds": 31}}, "/webhook/timeoutSeconds", "maximum"),
        ({"webhook": {"certificate": {"source": "vault"}}}, "/webhook/certificate/source", "'generated'"),
        ({"log": {"level": "loud"}}, "/log/level", "'DEBUG'"),
        ({"config": {"resync": "5"}}, "/config/resync", "pattern"),
        ({"extraEnv": [{"name": "POD_NAME", "value": "x"}]}, "/extraEnv/0/name", "not"),
        ({"extraVolumes": [{"name": "tmp"}]}, "/extraVolumes/0/name", "not"),
        ({"networkPolicy": {"apiServerPorts": []}}, "/networkPolicy/apiServerPorts", "minItems"),
        ({"fullnameOverride": "x" * 46}, "/fullnameOverride", "maxLength"),
    ],
)
def test_a_value_out_of_range_is_refused_at_its_place(values: Object, place: str, why: str) -> None:
    said = refusal(OPERATOR, values)
    assert f"'{place}'" in said
    assert why in said


def certificate(**values: Any) -> Object:
    return {"webhook": {"certificate": values}}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (certificate(source=""), "webhooks are on and webhook.certificate.source is empty"),
        (certificate(source="existingSecret"), "webhook.certificate.existingSecret is empty. Set it to"),
        (
            certificate(source="existingSecret", existingSecret="x"),
            "webhook.certificate.caBundle is empty: the API server would not trust",
        ),
        (certificate(existingSecret="x"), 'the source is "generated". Set webhook.certificate.source to'),
        (
            certificate(caBundle="-----BEGIN CERTIFICATE-----"),
            'caBundle is for source existingSecret; with source "generated"',
        ),
        (certificate(issuerRef={"name": "x"}), "Set webhook.certificate.source to certManager"),
        (
            {"leaderElection": {"leaseDuration": "10s"}},
            "leaseDuration (10s) must be more than renewDeadline (10s)",
        ),
        (
            {"leaderElection": {"retryPeriod": "12s"}},
            "and that more than twice retryPeriod (12s); else two leaders are possible",
        ),
        ({"serviceAccount": {"create": False}}, "Set serviceAccount.name."),
        (
            {"commonLabels": {"app.kubernetes.io/name": "x"}},
            "commonLabels has the label app.kubernetes.io/name",
        ),
        (
            {"podLabels": {"dualpath.io/cluster": "x"}},
            "podLabels has the label dualpath.io/cluster: labels of",
        ),
        (
            {"metrics": {"prometheusRule": {"disabled": ["NoSuch"]}}},
            "names NoSuch, which is no alert. Alerts are: DualPathStaleTelemetry,",
        ),
    ],
)
def test_values_that_contradict_each_other_are_refused_with_a_remedy(values: Object, message: str) -> None:
    assert message in refusal(OPERATOR, values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "no model is named. Set model.uri"),
        ({"model": {"uri": "gs://x"}}, "'/model/uri'"),
        ({**MODEL, "name": "Big"}, "'/name'"),
        ({**MODEL, "name": "x" * 41}, "'/name'"),
        ({**MODEL, "prefill": {"replicas": 65}}, "'/prefill/replicas'"),
        ({**MODEL, "decode": {"mode": "Auto"}}, "'Static', 'External', 'Planner'"),
        ({**MODEL, "spec": {"prefill": {"skaling": {}}}}, "'/spec/prefill': additional properties 'skaling'"),
        (
            {**MODEL, "spec": {"kv": {"blockTokens": 63}}},
            "'/spec/kv/blockTokens': value must be one of 16, 32",
        ),
        ({**MODEL, "prefill": {"kvCache": "much"}}, "'/prefill/kvCache'"),
        ({**MODEL, "labels": {"helm.sh/chart": "x"}}, "labels has the label helm.sh/chart"),
        ({**MODEL, "prefill": {"mode": "Planner"}}, "prefill.mode is Planner: set prefill.maxReplicas."),
        (
            {**MODEL, "spec": {"decode": {"scaling": {"mode": "Planner"}}}},
            "decode.mode is Planner: set decode.maxReplicas.",
        ),
        (
            {**MODEL, "decode": {"metrics": [{"type": "Resource"}]}},
            "decode.metrics are for mode External, but the mode is Static.",
        ),
        (
            {**MODEL, "decode": {"mode": "External", "metrics": [{"type": "Resource"}]}},
            "decode.metrics make an autoscaler, which needs decode.maxReplicas.",
        ),
    ],
)
def test_the_cluster_chart_refuses_what_cannot_become_a_cluster(values: Object, message: str) -> None:
    assert message in refusal(CLUSTER, values)


def test_a_release_whose_name_no_cluster_may_have_asks_for_one() -> None:
    assert "Set name." in refusal(CLUSTER, MODEL, release="9lives")
    assert "Set name." in refusal(CLUSTER, MODEL, release="r" * 41)
