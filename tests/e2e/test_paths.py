"""Every path mode serves the reference's tokens, and reads on the side that it says."""

from __future__ import annotations

import pytest
from checkpoints import cached_checkpoint
from client import BLOCK, complete, fresh, read_bytes, tune
from conversations import converse

from dualpath_cli.embedded import Embedded

MODES = ("PrefillOnly", "DecodeOnly", "ShorterQueue", "Split", "Auto")


@pytest.mark.parametrize("mode", MODES)
def test_conversations_equal_the_reference(cluster: Embedded, reference: object, mode: str) -> None:
    tune(cluster, pathPolicy=mode)
    converse(cluster, reference, cached_checkpoint("qwen3"), ("qwen3", mode))


@pytest.mark.parametrize(
    ("mode", "sides"),
    [("PrefillOnly", {"prefill"}), ("DecodeOnly", {"decode"}), ("Split", {"prefill", "decode"})],
)
def test_only_the_allowed_sides_read_storage(cluster: Embedded, mode: str, sides: set[str]) -> None:
    tune(cluster, pathPolicy=mode)
    context = fresh(40 * BLOCK, ("sides", mode))
    complete(cluster, context, 1)
    before = read_bytes(cluster)
    answer = complete(cluster, context + fresh(10, mode), 4)
    after = read_bytes(cluster)
    read = {side: after[side] - before[side] for side in after}
    assert answer.cached == 40 * BLOCK
    assert {side for side, amount in read.items() if amount} == sides
    assert sum(read.values()) == 40 * full_block_bytes()


def full_block_bytes() -> int:
    """Of the tiny Qwen3: 4 layers, 2 KV heads of 32, float32."""
    return 4 * BLOCK * 2 * 2 * 32 * 4


def test_all_modes_share_one_store(cluster: Embedded) -> None:
    context = fresh(4 * BLOCK, "shared between modes")
    tune(cluster, pathPolicy="PrefillOnly")
    first = complete(cluster, context, 3)
    for mode in MODES[1:]:
        tune(cluster, pathPolicy=mode)
        again = complete(cluster, context, 3)
        assert (again.tokens, again.cached) == (first.tokens, 4 * BLOCK - 1)
