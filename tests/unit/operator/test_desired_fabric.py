"""Fabric modes: each makes its own Pod fields, all of them, and none of another mode's."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.operator.desired_world import (
    DEVICE_PLUGIN,
    DRA,
    FABRICS,
    LARGE,
    LOCAL,
    MANAGED,
    MULTUS,
    cluster_of,
    pod_of,
    rendered,
)

SIGNS = {
    "hostNetwork": {"HostNetwork"},
    "ClusterFirstWithHostNet": {"HostNetwork"},
    "hostPort": {"HostNetwork"},
    "k8s.v1.cni.cncf.io/networks": {"Multus"},
    "snic0": {"Multus"},
    "example.com/cnic": {"DevicePlugin"},
    "example.com/snic": {"DevicePlugin", "Multus"},  # where its attachment names the NICs' resource
    "resourceClaims": {"DRA"},
    '"claims"': {"DRA"},
    "ResourceClaimTemplate": {"DRA"},
    "dualpath_worker.fabric": {"HostNetwork", "Multus", "DevicePlugin", "DRA"},
    "IPC_LOCK": {"HostNetwork", "DevicePlugin", "DRA"},  # those whose spec asks for RDMA
}
"""Fields and values by which a mode is known, and the modes that have them."""


def text_of(mode: str) -> str:
    """Everything rendered but the spec itself, which engines get to read."""
    items = rendered(cluster_of({**LOCAL, "decode": LARGE, "prefill": LARGE, "fabric": FABRICS[mode]}))
    return json.dumps([item for item in items if item["kind"] != "ConfigMap"])


@pytest.mark.parametrize("mode", FABRICS)
def test_no_field_of_a_mode_leaks_into_another(mode):
    text = text_of(mode)
    assert {sign for sign in SIGNS if sign in text} == {
        sign for sign, modes in SIGNS.items() if mode in modes
    }


def test_multus_names_every_interface_and_asks_for_resources_where_given():
    pod = pod_of(LOCAL | {"fabric": MULTUS})
    wanted = pod["metadata"]["annotations"]["k8s.v1.cni.cncf.io/networks"]
    assert wanted == "fabric/snic@snic0,team-a/cnic@cnic0,team-a/cnic@cnic1"
    (engine,) = pod["spec"]["containers"]
    assert engine["resources"]["limits"] == {"example.com/snic": "1"}


@pytest.mark.parametrize(
    ("fabric", "rules"),
    [
        ({}, None),
        (MULTUS, [{"role": "storage", "match": "snic*"}, {"role": "compute", "match": "cnic*"}]),
        (DRA, None),
    ],
)
def test_where_devices_have_known_names_the_spec_need_not_tell_them(fabric, rules):
    items = rendered(cluster_of(LOCAL | {"fabric": fabric}))
    config = next(item for item in items if item["kind"] == "ConfigMap")["data"]["cluster.json"]
    assert json.loads(config)["spec"].get("nics") == rules
    own = [{"role": "compute", "match": "ib*"}]
    items = rendered(cluster_of(LOCAL | {"fabric": fabric, "nics": own}))
    config = next(item for item in items if item["kind"] == "ConfigMap")["data"]["cluster.json"]
    assert json.loads(config)["spec"]["nics"] == own


def test_devices_are_dealt_to_the_ranks_and_the_check_sees_them_all():
    pod = pod_of(MANAGED | {"fabric": DEVICE_PLUGIN})
    ranks = [rank["resources"]["limits"] for rank in pod["spec"]["containers"]]
    assert [rank["example.com/cnic"] for rank in ranks] == ["1"] * 8
    assert [rank.get("example.com/snic") for rank in ranks] == ["1", *[None] * 7]
    check = pod["spec"]["initContainers"][-1]
    assert check["name"] == "fabric"
    assert check["resources"]["limits"] == {
        "nvidia.com/gpu": "8",
        "example.com/cnic": "8",
        "example.com/snic": "1",
    }


@given(
    count=st.integers(1, 16), ranks=st.sampled_from([1, 2, 4, 8]), each=st.integers(1, 2), rails=st.booleans()
)
def test_a_pod_gets_as_many_devices_as_the_spec_says(count, ranks, each, rails):
    fabric = DRA | {"compute": {"deviceClass": "nic", "count": count}}
    fabric |= {"gpuDeviceClass": "gpu"} if rails else {}
    role = {
        **LARGE,
        "parallelism": {"data": ranks},
        "resources": {**LARGE["resources"], "gpus": ranks * each},
    }
    items = rendered(cluster_of({**LOCAL, "decode": role, "prefill": role, "fabric": fabric}))
    templates = {
        i["metadata"]["name"]: i["spec"]["spec"]["devices"]
        for i in items
        if i["kind"] == "ResourceClaimTemplate"
    }
    pod = next(item for item in items if item["kind"] == "Pod")
    claims = {c["name"]: templates[c["resourceClaimTemplateName"]] for c in pod["spec"]["resourceClaims"]}
    found: dict[str, int] = {}
    for claim in claims.values():
        names = [request["name"] for request in claim["requests"]]
        assert len(names) == len(set(names)) <= 32
        for request in claim["requests"]:
            exactly = request["exactly"]
            found[exactly["deviceClassName"]] = found.get(exactly["deviceClassName"], 0) + exactly["count"]
        for constraint in claim.get("constraints", []):
            assert constraint["matchAttribute"] == "resource.kubernetes.io/pcieRoot"
            assert set(constraint["requests"]) <= set(names)
    gpus = {"gpu": ranks * each} if rails else {}
    assert found == {"nic": count, "storage-nic": 1, **gpus}
    for container in pod["spec"]["containers"]:
        named = [claim["name"] for claim in container["resources"]["claims"]]
        assert len(named) == len(set(named))
        assert set(named) <= claims.keys()
        assert ("nvidia.com/gpu" in container["resources"].get("limits", {})) is not rails


def test_store_nodes_are_on_the_storage_network_only():
    for fabric, sign, other in (
        (MULTUS, "snic@snic0", "cnic"),
        (DEVICE_PLUGIN, "example.com/snic", "example.com/cnic"),
    ):
        items = rendered(cluster_of(LOCAL | {"fabric": fabric, "storage": {"managed": {"size": "1Gi"}}}))
        store = next(i for i in items if i["kind"] == "StatefulSet" and i["metadata"]["name"] == "qwen-store")
        assert sign in json.dumps(store)
        assert other not in json.dumps(store)
