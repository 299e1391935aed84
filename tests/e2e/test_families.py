"""The other model families through all path modes."""

from __future__ import annotations

from pathlib import Path

import pytest
from checkpoints import cached_checkpoint
from client import tune
from conversations import converse
from specs import write_spec

from dualpath_cli.embedded import embedded

MODES = ("PrefillOnly", "DecodeOnly", "Split", "Auto")


@pytest.mark.parametrize("family", ["qwen2", "llama", "mistral"])
def test_conversations_equal_the_reference(family: str, reference: object, tmp_path: Path) -> None:
    model = cached_checkpoint(family)
    with embedded(write_spec(tmp_path, model)) as cluster:
        for mode in MODES:
            tune(cluster, pathPolicy=mode)
            converse(cluster, reference, model, (family, mode))


def test_tiny_chunks_and_two_ranks_a_side(reference: object, tmp_path: Path) -> None:
    model = cached_checkpoint("qwen3")
    overrides = [
        "spec.prefill.batching.maxTokens=24",
        "spec.prefill.parallelism.data=2",
        "spec.decode.parallelism.data=2",
    ]
    with embedded(write_spec(tmp_path, model), overrides=overrides) as cluster:
        assert {name for name in cluster.pids if name.endswith("-1")} == {"prefill-0-1", "decode-0-1"}
        for mode in MODES:
            tune(cluster, pathPolicy=mode)
            converse(cluster, reference, model, ("ranks", mode))
