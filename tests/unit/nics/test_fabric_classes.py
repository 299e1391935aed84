"""Traffic classes: how each layer is told, and what a check says is missing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recorded import Recorded, compute, storage

from dualpath_api.cluster import ClusterSpec
from dualpath_api.errors import UnsupportedError
from dualpath_api.spec.fabric import TrafficClasses
from dualpath_worker.fabric import Machine, queues
from dualpath_worker.fabric.classes import (
    both,
    environment,
    ethernet_lines,
    overridden,
    subnet_manager_lines,
    transfer_options,
)
from dualpath_worker.fabric.marks import check_classes
from dualpath_worker.transfer.environment import engine_config

DEFAULTS = TrafficClasses()
LEVELS, CODES = st.permutations(range(16)), st.permutations(range(64))


def spec_of(*nics, **fabric):
    role = {"resources": {"dramBuffer": "1Mi", "kvCache": "1Mi"}}
    return ClusterSpec.model_validate(
        {
            "model": {"uri": "file:///none", "servedName": "tiny"},
            "prefill": role,
            "decode": role,
            "storage": {"files": {"path": "/none", "size": "1Gi"}},
            "nics": [rule.model_dump() for rule in nics],
            "fabric": fabric,
        },
        by_alias=True,
        by_name=True,
    )


def test_without_classes_nothing_is_marked():
    assert transfer_options(None) == environment(None) == {}
    assert engine_config("lo", {}) == "NET_DEVICES=lo"
    assert engine_config(None, {}) == ""
    assert check_classes(spec_of(compute("lo")), {}, Machine()) == []


def test_ucx_and_nccl_get_the_dscp_as_the_byte_that_holds_it():
    assert engine_config("mlx5_0:1", transfer_options(DEFAULTS)) == (
        "NET_DEVICES=mlx5_0:1,IB_SL=1,IB_TRAFFIC_CLASS=32,TCP_PORT_RANGE=20480-21503"
    )
    assert environment(DEFAULTS) == {
        "NCCL_IB_SL": "4",
        "NCCL_IB_TC": "128",
        "MC_IB_SL": "1",
        "MC_IB_TC": "32",
    }


@given(LEVELS, CODES)
def test_the_classes_never_share_a_mark_or_a_port(levels, codes):
    spec = TrafficClasses.model_validate(
        {
            "kv": {"service_level": levels[0], "dscp": codes[0]},
            "inference": {"service_level": levels[1], "dscp": codes[1]},
        }
    )
    inference, kv = both(spec)
    assert inference.traffic_class != kv.traffic_class
    assert inference.ports[0] > kv.ports[1] or kv.ports[0] > inference.ports[1]
    assert inference.percent + kv.percent == 100
    lanes = subnet_manager_lines(spec).splitlines()[-1].split()[1].split(",")
    assert (lanes[inference.service_level], lanes[kv.service_level], len(lanes)) == ("0", "2", 16)


@pytest.mark.parametrize("options", [{"IB_TRAFIC_CLASS": "32"}, {"IB_SL": "1,2"}])
def test_a_key_that_ucx_would_ignore_is_refused(options):
    with pytest.raises(ValueError, match="is no setting of a transfer agent"):
        engine_config("lo", options)


def test_the_lines_for_a_roce_port_give_inference_99_to_1():
    assert ethernet_lines(DEFAULTS, "eth2").splitlines() == [
        "mlnx_qos -i eth2 --trust dscp",
        "mlnx_qos -i eth2 --dscp2prio set,32,4",
        "mlnx_qos -i eth2 --dscp2prio set,8,1",
        "mlnx_qos -i eth2 --prio_tc 0,1,2,3,4,5,6,7",
        "mlnx_qos -i eth2 --tsa ets,ets,ets,ets,ets,ets,ets,ets --tcbw 0,1,0,0,99,0,0,0",
        "mlnx_qos -i eth2 --pfc 0,1,0,0,1,0,0,0",
    ]


def test_the_environment_that_says_something_else_is_told():
    assert overridden(DEFAULTS, {"UCX_IB_SL": "1", "NCCL_IB_TC": "128", "PATH": "/"}) == {}
    assert overridden(DEFAULTS, {"UCX_IB_SL": "5", "NCCL_IB_TC": "106"}) == {
        "UCX_IB_SL": "5",
        "NCCL_IB_TC": "106",
    }


def test_a_class_that_was_set_for_all_rdma_is_told_with_its_cure(tmp_path):
    bed = Recorded(tmp_path, "mlx5-roce")
    spec = spec_of(compute("mlx5_0"), trafficClasses={})
    found = check_classes(spec, {"UCX_IB_SL": "5"}, Machine(sysfs=bed.root))
    assert [finding.what for finding in found] == [
        "UCX_IB_SL=5 is in the environment and not what fabric.trafficClasses says",
        "mlx5_0 marks all RDMA with traffic class 106, KV as well",
        "whether the network weighs the traffic classes cannot be read back from here",
    ]
    assert all(finding.advice for finding in found)
    assert "echo tclass=-1" in found[1].remedy
    assert "mlnx_qos -i ens1f0np0 --trust dscp" in str(found[2])
    bed.write("class/infiniband/mlx5_0/tc/1/traffic_class", "Global tclass=32")
    assert len(check_classes(spec, {}, Machine(sysfs=bed.root))) == 1


def test_infiniband_needs_the_lanes_of_the_subnet_manager(tmp_path):
    bed = Recorded(tmp_path, "mlx5-infiniband")
    spec = spec_of(compute("mlx5_[01]"), storage("mlx5_2"), trafficClasses={})
    (found,) = check_classes(spec, {}, Machine(sysfs=bed.root))
    assert "qos_vlarb_high 0:192,1:192,2:0,3:192" in found.remedy
    assert "qos_sl2vl 1,2,1,1,0,1,1,1,1,1,1,1,1,1,1,1" in found.remedy
    assert "mlnx_qos" not in found.remedy


def test_tcp_that_is_not_marked_or_shaped_is_told_with_all_lines(tmp_path, monkeypatch):
    bed = Recorded(tmp_path, "veth")
    monkeypatch.setenv("PATH", str(tmp_path))  # neither nft nor tc can be seen wrong by what this machine has
    spec = spec_of(compute("snic0", 10**9), trafficClasses={})
    marked, shaped = check_classes(spec, {}, Machine(sysfs=bed.root))
    assert "tcp dport 20480-21503 ip dscp set 8" in marked.remedy
    assert "tc class replace dev snic0 parent d0a:1 classid d0a:20 htb rate 9700000bit ceil 970000000bit" in (
        shaped.remedy
    )


def test_a_missing_command_is_one_clear_error(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda *a, **k: None)
    with pytest.raises(UnsupportedError, match="install the package nftables"):
        queues.marks()
    queues.remove()
