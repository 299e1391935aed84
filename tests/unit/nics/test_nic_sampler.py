"""NICs on a made /sys (Ethernet, InfiniBand, virtio) and on this machine's loopback."""

import logging
import shutil
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from dualpath_api.cluster import NicRule
from dualpath_worker.nics import NicSampler, discover


def rule(role, match, link_bps=None):
    return NicRule(role=role, match=match, link_bps=link_bps)


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{value}\n")


@pytest.fixture
def sysfs(tmp_path):
    for name, speed in (("eth0", 100_000), ("eth1", -1), ("lo", None)):
        net = tmp_path / "class/net" / name
        write(net / "statistics/rx_bytes", 1000)
        write(net / "statistics/tx_bytes", 2000)
        if speed is not None:
            write(net / "speed", speed)
    for name in ("mlx5_0", "mlx5_1"):
        port = tmp_path / "class/infiniband" / name / "ports/1"
        write(port / "counters/port_rcv_data", 500)
        write(port / "counters/port_xmit_data", 700)
        write(port / "rate", "400 Gb/sec (4X NDR)")
        write(port / "state", "4: ACTIVE")
    return tmp_path


def sampler_of(sysfs, *rules, times=(1.0, 2.0, 3.0)):
    clock = iter(times)
    return NicSampler(rules, sysfs=sysfs, period_s=None, clock=lambda: next(clock))


def test_the_first_matching_rule_gives_the_role(sysfs):
    rules = [rule("storage", "mlx5_1"), rule("compute", "mlx5_*"), rule("storage", "eth*")]
    roles = {device.name: device.role for device in discover(rules, sysfs)}
    assert roles == {"eth0": "storage", "eth1": "storage", "mlx5_0": "compute", "mlx5_1": "storage"}


def test_infiniband_counts_words_of_four_bytes(sysfs):
    (nic,) = sampler_of(sysfs, rule("compute", "mlx5_0")).latest
    assert (nic.rx_bytes, nic.tx_bytes, nic.link_bytes_per_s) == (2000, 2800, 50e9)


def test_the_ports_of_a_device_are_added_up(sysfs):
    shutil.copytree(
        sysfs / "class/infiniband/mlx5_0/ports/1",
        sysfs / "class/infiniband/mlx5_0/ports/2",
        dirs_exist_ok=True,
    )
    write(sysfs / "class/infiniband/mlx5_0/ports/2/state", "1: DOWN")
    (nic,) = sampler_of(sysfs, rule("compute", "mlx5_0")).latest
    assert (nic.rx_bytes, nic.link_bytes_per_s) == (4000, 50e9)


def test_link_speed_is_the_kernels_unless_the_rule_knows_better(sysfs):
    known, unknown = sampler_of(sysfs, rule("storage", "eth?")).latest
    assert (known.link_bytes_per_s, unknown.link_bytes_per_s) == (12.5e9, 0.0)
    (told,) = sampler_of(sysfs, rule("storage", "eth1", link_bps=200_000_000)).latest
    assert told.link_bytes_per_s == 25e6


def test_rates_are_bytes_over_the_time_between_samples(sysfs):
    sampler = sampler_of(sysfs, rule("storage", "eth0"), times=(10.0, 12.0))
    assert sampler.latest[0].rx_bytes_per_s == 0.0
    write(sysfs / "class/net/eth0/statistics/rx_bytes", 5000)
    write(sysfs / "class/net/eth0/statistics/tx_bytes", 2600)
    (nic,) = sampler.sample()
    assert (nic.rx_bytes_per_s, nic.tx_bytes_per_s) == (2000.0, 300.0)


def test_a_counter_that_went_backwards_gives_no_rate_once(sysfs):
    sampler = sampler_of(sysfs, rule("storage", "eth0"))
    write(sysfs / "class/net/eth0/statistics/rx_bytes", 10)
    assert sampler.sample()[0].rx_bytes_per_s == 0.0
    write(sysfs / "class/net/eth0/statistics/rx_bytes", 30)
    assert sampler.sample()[0].rx_bytes_per_s == 20.0


def test_a_device_that_goes_is_left_out_and_comes_back(sysfs, caplog):
    sampler = sampler_of(sysfs, rule("storage", "eth?"), times=range(1, 9))
    shutil.move(sysfs / "class/net/eth0", sysfs / "away")
    assert [nic.name for nic in sampler.sample()] == ["eth1"]
    assert "eth0" in caplog.text
    shutil.move(sysfs / "away", sysfs / "class/net/eth0")
    back = sampler.sample()[0]
    assert (back.name, back.rx_bytes_per_s) == ("eth0", 0.0)


def test_rules_that_match_nothing_are_told_once_with_what_there_is(sysfs, caplog):
    caplog.set_level(logging.WARNING)
    sampler = sampler_of(sysfs, rule("storage", "ib*"))
    sampler.sample()
    assert sampler.latest == ()
    assert len(caplog.records) == 1
    assert "eth0" in caplog.text
    assert "ib*" in caplog.text


def test_a_machine_without_infiniband_is_fine(tmp_path):
    assert discover([rule("storage", "*")], tmp_path) == []


def send(address, size):
    with socket.create_connection(address) as client:
        client.sendall(bytes(size))


def test_bytes_sent_over_loopback_are_counted():
    sampler = NicSampler([rule("storage", "lo")], period_s=None)
    (before,) = sampler.latest
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:
        sending = pool.submit(send, server.getsockname(), 1 << 20)
        connection, _ = server.accept()
        with connection:
            while connection.recv(1 << 16):
                pass
        sending.result()
    (after,) = sampler.sample()
    assert after.tx_bytes - before.tx_bytes >= 1 << 20
    assert after.rx_bytes_per_s > 0
