"""Counters that wrap, stop and start over; pause counters of drivers; ethtool's ioctl; what sampling costs."""

import time

from hypothesis import given
from hypothesis import strategies as st
from recorded import Recorded, storage

from dualpath_worker.nics import NicSampler
from dualpath_worker.nics.congestion import pause_kind
from dualpath_worker.nics.counters import Joined
from dualpath_worker.nics.ethtool import Ethtool

ROUND = 1 << 32
MOST = 1 << 30


@given(st.integers(0, ROUND - 1), st.lists(st.integers(0, MOST), max_size=20))
def test_a_counter_of_32_bits_is_joined_over_its_rounds(start, steps):
    counter, true = Joined(), start
    counter.add(start, MOST)
    for step in steps:
        true += step
        assert counter.add(true % ROUND, MOST) == step or true % ROUND == ROUND - 1
    assert counter.total == true


@given(st.lists(st.integers(0, 1 << 64), min_size=1, max_size=20))
def test_no_step_is_ever_negative_or_more_than_the_link_after_a_fall(values):
    counter, before = Joined(), None
    for value in values:
        step = counter.add(value, MOST)
        assert step is None or step >= 0
        if before is not None and value < before:
            assert step is None or step <= MOST
        before = value


def test_a_counter_that_stopped_at_its_end_is_unknown_not_idle():
    counter = Joined()
    counter.add(ROUND - 2, MOST)
    assert counter.add(ROUND - 1, MOST) == 1
    assert counter.add(ROUND - 1, MOST) is None


def test_a_wrap_of_words_is_a_rate_of_bytes(tmp_path):
    bed = Recorded(tmp_path, "mlx5-infiniband")
    sampler = bed.sampler(storage("mlx5_0"))
    bed.write("class/infiniband/mlx5_0/ports/1/counters/port_rcv_data", 4_000_000_000 + 500_000_000 - ROUND)
    nic = bed.after(sampler)["mlx5_0"]
    assert (nic.rx_bytes_per_s, nic.rx_bytes) == (2e9, 18_000_000_000)


def test_pause_frames_have_one_name_whatever_the_driver_calls_them():
    names = {
        "rx_prio3_pause": "pause_rx_prio3",
        "tx_priority_5_xoff.nic": "pause_tx_prio5",
        "port.rx_priority_0_xoff_rx": "pause_rx_prio0",
        "port.tx_priority_1_xoff": "pause_tx_prio1",
        "tx_pfc_ena_frames_pri7": "pause_tx_prio7",
        "rx_prio3_pause_duration": "",
        "rx_prio3_bytes": "",
        "rx_packets": "",
    }
    assert {name: pause_kind(name) for name in names} == names


def test_interfaces_without_statistics_and_without_existence_have_none():
    everything = Ethtool(keep=lambda name: True)
    assert everything.statistics("lo") == {}
    assert everything.statistics("none0") == {}


def test_sampling_ten_devices_takes_a_small_part_of_a_core(tmp_path, capsys):
    """The figure is printed, as machines differ."""
    bed = Recorded(tmp_path, "mlx5-roce")
    for number in range(10):
        for path in sorted((bed.root / "class/infiniband/mlx5_0/ports").rglob("*")):
            if path.is_file():
                below = path.relative_to(bed.root / "class/infiniband/mlx5_0")
                bed.write(f"class/infiniband/nic{number}/{below}", path.read_text().strip())
    now = 0.0
    sampler = NicSampler(
        [storage("nic*")], sysfs=bed.root, period_s=None, clock=lambda: now, statistics=lambda name: {}
    )
    began = time.process_time()
    for _ in range(60):
        now += 1.0
        assert len(sampler.sample()) == 10
    used = (time.process_time() - began) / 60
    with capsys.disabled():
        print(f"\nsampling 10 NICs each second takes {used:.3%} of a core")
