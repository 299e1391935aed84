"""The sampler: rates, devices that come and go, warnings; on recorded machines and on this one's loopback."""

import logging
import shutil
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest
from recorded import Recorded, compute, storage

from dualpath_api.wire import StorageNic
from dualpath_worker.nics import NicSampler, discover, standing

RX, TX = "class/net/eth0/statistics/rx_bytes", "class/net/eth0/statistics/tx_bytes"


@pytest.fixture
def virtio(tmp_path):
    return Recorded(tmp_path, "virtio")


def test_rates_are_bytes_over_the_time_between_samples(virtio):
    sampler = virtio.sampler(storage("eth0"))
    assert sampler.latest[0].rx_bytes_per_s == 0.0
    virtio.write(RX, 5000)
    virtio.write(TX, 2600)
    nic = virtio.after(sampler, 2.0)["eth0"]
    assert (nic.rx_bytes_per_s, nic.tx_bytes_per_s) == (2000.0, 300.0)
    assert (nic.rx_bytes, nic.tx_bytes) == (5000, 2600)


def test_the_mean_follows_a_step_within_seconds_and_one_burst_does_not_move_it_far(virtio):
    sampler, total = virtio.sampler(storage("eth0")), 1000
    seen = []
    for rate in [0] * 5 + [1000] * 15:
        total += rate
        virtio.write(RX, total)
        seen.append(virtio.after(sampler)["eth0"].rx_mean_bytes_per_s)
    assert seen[4] == 0
    assert 150 < seen[5] < 250  # the first second of the load
    assert seen == sorted(seen)
    assert 940 < seen[-1] < 1000


def test_a_counter_that_started_over_gives_no_rate_once(virtio):
    sampler = virtio.sampler(storage("eth0"))
    virtio.write(RX, 10)
    assert virtio.after(sampler)["eth0"].rx_bytes_per_s == 0.0
    virtio.write(RX, 30)
    nic = virtio.after(sampler)["eth0"]
    assert (nic.rx_bytes_per_s, nic.rx_bytes) == (20.0, 30)


def test_a_device_that_goes_is_left_out_and_comes_back(virtio, caplog):
    sampler = virtio.sampler(storage("eth?"))
    shutil.move(virtio.root / "class/net/eth0", virtio.root / "away")
    assert list(virtio.after(sampler)) == ["eth1"]
    assert "NICs have gone: ['eth0']" in caplog.text
    shutil.move(virtio.root / "away", virtio.root / "class/net/eth0")
    assert virtio.after(sampler)["eth0"].rx_bytes_per_s == 0.0


def test_rules_that_match_nothing_are_told_once_with_what_there_is(virtio, caplog):
    caplog.set_level(logging.WARNING)
    sampler = virtio.sampler(storage("ib*"), compute("eth0"))
    virtio.after(sampler)
    virtio.after(sampler, 60.0)
    assert [nic.role for nic in sampler.latest] == ["compute"]
    assert len(caplog.records) == 1
    assert "'ib*': 'storage'" in caplog.text
    assert "'eth0', 'eth1'" in caplog.text


def test_only_a_rule_that_finds_a_storage_nic_makes_the_node_have_one(virtio):
    def found(*rules):
        return standing(rules, discover(rules, virtio.root))

    assert found() == found(compute("eth0")) == StorageNic.UNNAMED
    assert found(storage("eth1")) == StorageNic.PRESENT
    assert found(storage("snic*"), compute("eth*")) == StorageNic.MISSING
    assert found(compute("eth*"), storage("eth1")) == StorageNic.MISSING  # the first rule takes it


def test_capacity_is_what_the_nic_carries_while_reads_wait(virtio):
    sampler, total = virtio.sampler(storage("eth0")), 1000
    waiting = False
    sampler.watch(lambda: waiting)

    def second(rate):
        nonlocal total
        total += rate
        virtio.write(RX, total)
        return virtio.after(sampler)["eth0"].capacity_bytes_per_s

    for _ in range(20):
        assert second(90) == 0  # nobody waited: this says nothing about the link
    waiting = True
    capacities = [second(100) for _ in range(6)]
    assert capacities == [0, 0, 0, 0, 0, 100]  # a window counts if reads waited at both of its ends
    for _ in range(100):
        second(100)
    assert second(180) == 100  # one window that a burst has filled
    waiting = False
    assert second(0) == 100


def test_the_link_bounds_what_was_measured(tmp_path):
    veth = Recorded(tmp_path, "veth")
    sampler, total = veth.sampler(storage("eth0")), 1000
    assert sampler.latest[0].capacity_bytes_per_s == 1.25e9  # what the kernel says of all veths
    sampler.watch(lambda: True)
    for _ in range(8):
        total += 5_000_000
        veth.write(RX, total)
        nic = veth.after(sampler)["eth0"]
    assert (nic.link_bytes_per_s, nic.capacity_bytes_per_s) == (1.25e9, 5e6)
    for _ in range(200):
        total += 2 * 10**9
        veth.write(RX, total)
        nic = veth.after(sampler)["eth0"]
    assert (nic.measured_bytes_per_s, nic.capacity_bytes_per_s) == (2e9, 1.25e9)


def test_a_rule_that_tells_the_speed_is_believed(tmp_path):
    veth = Recorded(tmp_path, "veth")
    sampler, total = veth.sampler(storage("eth0", link_bps=80_000_000)), 1000
    sampler.watch(lambda: True)
    for _ in range(8):
        total += 5_000_000
        veth.write(RX, total)
        nic = veth.after(sampler)["eth0"]
    assert (nic.link_bytes_per_s, nic.measured_bytes_per_s, nic.capacity_bytes_per_s) == (1e7, 5e6, 1e7)


def test_a_new_speed_is_seen_without_a_restart(tmp_path):
    bed = Recorded(tmp_path, "mlx5-roce")
    sampler = bed.sampler(storage("ens1f0np0"))
    bed.write("class/net/ens1f0np0/speed", 25000)
    assert bed.after(sampler, 11.0)["ens1f0np0"].link_bytes_per_s == 25e9 / 8


def send(address, size):
    with socket.create_connection(address) as client:
        client.sendall(bytes(size))


def test_bytes_sent_over_loopback_are_counted():
    sampler = NicSampler([storage("lo")], period_s=None)
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
