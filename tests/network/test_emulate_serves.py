"""The whole system in an emulated network: right tokens, and every byte over the NIC that it should take."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkpoints import cached_checkpoint
from client import BLOCK, complete, fresh
from test_network_life import alive, traces
from transformers_side import TransformersSide
from waiting import until

from dualpath_cli.emulation.embedded import Emulated, emulated
from dualpath_cli.emulation.wires import Counters

FILE = """\
apiVersion: dualpath.io/v1alpha1
kind: DualPathEmulation
metadata: {name: never-used}
spec:
  storage: {kind: mooncake, nodes: 1, size: 128Mi}
  cluster:
    apiVersion: dualpath.io/v1alpha1
    kind: DualPathCluster
    metadata: {name: test}
    spec:
      model: {uri: "file:///given/by/flag", servedName: tiny, dtype: float32}
      prefill: {resources: {dramBuffer: 64Mi, kvCache: 1Mi}}
      decode: {resources: {dramBuffer: 64Mi, kvCache: 64Mi}}
"""
BLOCKS = 20
KV = BLOCKS * 4 * BLOCK * 2 * 2 * 32 * 4
"""Bytes of the hit: 4 layers, keys and values, 2 heads of 32, float32."""
SPARE = 0.05 * KV
"""Headers, acknowledgements and the scheduler's writes: the most that may be on top."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulated]:
    """1P1D with a store node, on a tiny Qwen3."""
    file = tmp_path_factory.mktemp("emulated") / "emulated.yaml"
    file.write_text(FILE)
    with emulated(file, model=cached_checkpoint("qwen3"), name=f"test-{os.getpid()}-serves") as running:
        yield running


@pytest.fixture(scope="module")
def theirs(cluster: Emulated) -> TransformersSide:
    """The checkpoint in transformers."""
    return TransformersSide(cached_checkpoint("qwen3"))


def carried(before: dict[str, Counters], after: dict[str, Counters]) -> dict[str, tuple[int, int]]:
    """(received, sent) by NIC in between."""
    return {
        nic: (after[nic].rx_bytes - then.rx_bytes, after[nic].tx_bytes - then.tx_bytes)
        for nic, then in before.items()
    }


@pytest.mark.parametrize(
    ("mode", "p0_reads", "d0_reads"), [("PrefillOnly", 1, 0), ("DecodeOnly", 0, 1), ("Split", 0.5, 0.5)]
)
def test_a_hit_takes_the_storage_nics_of_its_mode(cluster, theirs, mode, p0_reads, d0_reads):
    cluster.ask("/control/v1/tuning", {"pathPolicy": mode}, "PUT")
    prompt = fresh(BLOCKS * BLOCK + 5, mode)
    first = complete(cluster, prompt, 6)
    assert first.tokens == theirs.greedy(prompt, 6)
    before = cluster.network.all_counters()
    again = complete(cluster, prompt, 6)
    moved = carried(before, cluster.network.all_counters())
    assert (again.tokens, again.cached) == (first.tokens, BLOCKS * BLOCK)
    p0, d0 = moved["p0.snic0"][0], moved["d0.snic0"][0]
    late = 0.25 * KV if mode == "Split" else 0.0  # who reads the last blocks is bound late
    assert p0_reads * KV - late <= p0 <= p0_reads * KV + SPARE + late
    assert d0_reads * KV - late <= d0 <= d0_reads * KV + SPARE + late
    assert KV <= p0 + d0 <= KV + 2 * SPARE
    assert KV <= moved["s0.snic0"][1] <= KV + 2 * SPARE
    to_prefill, to_decode = moved["p0.cnic0"][0], moved["d0.cnic0"][0]
    assert d0 - SPARE <= to_prefill <= d0 + SPARE  # what decode has read
    assert p0 - SPARE <= to_decode <= p0 + SPARE + KV / BLOCKS  # and the rest, with what is new


def test_engines_see_the_rates_of_the_file_and_count_what_the_kernel_counts(cluster):
    def seen() -> dict[str, dict[str, float]]:
        engines = cluster.ask("/control/v1/report")["engines"]
        return {engine["id"][0] + "0." + nic["name"]: nic for engine in engines for nic in engine["nics"]}

    assert {name: nic["linkBytesPerS"] for name, nic in seen().items()} == {
        "p0.snic0": 25e6,
        "p0.cnic0": 200e6,
        "d0.snic0": 25e6,
        "d0.cnic0": 200e6,
    }
    truth = cluster.network.all_counters()
    until(lambda: all(nic["rxBytes"] > 0.95 * truth[name].rx_bytes for name, nic in seen().items()), 20)
    assert all(nic["rxBytes"] < 1.05 * truth[name].rx_bytes + SPARE for name, nic in seen().items())


def command(cluster: Emulated, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`dualpath emulate ARGUMENTS` on the running network."""
    line = [sys.executable, "-m", "dualpath_cli", "emulate", "--name", cluster.network.name, *arguments]
    return subprocess.run(line, capture_output=True, text=True, check=False)


def test_rates_and_cables_follow_the_commands(cluster):
    links = cluster.network.links
    assert command(cluster, "set", "p0.snic0", "50mbit").returncode == 0
    assert links()["p0.snic0"].bits_per_s == 50_000_000
    assert command(cluster, "cut", "d0.cnic0").returncode == 0
    assert not links()["d0.cnic0"].up
    assert '"up": false' in command(cluster, "status", "--json").stdout
    assert command(cluster, "restore", "d0.cnic0").returncode == 0
    assert command(cluster, "cut", "d0.cnic0", "--for", "100ms").returncode == 0
    assert links()["d0.cnic0"].up
    assert "snic0" in command(cluster, "exec", "s0", "--", "ls", "/sys/class/net").stdout
    assert command(cluster, "exec", "s0", "--", "sh", "-c", "exit 7").returncode == 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("set", "p0.snic0", "fast"), "'fast'"),
        (("set", "p7.snic0", "5mbit"), "p0.snic0"),
        (("cut", "p0.snic0", "--for", "soon"), "--for soon"),
        (("exec", "p7", "--", "true"), "no node 'p7'"),
    ],
)
def test_a_mistake_in_a_command_is_one_clear_message(cluster, arguments, message):
    done = command(cluster, *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_nothing_is_left_of_a_killed_emulation_once_it_is_cleaned(cluster):
    name, pids = cluster.network.name, list(cluster.pids.values())
    cluster.process.send_signal(signal.SIGKILL)
    cluster.process.wait(10)
    until(lambda: not any(alive(pid) for pid in pids), 20, what="its processes to end with it")
    assert traces(name)
    done = subprocess.run(
        [sys.executable, "-m", "dualpath_cli", "emulate", "clean"], capture_output=True, text=True, check=True
    )
    assert f"removed {name}" in done.stdout
    assert traces(name) == []
    assert not [path for path in Path("/proc").glob("[0-9]*/cmdline") if _mentions(path, name)]


def _mentions(path: Path, name: str) -> bool:
    try:
        return name in path.read_text(errors="replace")
    except OSError:
        return False
