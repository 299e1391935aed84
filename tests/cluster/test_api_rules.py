"""The API server takes the good samples and refuses each bad one with its rule's message; Python agrees."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from api_schema import fields, probes, rules, schema_of, spec_schema, stands_in
from kube_api import ApiError, Kube, Object
from samples import BAD, MINIMAL, Bad, changed, cluster, good

from dualpath_api.crd import cluster_crd, group_crd
from dualpath_api.errors import SpecError
from dualpath_api.loading import build_cluster

pytestmark = pytest.mark.usefixtures("definitions")
CLUSTERS = "dualpathclusters.dualpath.io"
GOOD = good()
ALONE = [bad for bad in BAD if bad.then is None]
CHANGES = [bad for bad in BAD if bad.then is not None]


def causes(error: ApiError) -> list[tuple[str, str]]:
    """(field, message) of a refusal; the object itself has no field."""
    assert error.code in (400, 422), error
    found = error.status.get("details", {}).get("causes") or [{"message": error.message}]
    return [(one.get("field", "").replace("<nil>", ""), one["message"]) for one in found]


def refused(kube: Kube, body: Object) -> list[tuple[str, str]]:
    """What the API server has against an object; empty when it takes it."""
    try:
        kube.create(body, dryRun="All", fieldValidation="Strict")
    except ApiError as error:
        return causes(error)
    return []


def python_takes(body: Object) -> bool:
    try:
        build_cluster(body, source="sample")
    except SpecError:
        return False
    return True


@pytest.mark.parametrize("name", GOOD)
def test_a_good_sample_is_taken_by_the_api_server_and_by_python(name: str, kube: Kube) -> None:
    assert refused(kube, cluster(GOOD[name])) == []
    assert python_takes(cluster(GOOD[name]))


def test_every_rule_has_a_bad_sample() -> None:
    definitions = (cluster_crd(), group_crd())
    rules_of = {(path, message) for crd in definitions for path, _, message in rules(schema_of(crd))}
    assert rules_of == {(bad.path, bad.message) for bad in BAD}


@pytest.mark.parametrize("bad", ALONE, ids=str)
def test_a_bad_sample_is_refused_by_its_rule_alone(bad: Bad, kube: Kube) -> None:
    body = cluster(changed(MINIMAL, bad.spec), bad.name)
    found = {(path, message.rpartition('": ')[2]) for path, message in refused(kube, body)}
    assert (bad.path, bad.message) in found
    assert bad.also or len(found) == 1, found
    assert not python_takes(body)


def test_changes_of_what_stays_as_it_is_are_refused_and_others_taken(kube: Kube, namespace: str) -> None:
    kube.create(cluster(MINIMAL, namespace=namespace))
    path = kube.resource(CLUSTERS).path(namespace, "sample")

    def update(spec: Object) -> Object:
        body = kube.get(CLUSTERS, "sample", namespace) | {"spec": spec}
        updated: Object = kube.request("PUT", path, body, query={"dryRun": "All"})
        return updated

    for bad in CHANGES:
        assert bad.then is not None
        with pytest.raises(ApiError) as refusal:
            update(changed(MINIMAL, bad.then))
        ((where, message),) = causes(refusal.value)
        assert (where, message.rpartition(": ")[2]) == (bad.path, bad.message)
    assert update(changed(MINIMAL, {"model.servedName": "b"}))["spec"]["model"]["servedName"] == "b"


def probed() -> Iterator[Object]:
    """Good specs with one field set to something: at the limits, beside them, of another type."""
    bases = [GOOD[name] for name in ("full", "managed", "external")]
    for path, schema in fields(spec_schema()):
        if "{}" not in path and not path.startswith("decode"):  # decode is as prefill
            base = next(base for base in bases if stands_in(base, path))
            for value in probes(schema):
                yield cluster(changed(base, {path.replace("[]", "[0]"): value}))


def test_python_and_the_api_server_agree_on_values_at_the_limits_of_every_field(kube: Kube) -> None:
    bodies = list(probed())
    with ThreadPoolExecutor(8) as threads:
        taken = [not found for found in threads.map(partial(refused, kube), bodies)]
    assert 100 < sum(taken) < len(taken) - 100
    disagreed = [
        body["spec"] for body, by_server in zip(bodies, taken, strict=True) if by_server != python_takes(body)
    ]
    assert disagreed == []
