"""What of the NICs is exported."""

from recorded import Recorded, compute, storage

from dualpath_worker.metrics import Metrics


def exported(sample):
    metrics = Metrics()
    metrics.nics(sample)
    return metrics, metrics.registry.get_sample_value


def test_counters_and_congestion_have_the_nic_and_its_role(tmp_path):
    bed = Recorded(tmp_path, "mlx5-roce")
    sampler = bed.sampler(compute("mlx5_0"))
    metrics, value = exported(sampler.latest)
    of = {"nic": "mlx5_0", "role": "compute"}
    assert value("dualpath_nic_bytes_total", of | {"dir": "rx"}) == 8_050_000
    assert value("dualpath_nic_congestion_total", of | {"kind": "pause_rx_prio3"}) == 512
    bed.ethtool["ens1f0np0"]["rx_prio3_pause"] += 8
    bed.after(sampler, 6.0)
    metrics.nics(sampler.latest)
    assert value("dualpath_nic_congestion_total", of | {"kind": "pause_rx_prio3"}) == 520


def test_utilisation_is_over_the_capacity_and_absent_where_it_is_unknown(tmp_path):
    bed = Recorded(tmp_path, "virtio")
    sampler = bed.sampler(storage("eth0", 80_000), storage("eth1"))
    for second in range(60):
        bed.write("class/net/eth0/statistics/rx_bytes", 1000 + 5000 * (second + 1))
        bed.after(sampler)
    _, value = exported(sampler.latest)
    assert round(value("dualpath_nic_utilization_ratio", {"nic": "eth0", "role": "storage"}), 3) == 0.5
    assert value("dualpath_nic_utilization_ratio", {"nic": "eth1", "role": "storage"}) is None
    assert value("dualpath_nic_capacity_bytes_per_second", {"nic": "eth1", "role": "storage"}) == 0


def test_a_nic_without_counters_exports_no_bytes(tmp_path):
    _, value = exported(Recorded(tmp_path, "mlx5-roce").sampler(compute("mlx5_2")).latest)
    of = {"nic": "mlx5_2", "role": "compute"}
    assert value("dualpath_nic_bytes_total", of | {"dir": "rx"}) is None
    assert value("dualpath_nic_link_bytes_per_second", of) == 12.5e9
    assert value("dualpath_nic_utilization_ratio", of) is None
