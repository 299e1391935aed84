"""The whole system with traffic classes and copies by NIC: networks checked, KV marked, each NIC reported."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkpoints import cached_checkpoint
from class_tools import cluster as cluster_file
from class_tools import fabric
from client import BLOCK, complete, fresh
from programs import ensure
from test_emulate_serves import FILE
from transformers_side import TransformersSide
from waiting import until

from dualpath_cli.emulation.embedded import Emulated, emulated

BLOCKS = 20
KV = BLOCKS * 4 * BLOCK * 2 * 2 * 32 * 4


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulated]:
    """1P1D on a tiny Qwen3; its engines look at their networks before they register."""
    ensure("nft", "nftables")
    file = tmp_path_factory.mktemp("classes") / "emulated.yaml"
    file.write_text(FILE + "      fabric: {mode: HostNetwork, trafficClasses: {}, localCopies: Nic}\n")
    with emulated(file, model=cached_checkpoint("qwen3"), name=f"test-{os.getpid()}-classes") as running:
        yield running


def shown(cluster: Emulated, node: str, config: str) -> dict[str, int]:
    """Bytes that left a node by cnic0, by class."""
    code, told = fabric(cluster.network, node, "classes", "show", "--config", config)
    assert code == 0
    return {name: queue["bytes"] for name, queue in told["queues"]["cnic0"].items()}


def test_kv_between_the_engines_is_in_its_class_and_nothing_else_is(cluster: Emulated, tmp_path: Path):
    net, configs = cluster.network, {}
    for node in ("p0", "d0"):
        configs[node] = cluster_file(tmp_path, net, node)
        assert fabric(net, node, "classes", "apply", "--config", configs[node]) == (0, "")
    cluster.ask("/control/v1/tuning", {"pathPolicy": "Split"}, "PUT")
    prompt = fresh(BLOCKS * BLOCK + 5, "classes")
    first = complete(cluster, prompt, 6)
    before = shown(cluster, "d0", configs["d0"])
    again = complete(cluster, prompt, 6)
    assert first.tokens == TransformersSide(cached_checkpoint("qwen3")).greedy(prompt, 6)
    assert (again.tokens, again.cached) == (first.tokens, BLOCKS * BLOCK)
    after = shown(cluster, "d0", configs["d0"])
    assert after["kv"] - before["kv"] > 0.4 * KV  # the half that d0 has read, on its way to p0
    assert after["inference"] - before["inference"] < 0.02 * KV


def test_the_report_knows_every_nic_by_role_with_its_rate_and_its_link(cluster: Emulated):
    def nics() -> dict[str, dict[str, dict[str, object]]]:
        engines = cluster.ask("/control/v1/report")["engines"]
        found = {engine["id"]: {nic["name"]: nic for nic in engine["nics"]} for engine in engines}
        assert all(found.values())
        return found

    for seen in until(nics).values():
        assert {name: nic["role"] for name, nic in seen.items()} == {"snic0": "storage", "cnic0": "compute"}
        assert [nic["capacityBytesPerS"] for nic in seen.values()] == [1.6e9 / 8, 2e8 / 8]
        assert all(nic["counted"] and nic["utilisation"] is not None for nic in seen.values())
        assert all("discards" in nic["congestion"] for nic in seen.values())
