"""podTemplate: merged into the Pod by name; what the operator owns is refused with a field and a remedy."""

from __future__ import annotations

import copy
from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.operator.desired_world import LOCAL, changed, cluster_of, pod_of

from dualpath_api.errors import DualPathError
from dualpath_api.spec.roles import PodTemplate
from dualpath_operator.desired import check_pod_templates, owned_keys, template_problems
from dualpath_operator.desired.owned import OWNED, POD_SPEC


def merged(spec: dict, data: int = 1, **metadata) -> dict:
    with_ranks = changed(LOCAL, "spec.decode.parallelism.data", data)
    return pod_of(changed(with_ranks, "spec.decode.podTemplate", {"spec": spec, "metadata": metadata}))


def refused(template: dict, data: int = 1) -> str:
    spec = changed(changed(LOCAL, "spec.decode.parallelism.data", data), "spec.decode.podTemplate", template)
    with pytest.raises(DualPathError) as error:
        check_pod_templates(cluster_of(spec).spec)
    assert error.value.remedy
    with pytest.raises(DualPathError):
        pod_of(spec)
    return str(error.value)


def engine(pod: dict, name: str = "engine") -> dict:
    return next(container for container in pod["spec"]["containers"] if container["name"] == name)


def test_an_empty_template_changes_nothing():
    assert merged({}) == pod_of(LOCAL)


def test_scalars_are_replaced_and_maps_merged():
    pod = merged(
        {"priorityClassName": "high", "nodeSelector": {"gpu": "h200"}, "securityContext": {"fsGroup": 7}}
    )
    assert pod["spec"]["priorityClassName"] == "high"
    assert pod["spec"]["nodeSelector"] == {"gpu": "h200"}
    assert pod["spec"]["securityContext"] == {**pod_of(LOCAL)["spec"]["securityContext"], "fsGroup": 7}


def test_null_removes():
    assert "fsGroup" not in merged({"securityContext": {"fsGroup": None}})["spec"]["securityContext"]
    assert "affinity" not in merged({"affinity": None})["spec"]


def test_lists_of_named_things_are_merged_by_name_and_others_appended():
    pod = merged(
        {
            "containers": [
                {
                    "name": "engine",
                    "env": [{"name": "UCX_TLS", "value": "rc"}, {"name": "HOME", "value": "/scratch"}],
                    "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
                    "resources": {"limits": {"rdma/hca": "1"}},
                },
                {"name": "proxy", "image": "proxy:1"},
            ],
            "volumes": [{"name": "scratch", "emptyDir": {}}],
            "initContainers": [{"name": "warm-up", "image": "warm:1"}],
            "tolerations": [{"key": "gpu", "operator": "Exists"}],
        }
    )
    env = {item["name"]: item.get("value") for item in engine(pod)["env"]}
    assert (env["UCX_TLS"], env["HOME"]) == ("rc", "/scratch")
    assert env.keys() > {"DUALPATH_POD_NAME"}
    assert engine(pod)["resources"] == {"requests": {"memory": "512Mi"}, "limits": {"rdma/hca": "1"}}
    assert [c["name"] for c in pod["spec"]["containers"]] == ["engine", "proxy"]
    assert [v["name"] for v in pod["spec"]["volumes"]][-1] == "scratch"
    assert pod["spec"]["initContainers"] == [{"name": "warm-up", "image": "warm:1"}]
    assert pod["spec"]["tolerations"] == [{"key": "gpu", "operator": "Exists"}]


def test_affinity_is_added_to_ours():
    term = {"weight": 1, "podAffinityTerm": {"topologyKey": "zone"}}
    pod = merged(
        {"affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [term]}}}
    )
    terms = pod["spec"]["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert len(terms) == 2
    assert terms[1] == term


def test_what_is_said_of_engine_holds_for_all_ranks_and_a_rank_may_differ():
    pod = merged(
        {
            "containers": [
                {"name": "engine-2", "env": [{"name": "A", "value": "two"}]},
                {"name": "engine", "env": [{"name": "A", "value": "all"}]},
            ]
        },
        data=3,
    )
    values = [
        next(item["value"] for item in container["env"] if item["name"] == "A")
        for container in pod["spec"]["containers"]
    ]
    assert values == ["all", "all", "two"]


def test_labels_and_annotations_are_added():
    pod = merged({}, labels={"team": "a"}, annotations={"note": "b"})
    assert pod["metadata"]["labels"].items() > {"team": "a"}.items()
    assert pod["metadata"]["annotations"]["note"] == "b"


@pytest.mark.parametrize("key", sorted(OWNED))
def test_keys_of_the_operator_are_refused(key):
    assert f"spec.decode.podTemplate.spec.{key}" in refused({"spec": {key: "x"}})


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ({"spec": {"tolerationz": []}}, ["spec.tolerationz is not known", "did you mean tolerations?"]),
        ({"spec": {"xyz": 1}}, ["spec.xyz is not known", "kubectl explain"]),
        ({"spec": {"containers": [{"name": "engine", "command": ["x"]}]}}, ["containers[engine].command"]),
        ({"spec": {"containers": [{"name": "engine", "args": ["x"]}]}}, ["containers[engine].args"]),
        ({"spec": {"containers": [{"name": "engine", "ports": []}]}}, ["containers[engine].ports"]),
        ({"spec": {"containers": [{"name": "engine", "lifecycle": {}}]}}, ["containers[engine].lifecycle"]),
        ({"spec": {"containers": [{"name": "engine", "env": [{"name": "DUALPATH_X", "value": "1"}]}]}}, ["env[DUALPATH_X]"]),
        ({"spec": {"containers": [{"name": "engine", "env": {"A": "1"}}]}}, ["env is not a list of items with name"]),
        ({"spec": {"containers": [{"name": "engine", "volumeMounts": [{"mountPath": "/tmp/"}]}]}}, ["volumeMounts[/tmp/]"]),
        ({"spec": {"containers": [{"name": "engine-1"}]}}, ["containers[engine-1] does not exist", "engine"]),
        ({"spec": {"containers": [{"name": "gateway"}]}}, ["containers[gateway] does not exist"]),
        ({"spec": {"containers": [{"name": "sidecar"}]}}, ["containers[sidecar] has no image"]),
        ({"spec": {"containers": [{"image": "x"}]}}, ["containers has an item without a name"]),
        ({"spec": {"containers": {"engine": {}}}}, ["containers is not a list of mappings"]),
        ({"spec": {"containers": None}}, ["containers is not a list of mappings"]),
        ({"spec": {"containers": [{"name": "engine", "env": None}]}}, ["env is not a list of items with name"]),
        ({"spec": {"containers": [{"name": "engine", "image": None}]}}, ["containers[engine].image is not text"]),
        ({"spec": {"containers": [{"name": "fabric"}]}}, ["containers[fabric] does not exist"]),
        ({"spec": {"initContainers": [{"name": "model"}]}}, ["initContainers[model] does not exist", "none"]),
        ({"spec": {"containers": [{"name": "engine", "env": [{"name": "DUALPATH_GATEWAY_STOP_S"}]}]}}, ["STOP_S"]),
        ({"spec": {"volumes": [{"name": "config"}]}}, ["volumes[config] is the operator's"]),
        ({"spec": {"resourceClaims": [{"name": "compute-0"}]}}, ["resourceClaims[compute-0] is the operator's"]),
        ({"metadata": {"labels": {"dualpath.io/role": "x"}}}, ["metadata.labels[dualpath.io/role]"]),
        ({"metadata": {"labels": {"app.kubernetes.io/name": "x"}}}, ["metadata.labels[app.kubernetes.io/name]"]),
        ({"metadata": {"annotations": {"dualpath.io/intent-hash": "x"}}}, ["annotations[dualpath.io/intent-hash]"]),
        ({"metadata": {"annotations": {"k8s.v1.cni.cncf.io/networks": "x"}}}, ["spec.fabric.mode: Multus"]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_field_and_a_remedy(template, words):
    message = refused(template)
    assert "spec.decode.podTemplate." in message
    for word in words:
        assert word in message


@pytest.mark.parametrize("value", [{1: "x", "a": "y"}, {"a": date(2026, 1, 1)}, {"a": float("nan")}])
def test_what_yaml_has_and_json_has_not_is_refused(value):
    (problem,) = owned_keys(PodTemplate(spec={"nodeSelector": value}), where="spec.decode.podTemplate")
    assert problem.what == "spec.decode.podTemplate.spec is not JSON"


def test_everything_wrong_is_told_at_once_for_all_three_templates():
    spec = LOCAL
    for part in ("prefill", "decode", "gateway"):
        spec = changed(spec, f"spec.{part}.podTemplate.spec", {"hostNetwork": True, "restartPolicy": "Never"})
    told = [problem.what for problem in template_problems(cluster_of(spec).spec)]
    assert len(told) == 6
    with pytest.raises(DualPathError, match=r"(?s)spec\.prefill.*also:.*spec\.decode.*spec\.gateway"):
        check_pod_templates(cluster_of(spec).spec)


def test_a_template_for_the_gateway_is_about_its_container():
    env = [{"name": "DUALPATH_GATEWAY_QUEUE_LIMIT", "value": "9"}]
    good = changed(LOCAL, "spec.gateway.podTemplate.spec", {"containers": [{"name": "gateway", "env": env}]})
    check_pod_templates(cluster_of(good).spec)
    bad = changed(LOCAL, "spec.gateway.podTemplate.spec", {"containers": [{"name": "engine"}]})
    with pytest.raises(DualPathError, match="gateway"):
        check_pod_templates(cluster_of(bad).spec)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 9) | st.text("ab", max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "env", "image", "mountPath", "volumeMounts", "a"]), inner, max_size=3
        )
    ),
    max_leaves=12,
)


MERGED = [
    "containers",
    "initContainers",
    "volumes",
    "affinity",
    "securityContext",
    "tolerations",
    "dnsConfig",
]
KEYS = st.sampled_from(MERGED) | st.sampled_from(sorted(POD_SPEC - OWNED.keys()))


@settings(max_examples=500)
@given(spec=st.dictionaries(KEYS, JSON, max_size=3))
def test_any_template_is_merged_or_refused_and_never_breaks(spec):
    template = PodTemplate(spec=copy.deepcopy(spec))
    if owned_keys(template):
        refused({"spec": spec})
        return
    pod = merged(spec)
    assert engine(pod)["command"] == engine(pod_of(LOCAL))["command"]
    assert pod["spec"]["readinessGates"] == pod_of(LOCAL)["spec"]["readinessGates"]
    assert template.spec == spec
