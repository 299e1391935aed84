"""The check of a Pod's NICs, on recorded trees of /sys and /dev and on this machine."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from dualpath_api.cluster import NicRule
from dualpath_worker.fabric import Machine, check_fabric, fall_back, main

STORAGE, COMPUTE = NicRule(role="storage", match="eth*"), NicRule(role="compute", match="mlx5_*")

ETHERNET = {
    "class/net/eth0/statistics/rx_bytes": "81",
    "class/net/eth0/statistics/tx_bytes": "9",
    "class/net/eth0/operstate": "up",
}
NDR = {
    "class/infiniband/mlx5_0/ports/1/counters/port_rcv_data": "0",
    "class/infiniband/mlx5_0/ports/1/counters/port_xmit_data": "0",
    "class/infiniband/mlx5_0/ports/1/state": "4: ACTIVE",
    "class/infiniband/mlx5_0/ports/1/rate": "400 Gb/sec (4X NDR)",
    "class/infiniband_verbs/uverbs0/ibdev": "mlx5_0",
    "dev/infiniband/uverbs0": "",
}


def recorded(root: Path, *trees: dict[str, str], memlock: int = -1, effective: str = "0") -> Machine:
    """A machine made of these files; a value of None leaves one out."""
    files = {"status": f"Name:\tpython\nCapEff:\t{effective}\n"}
    for tree in trees:
        files |= tree
    for name, text in files.items():
        if text is not None:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(f"{text}\n")
    return Machine(sysfs=root, dev=root / "dev", status=root / "status", memlock=memlock)


def check(rules, machine, *, rdma=True):
    return [finding.what for finding in check_fabric(rules, rdma=rdma, machine=machine)]


def test_a_machine_that_is_as_promised_has_no_findings(tmp_path):
    machine = recorded(tmp_path, ETHERNET, NDR)
    assert check((STORAGE, COMPUTE), machine) == []
    assert check((), machine) == []


def test_a_rule_without_a_device_says_what_there_is(tmp_path):
    (found,) = check_fabric((STORAGE, COMPUTE), rdma=False, machine=recorded(tmp_path, ETHERNET))
    assert found.what == "no compute NIC matches 'mlx5_*'"
    assert "eth0" in found.cause
    assert "spec.nics" in str(found)


def test_an_earlier_rule_takes_a_device_from_a_later_one(tmp_path):
    machine = recorded(tmp_path, ETHERNET)
    assert check((STORAGE, NicRule(role="compute", match="eth0")), machine, rdma=False) == [
        "no compute NIC matches 'eth0'"
    ]


@pytest.mark.parametrize(
    ("change", "role"),
    [
        ({"class/net/eth0/operstate": "down"}, "storage"),
        ({"class/net/eth0/operstate": "unknown"}, "storage"),
        ({"class/net/eth0/operstate": "unknown", "class/net/eth0/carrier": "0"}, "storage"),
        ({"class/infiniband/mlx5_0/ports/1/state": "1: DOWN"}, "compute"),
        ({"class/infiniband/mlx5_0/ports/1/state": "2: INIT"}, "compute"),
    ],
)
def test_a_link_that_is_down_is_found(tmp_path, change, role):
    machine = recorded(tmp_path, ETHERNET, NDR, change)
    (what,) = check((STORAGE, COMPUTE), machine)
    assert what.startswith(f"no {role} NIC")
    assert what.endswith("is up")


def test_a_virtual_device_that_carries_is_up(tmp_path):
    change = {"class/net/eth0/operstate": "unknown", "class/net/eth0/carrier": "1"}
    assert check((STORAGE,), recorded(tmp_path, ETHERNET, change), rdma=False) == []


@pytest.mark.parametrize("missing", ["dev/infiniband/uverbs0", "class/infiniband_verbs/uverbs0/ibdev"])
def test_rdma_needs_the_device_node_of_each_nic(tmp_path, missing):
    assert check((COMPUTE,), recorded(tmp_path, NDR, {missing: None})) == ["RDMA cannot use mlx5_0"]
    assert check((COMPUTE,), recorded(tmp_path), rdma=False) == []


def test_rdma_without_any_device_is_found_even_if_no_rule_names_one(tmp_path):
    assert check((STORAGE,), recorded(tmp_path, ETHERNET)) == ["RDMA cannot use any device"]


@pytest.mark.parametrize(
    ("memlock", "effective", "enough"),
    [
        (resource.RLIM_INFINITY, "0000000000000000", True),
        (8 << 20, "0000000000004000", True),
        (8 << 20, "00000000a80425fb", False),  # what containers have by default
        (8 << 20, "0000000000000000", False),
    ],
)
def test_rdma_needs_to_lock_memory(tmp_path, memlock, effective, enough):
    machine = recorded(tmp_path, NDR, memlock=memlock, effective=effective)
    assert check((COMPUTE,), machine) == ([] if enough else ["RDMA cannot lock the block buffers in memory"])


# ---------------------------------------------------------------- the command


@pytest.fixture
def config(tmp_path: Path):
    def write(match: str, **fabric: object) -> str:
        role = {"resources": {"dramBuffer": "1Mi", "kvCache": "1Mi"}}
        spec = {
            "model": {"uri": "file:///none", "servedName": "tiny"},
            "prefill": role,
            "decode": role,
            "storage": {"files": {"path": "/none", "size": "1Gi"}},
            "nics": [{"role": "storage", "match": match}],
            "fabric": fabric,
        }
        head = {"apiVersion": "dualpath.io/v1alpha1", "kind": "DualPathCluster", "metadata": {"name": "t"}}
        file = tmp_path / "cluster.json"
        file.write_text(json.dumps({**head, "spec": spec}))
        return str(file)

    return write


def test_the_command_fails_or_degrades_and_is_never_silent(config, capsys):
    assert main(["--config", config("lo")]) == 0
    assert capsys.readouterr() == ("", "")
    assert main(["--config", config("none0")]) == 1
    assert "fabric: no storage NIC matches 'none0'" in capsys.readouterr().err
    assert main(["--config", config("none0"), "--on-mismatch", "Degrade"]) == 0
    assert "warning: going on" in capsys.readouterr().err
    assert main(["--config", config("none0", onMismatch="Degrade"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["ok"], told["degraded"], len(told["findings"])) == (False, True, 1)


def test_a_spec_that_cannot_be_read_is_one_message(tmp_path, capsys):
    assert main(["--config", str(tmp_path / "none")]) == 2
    assert "remedy" in capsys.readouterr().err


def test_an_engine_degrades_only_where_the_spec_lets_it(tmp_path, config):
    from dualpath_api.loading import load_cluster

    machine, environ = recorded(tmp_path, ETHERNET), {}
    rdma = {"mode": "HostNetwork", "rdma": True}
    for fabric in ({}, rdma):
        assert fall_back(load_cluster(config("lo", **fabric), ()).spec, environ, machine) == []
    degrading = load_cluster(config("eth0", **rdma, onMismatch="Degrade"), ()).spec
    assert environ == {}
    assert [finding.what for finding in fall_back(degrading, environ, machine)] == [
        "RDMA cannot use any device"
    ]
    assert environ == {"UCX_TLS": "tcp,cma,self"}


def test_hooks_and_checks_start_without_torch():
    code = "import sys, dualpath_worker.prestop, dualpath_worker.fabric; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"
