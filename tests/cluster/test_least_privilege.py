"""Least privilege, proven: the operator plays all its stories with the chart's rights, and uses every one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from kube_api import ApiError, Kube, Object
from rights import BY_ADMISSION, Bounded, install_optional_kinds, remove_optional_kinds
from stories import ACCOUNT, CLUSTERS, Bed, Site, spec
from waiting import until

from dualpath_operator import kinds

CLAIMS = "persistentvolumeclaims"
DRA = {"mode": "DRA", "compute": {"deviceClass": "nic"}, "storage": {"deviceClass": "snic"}}
ROUTES = {
    "inferencePool": {"enabled": True, "endpointPicker": "picker"},
    "httpRoute": {"parentRefs": [{"name": "gw"}]},
}
CHILDREN = [
    f"{kind.plural}.{kind.group}" if kind.group else kind.plural
    for kind in (*kinds.CHILDREN, *kinds.OPTIONAL)
    if kind.watched
]
NAMES = {
    "podmonitors.monitoring.coreos.com": "c",
    "httproutes.gateway.networking.k8s.io": "c",
    "inferencepools.inference.networking.k8s.io": "c",
    "networkpolicies.networking.k8s.io": "c",
}


@pytest.fixture(scope="module")
def optional_kinds(bed: Bed) -> Iterator[None]:
    install_optional_kinds(bed.kube)
    yield
    remove_optional_kinds(bed.kube)


@pytest.fixture(params=["cluster", "namespaced"])
def bounded(
    request: pytest.FixtureRequest, bed: Bed, namespace: str, optional_kinds: None
) -> Iterator[Bounded]:
    site = Bounded(bed, namespace, request.param)
    yield site
    site.stop()
    site.revoke()


def drift(site: Bounded, name: str) -> None:
    """Somebody changes a label of everything that a cluster has; it is put right."""
    component = "app.kubernetes.io/component"
    for kind, body in children(site, name):
        label = {"metadata": {"labels": {component: "theirs"}}}
        site.kube.patch(kind, body["metadata"]["name"], label, site.namespace)

    def right() -> bool:
        found = [(kind, body["metadata"]) for kind, body in children(site, name)]
        left = [(kind, meta["name"]) for kind, meta in found if meta["labels"][component] == "theirs"]
        assert not left, left
        return True

    until(right, 60, what="every label to be put right")


def children(site: Bounded, name: str) -> list[tuple[str, Object]]:
    """What the operator has made for a cluster, but Pods; with its kind."""
    return [
        (kind, body)
        for kind in CHILDREN
        for body in site.kube.all(kind, site.namespace, {"dualpath.io/cluster": name})
        if "dualpath.io/intent-hash" in body["metadata"].get("annotations", {})
    ]


def serve_change_and_prune(site: Bounded) -> None:
    """A cluster with everything that a Pod network allows: made, drifted, rolled out, scaled, suspended, pruned."""
    kube, namespace = site.kube, site.namespace
    site.apply(spec(ingress=ROUTES))
    site.ready()
    for resource, name in NAMES.items():
        assert kube.find(resource, name, namespace), resource
    drift(site, "c")
    first = site.revision()
    site.change(image="dualpath/worker:other")
    until(lambda: site.revision() != first, 60)
    site.ready()
    until(
        lambda: kube.find("configmaps", f"c-{first}", namespace) is None, 60, what="the former revision to go"
    )
    site.change(decode={"scaling": {"mode": "External"}})
    site.ready()
    site.scale("decode", 2)
    until(lambda: site.serving("decode") == 2, 60)
    site.change(suspend=True)
    until(lambda: not site.pods(), 60, what="suspended engines to go")
    site.change(
        suspend=False,
        ingress={"httpRoute": None, "inferencePool": {"enabled": False}},
        security={"networkPolicy": "None"},
        observability={"podMonitor": "Never"},
    )
    site.ready()
    for resource, name in NAMES.items():
        until(lambda r=resource, n=name: kube.find(r, n, namespace) is None, 60, what=f"{resource} to go")  # type: ignore[misc]
    site.change(storage={"retention": "Retain"})
    until(lambda: "ownerReferences" not in kube.get(CLAIMS, "c-store", namespace)["metadata"], 60)


def keep_a_store_and_claim_devices(site: Bounded) -> None:
    """A managed store, engines with claimed NICs; then an etcd of somebody else's, and no NICs."""
    kube, namespace = site.kube, site.namespace
    body = site.body(spec(fabric=DRA, storage={"managed": {"size": "1Gi"}, "files": None}))
    body["metadata"]["name"] = "m"
    del body["spec"]["storage"]["files"]
    kube.apply(body)
    stateful, templates = "statefulsets.apps", "resourceclaimtemplates.resource.k8s.io"
    until(lambda: kube.find(stateful, "m-etcd", namespace) and kube.all(templates, namespace), 60)
    drift(site, "m")
    theirs: Object = {"managed": {"etcd": {"endpoints": ["etcd.infra:2379"]}}}
    kube.patch(CLUSTERS, "m", {"spec": {"storage": theirs, "fabric": None}}, namespace)
    until(lambda: kube.find(stateful, "m-etcd", namespace) is None, 60, what="the etcd to go")
    until(lambda: not kube.all(templates, namespace), 60, what="the templates of claims to go")
    kube.delete(CLUSTERS, "m", namespace)
    until(lambda: kube.find(CLUSTERS, "m", namespace) is None, 90)


def test_the_operator_needs_and_has_the_same_rights(bounded: Bounded) -> None:
    first = bounded.operator("first", **bounded.settings)
    until(lambda: first.leads, 60)
    serve_change_and_prune(bounded)
    keep_a_store_and_claim_devices(bounded)
    second = bounded.operator("second", **bounded.settings)
    first.stop()
    until(lambda: second.leads, 60)
    bounded.delete()
    bounded.gone()
    second.stop()
    unused, not_granted = bounded.unused(), bounded.not_granted()
    print("granted, not used:", *unused, "used, not granted:", *not_granted, sep="\n  ")
    assert (unused, not_granted) == ([], [])
    assert not any("*" in (one.verb, one.group, one.resource) for one in bounded.granted())
    namespaces = {call.namespace for call in bounded.calls() if not call.path}
    if bounded.settings["watchNamespaces"]:
        assert namespaces == {bounded.namespace}
    else:  # clusters of earlier tests may be left in other namespaces
        assert {bounded.namespace, ""} <= namespaces


def owned_by(kind: str) -> Callable[[Kube, Site], Object]:
    """Making an object for which its owner waits."""

    def make(operator: Kube, site: Site) -> Object:
        owner = site.get() if kind == "DualPathCluster" else site.group("decode")
        reference = {"apiVersion": owner["apiVersion"], "kind": kind, "blockOwnerDeletion": True}
        reference |= {key: owner["metadata"][key] for key in ("name", "uid")}
        metadata = {"name": "a", "namespace": site.namespace, "ownerReferences": [reference]}
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}
        return operator.create(body, dryRun="All")

    return make


def let_go(operator: Kube, site: Site) -> Object:
    """Taking the owner off a claim."""
    path = operator.resource(CLAIMS).path(site.namespace, "c-store")
    body = {"metadata": {"ownerReferences": None}}
    query = {"dryRun": "All"}
    found: Object = operator.request(
        "PATCH", path, body, content_type="application/merge-patch+json", query=query
    )
    return found


NEEDS = {
    ("update", "dualpathclusters/finalizers"): owned_by("DualPathCluster"),
    ("update", "dualpathenginegroups/finalizers"): owned_by("DualPathEngineGroup"),
    ("delete", "persistentvolumeclaims"): let_go,
}


def test_rights_that_only_admission_asks_for_are_needed_too(bed: Bed, namespace: str) -> None:
    assert set(NEEDS) == BY_ADMISSION
    site = Bounded(bed, namespace, "namespaced")
    leading = site.operator()
    operator = Kube(bed.plane.for_service_account(namespace, ACCOUNT))
    site.apply(spec())
    site.ready()
    leading.stop()
    for (verb, resource), attempt in NEEDS.items():
        attempt(operator, site)
        site.take_away(verb, resource)

        def refused(attempt: Callable[[Kube, Site], Object] = attempt) -> bool:
            try:
                attempt(operator, site)
            except ApiError as error:
                return error.code == 403
            return False

        until(refused, 30, what=f"a refusal without {verb} of {resource}")
