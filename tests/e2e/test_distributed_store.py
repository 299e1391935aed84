"""Engines on a Mooncake Store: the reference's tokens in every mode, and while its processes hang and die."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from checkpoints import cached_checkpoint
from client import BLOCK, complete, fresh, metric, read_bytes, tune
from conversations import check, converse
from process.store_bed import MooncakeBed
from specs import CLUSTER

from dualpath_cli.embedded import Embedded, embedded


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MooncakeBed]:
    """A master and two nodes that give up on nobody soon."""
    made = MooncakeBed(tmp_path_factory.mktemp("store"), nodes=2, ttl=60, size=128 << 20)
    yield made
    made.close()


def spec_of(folder, bed: MooncakeBed, more: str = ""):
    text = CLUSTER.format(model=cached_checkpoint("qwen3"), store="")
    start = text.index("  storage:")
    file = folder / "cluster.yaml"
    file.write_text(f'{text[:start]}  storage: {{external: {{endpoints: ["127.0.0.1:{bed.port}"]}}{more}}}\n')
    return file


@pytest.fixture(scope="module")
def remote(bed: MooncakeBed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    with embedded(spec_of(tmp_path_factory.mktemp("remote"), bed)) as running:
        yield running


@pytest.mark.parametrize("mode", ["PrefillOnly", "DecodeOnly", "Split"])
def test_conversations_equal_the_reference(remote: Embedded, reference: object, mode: str) -> None:
    tune(remote, pathPolicy=mode)
    converse(remote, reference, cached_checkpoint("qwen3"), ("distributed", mode))


def test_a_frozen_node_and_a_dead_master_cost_no_token(
    remote: Embedded, bed: MooncakeBed, reference: object
) -> None:
    model = cached_checkpoint("qwen3")
    tune(remote, pathPolicy="Split")
    context = fresh(20 * BLOCK, "faults")
    complete(remote, context, 1)
    bed.nodes[0].freeze()
    for number in range(2):
        check(remote, reference, model, context + fresh(3, ("frozen", number)))
    bed.nodes[0].thaw()
    bed.restart()
    for number in range(2):
        check(remote, reference, model, context + fresh(3, ("restarted", number)))


def test_the_memory_in_front_answers_without_the_store(
    bed: MooncakeBed, reference: object, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model, context = cached_checkpoint("qwen3"), fresh(8 * BLOCK, "tier")
    spec = spec_of(tmp_path_factory.mktemp("tier"), bed, ", dramTier: {size: 16Mi}")
    with embedded(spec, overrides=["spec.pathPolicy.mode=DecodeOnly"]) as cluster:
        complete(cluster, context, 1)
        assert check(cluster, reference, model, context + fresh(5, "tier's turn")).cached == 8 * BLOCK
        assert read_bytes(cluster)["decode"] == 8 * BLOCK * 2048
        assert metric(cluster, "decode-0-0", "dualpath_storage_tier_bytes_total") == 8 * BLOCK * 2048
