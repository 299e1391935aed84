"""The revision changes with what engines are made of, and with nothing else."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.operator.desired_world import AROUND, LOCAL, MANAGED, NODES, changed, cluster_of, revision

from dualpath_operator.model import Images, Surroundings


def spec_with(**parts) -> dict:
    return copy.deepcopy({**LOCAL, **parts})


NOT_THE_ENGINES = st.fixed_dictionaries(
    {},
    optional={
        "gateway": st.fixed_dictionaries(
            {},
            optional={
                "cpu": st.sampled_from(["1", "500m"]),
                "memory": st.sampled_from(["1Gi", "2Gi"]),
                "image": st.sampled_from(["a:1", "b:2"]),
                "service": st.fixed_dictionaries(
                    {"type": st.sampled_from(["ClusterIP", "NodePort", "LoadBalancer"])}
                ),
                "podTemplate": st.just({"metadata": {"labels": {"team": "a"}}}),
            },
        ),
        "pathPolicy": st.fixed_dictionaries(
            {"mode": st.sampled_from(["PrefillOnly", "DecodeOnly", "Split", "Auto"])},
            optional={"decodeShare": st.builds(lambda n: {"initialPermille": n}, st.integers(0, 1000))},
        ),
        "rollout": st.builds(
            lambda strategy, surge: {"strategy": strategy, "maxSurge": surge, "maxUnavailable": 1},
            st.sampled_from(["Coordinated", "Recreate"]),
            st.integers(0, 64),
        ),
        "drain": st.builds(lambda s: {"deadline": f"{s}s"}, st.integers(1, 86400)),
        "disruption": st.builds(lambda n: {"maxUnavailable": n}, st.integers(0, 64)),
        "security": st.builds(lambda p: {"networkPolicy": p}, st.sampled_from(["Managed", "None"])),
        "ingress": st.just({"httpRoute": {"parentRefs": [{"name": "gw"}], "hostnames": ["a.example"]}}),
        "observability": st.builds(lambda m: {"podMonitor": m}, st.sampled_from(["Auto", "Always", "Never"])),
        "hardware": st.just({"computeNics": 8, "computeNicBytes": 1, "storageBytes": 1, "dramBytes": 1}),
        "gpuBudget": st.integers(1, 100),
        "suspend": st.booleans(),
        "paused": st.booleans(),
    },
)
SCALING = st.one_of(
    st.builds(lambda n: {"mode": "Static", "replicas": n}, st.integers(1, 64)),
    st.just({"mode": "External"}),
    st.builds(lambda n: {"mode": "Planner", "maxReplicas": n}, st.integers(1, 64)),
)


@settings(max_examples=200)
@given(parts=NOT_THE_ENGINES, scaling=SCALING, base=st.sampled_from([LOCAL, MANAGED, NODES]))
def test_what_engines_are_not_made_of_never_changes_their_revision(parts, scaling, base):
    before = revision(cluster_of(base))
    after = copy.deepcopy(base) | parts
    for role in ("prefill", "decode"):
        after = changed(after, f"spec.{role}.scaling", scaling)
    assert revision(cluster_of(after)) == before


ENGINE_FIELDS = {
    "spec.model.uri": st.integers(0, 999).map(lambda n: f"file:///other/{n}"),
    "spec.model.dtype": st.just("float32"),
    "spec.image": st.sampled_from(["a:1", "b:2"]),
    "spec.imagePullPolicy": st.sampled_from(["Always", "Never"]),
    "spec.imagePullSecrets": st.just([{"name": "pull"}]),
    "spec.kv.blockTokens": st.sampled_from([16, 32, 128, 256]),
    "spec.storage.files.size": st.integers(5, 999).map(lambda n: f"{n}Gi"),
    "spec.storage.files.claimName": st.just("mine"),
    "spec.storage.domain": st.integers(0, 99).map(lambda n: f"shared/{n}"),
    "spec.nics": st.just([{"role": "storage", "match": "eth1"}]),
    "spec.fabric": st.just({"mode": "HostNetwork"}),
    "spec.placement.topologyKey": st.just("rack"),
    "spec.observability.logFormat": st.just("text"),
    "spec.restart.id": st.text("abc", min_size=1, max_size=8),
    "spec.prefill.batching.maxTokens": st.integers(1, 4000),
    "spec.prefill.batching.computeQuota": st.just("1s"),
} | {
    f"spec.{role}.{field}": values
    for role in ("prefill", "decode")
    for field, values in {
        "parallelism.data": st.integers(2, 8),
        "resources.dramBuffer": st.integers(257, 999).map(lambda n: f"{n}Mi"),
        "resources.kvCache": st.integers(257, 999).map(lambda n: f"{n}Mi"),
        "resources.gpus": st.integers(1, 16),
        "resources.cpu": st.integers(1, 99).map(str),
        "resources.memory": st.integers(1, 99).map(lambda n: f"{n}Gi"),
        "podTemplate.metadata.labels": st.just({"team": "a"}),
        "podTemplate.spec": st.just({"priorityClassName": "high"}),
    }.items()
}


@settings(max_examples=200)
@given(
    change=st.sampled_from(sorted(ENGINE_FIELDS)).flatmap(lambda f: st.tuples(st.just(f), ENGINE_FIELDS[f]))
)
def test_what_engines_are_made_of_always_changes_their_revision(change):
    assert revision(cluster_of(changed(LOCAL, *change))) != revision(cluster_of(LOCAL))


def test_a_revision_is_eight_hex_digits_and_the_same_anywhere():
    assert revision(cluster_of(LOCAL)) == revision(cluster_of(copy.deepcopy(LOCAL)))
    assert len(bytes.fromhex(revision(cluster_of(MANAGED)))) == 4


def test_going_back_to_a_spec_goes_back_to_its_revision():
    there = changed(LOCAL, "spec.image", "other:1")
    assert revision(cluster_of(LOCAL)) != revision(cluster_of(there))
    assert revision(cluster_of(changed(there, "spec.image", None))) == revision(cluster_of(LOCAL))


@pytest.mark.parametrize(
    ("images", "same"),
    [
        ({"worker": "w:2"}, False),
        ({"gateway": "g:2"}, True),
        ({"store": "s:2"}, True),
        ({"etcd": "e:2"}, True),
    ],
)
def test_of_the_operators_images_only_the_engines_own_counts(images, same):
    cluster = cluster_of(MANAGED)
    other = Surroundings(kinds=AROUND.kinds, images=Images(**images))
    assert (revision(cluster) == revision(cluster, other)) is same


def test_what_the_api_server_knows_does_not_matter():
    cluster = cluster_of(MANAGED)
    assert revision(cluster, Surroundings()) == revision(cluster, AROUND)
