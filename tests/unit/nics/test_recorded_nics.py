"""What is made of recorded machines: mlx5 with RoCE and InfiniBand, bnxt_re, virtio, veth."""

import pytest
from recorded import Recorded, compute, storage

from dualpath_worker.nics import discover


def sampled(folder, name, *rules):
    return {nic.name: nic for nic in Recorded(folder, name).sampler(*rules).latest}


def test_the_first_matching_rule_gives_the_role(tmp_path):
    bed = Recorded(tmp_path, "mlx5-infiniband")
    rules = [storage("mlx5_1"), compute("mlx5_*"), storage("ib*")]
    assert {device.name: device.role for device in discover(rules, bed.root)} == {
        "ibp24s0": "storage",
        "mlx5_0": "compute",
        "mlx5_1": "storage",
        "mlx5_2": "compute",
    }


def test_infiniband_counts_words_of_four_bytes(tmp_path):
    nics = sampled(tmp_path, "mlx5-infiniband", compute("mlx5_*"))
    assert (nics["mlx5_1"].rx_bytes, nics["mlx5_1"].tx_bytes) == (40, 80)
    assert nics["mlx5_0"].rx_bytes == 16_000_000_000
    assert {name: nic.link_bytes_per_s for name, nic in nics.items()} == {
        "mlx5_0": 50e9,
        "mlx5_1": 50e9,
        "mlx5_2": 0.0,  # down: its rate says nothing
    }


def test_ip_over_infiniband_is_not_counted_twice(tmp_path):
    nics = sampled(tmp_path, "mlx5-infiniband", compute("mlx5_0"), compute("ib*"))
    assert {name: nic.tx_bytes for name, nic in nics.items()} == {"mlx5_0": 4000}
    alone = sampled(tmp_path, "mlx5-infiniband", storage("ib*"))["ibp24s0"]
    assert (alone.tx_bytes, alone.congestion["xmit_wait"]) == (4000, 77)


def test_roce_is_counted_by_the_rdma_device_and_the_rest_by_its_interface(tmp_path):
    nics = sampled(tmp_path, "mlx5-roce", compute("mlx5_0"))
    assert (nics["mlx5_0"].rx_bytes, nics["mlx5_0"].tx_bytes) == (8_050_000, 12_060_000)
    assert nics["mlx5_0"].link_bytes_per_s == 12.5e9


def test_an_interface_counts_the_rdma_of_its_port(tmp_path):
    nics = sampled(tmp_path, "mlx5-roce", storage("ens1f0np0"))
    assert nics["ens1f0np0"].rx_bytes == 8_050_000
    assert nics["ens1f0np0"].congestion["cnp_sent"] == 12884


def test_one_port_that_is_named_twice_is_one_nic_of_a_role_or_two_of_two(tmp_path):
    assert list(sampled(tmp_path, "mlx5-roce", compute("ens1f0np0"), compute("mlx5_0"))) == ["mlx5_0"]
    apart = sampled(tmp_path, "mlx5-roce", compute("mlx5_0"), storage("ens1f0np0"))
    assert {name: nic.rx_bytes for name, nic in apart.items()} == {"mlx5_0": 8_000_000, "ens1f0np0": 50_000}


def test_a_virtual_function_without_counters_is_there_and_unknown(tmp_path, caplog):
    nic = sampled(tmp_path, "mlx5-roce", compute("mlx5_2"))["mlx5_2"]
    assert (nic.counted, nic.rx_bytes, nic.rx_bytes_per_s) == (False, 0, 0.0)
    assert "mlx5_2 has no counters" in caplog.text


def test_broadcom_counts_roce_in_bytes_of_its_own(tmp_path):
    nic = sampled(tmp_path, "bnxt-re", compute("bnxt_re*"))["bnxt_re0"]
    assert (nic.rx_bytes, nic.tx_bytes, nic.link_bytes_per_s) == (5_070_000, 4_090_000, 12.5e9)


def test_a_virtual_machine_does_not_know_its_link(tmp_path):
    nics = sampled(tmp_path, "virtio", storage("eth?"))
    assert [nic.capacity_bytes_per_s for nic in nics.values()] == [0.0, 0.0]
    assert sampled(tmp_path, "virtio", storage("eth0", 200_000_000))["eth0"].capacity_bytes_per_s == 25e6


def test_only_hardware_is_trusted_about_its_speed(tmp_path):
    devices = discover([storage("*")], Recorded(tmp_path, "veth").root)
    devices += discover([storage("*")], Recorded(tmp_path, "virtio").root)
    assert {device.name for device in devices if device.trusted} == {"eth0", "eth1"}
    assert {device.trusted for device in devices if device.name == "eth0"} == {True, False}


@pytest.mark.parametrize(
    ("machine", "device", "expected"),
    [
        (
            "mlx5-roce",
            "mlx5_0",
            {
                "cnp_sent": 12884,
                "cnp_handled": 12701,
                "ecn_marked": 441882,
                "out_of_sequence": 41,
                "sequence_error": 44,
                "ack_timeout": 2,
                "discards": 8,
                "xmit_wait": 0,
                "pause_rx_prio3": 512,
                "pause_tx_prio3": 9,
            },
        ),
        ("mlx5-infiniband", "mlx5_1", {"xmit_wait": 8, "discards": 0}),
        (
            "bnxt-re",
            "bnxt_re0",
            {
                "cnp_sent": 21,
                "cnp_handled": 22,
                "ecn_marked": 23,
                "out_of_sequence": 24,
                "sequence_error": 25,
                "ack_timeout": 26,
                "discards": 6,
                "pause_rx_prio3": 100,
                "pause_tx_prio3": 200,
            },
        ),
        ("virtio", "eth0", {"discards": 3}),
    ],
)
def test_congestion_has_one_name_whatever_the_driver_calls_it(tmp_path, machine, device, expected):
    told = sampled(tmp_path, machine, compute(device))[device].congestion
    assert {kind: told.get(kind) for kind in expected} == expected
    assert set(told) - set(expected) <= {f"pause_{way}_prio{n}" for way in ("rx", "tx") for n in range(8)}
