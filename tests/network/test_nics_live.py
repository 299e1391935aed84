"""What the sampler says of NICs under load is what the kernel's queues count."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from networks import MBIT
from traffic import send

from dualpath_cli.emulation.network import Network

WATCH = Path(__file__).with_name("nic_watch.py")
WITHIN = 0.05


@contextmanager
def watch(net: Network, node: str, *rules: str) -> Iterator[Iterator[dict[str, dict[str, float]]]]:
    """Samples of a node, each second."""
    process = net.run(node, [sys.executable, "-P", str(WATCH), *rules], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield (json.loads(line) for line in process.stdout)
    finally:
        process.kill()
        process.communicate()


@contextmanager
def load(net: Network, source: str, target: str, nic: str, rate: int, seconds: int) -> Iterator[None]:
    """Bytes that fill a NIC for so long."""
    running = send(net, source, target, nic, rate * MBIT // 8 * seconds)
    try:
        yield
    finally:
        for process in (running.sender, running.receiver):
            process.kill()
            process.communicate()


@pytest.mark.parametrize(
    ("source", "target", "nic", "rate"), [("s0", "p0", "snic0", 100), ("p0", "d0", "cnic0", 400)]
)
def test_utilisation_is_within_a_twentieth_of_the_queues_own_bytes(net, source, target, nic, rate):
    direction = "rx_bytes" if target == "p0" else "tx_bytes"
    rules = (f"snic0={100 * MBIT}", f"cnic0={400 * MBIT}")
    with watch(net, "p0", *rules) as samples, load(net, source, target, nic, rate, 26):
        for _ in range(12):  # until the mean has forgotten the begin
            next(samples)
        before, began = getattr(net.counters(f"p0.{nic}"), direction), time.monotonic()
        told = [next(samples)[nic] for _ in range(8)]
        after, ended = getattr(net.counters(f"p0.{nic}"), direction), time.monotonic()
    of_queues = (after - before) / (ended - began) / (rate * MBIT / 8)
    of_sampler = sum(sample["utilisation"] for sample in told) / len(told)
    print(f"utilisation of {nic}: sampler {of_sampler:.4f}, queues {of_queues:.4f}")
    assert of_queues > 0.5
    assert of_sampler == pytest.approx(of_queues, rel=WITHIN)


def test_a_link_of_unknown_speed_is_measured_while_reads_wait(net):
    with watch(net, "p0", "snic0") as samples:
        assert next(samples)["snic0"]["link_bytes_per_s"] == 1.25e9  # what the kernel says of every veth
        with load(net, "s0", "p0", "snic0", 100, 16):
            for _ in range(11):
                told = next(samples)["snic0"]
    assert told["capacity_bytes_per_s"] == pytest.approx(100 * MBIT / 8, rel=WITHIN)
    assert told["utilisation"] == pytest.approx(1.0, rel=0.15)


def test_the_drivers_own_statistics_are_read_without_a_command(net):
    code = (
        "from dualpath_worker.nics.ethtool import Ethtool;"
        "print(sorted(Ethtool(keep=lambda name: name == 'peer_ifindex').statistics('snic0').items()))"
    )
    done = subprocess.run(
        net.command("p0", [sys.executable, "-P", "-c", code]), capture_output=True, text=True, check=True
    )
    ((name, index),) = ast.literal_eval(done.stdout)
    assert (name, index > 0) == ("peer_ifindex", True)
