"""What network benchmarks run on: emulated nodes with rate-limited NICs, a store, and the ways to read it.

`oracle` lifts the limits of the storage NICs: what would be if reading took no time.
"""

from __future__ import annotations

import os
import platform
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from checkpoints import cached_checkpoint

from dualpath_cli.emulation.embedded import Emulated, emulated

RESULTS = Path(__file__).resolve().parent / "results"
NAME = "bench"
MODEL = {
    "vocab_size": 384,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "max_position_embeddings": 8192,
}
"""Much KV and little to compute: a token's KV has 32 KiB."""
KV_PER_TOKEN = 8 * 2 * 8 * 64 * 4
POLICIES = {
    "prefill-only": "PrefillOnly",
    "decode-only": "DecodeOnly",
    "paper": "ShorterQueue",
    "split": "Split",
    "oracle": "PrefillOnly",
}
LOADED = ("prefill-only", "paper", "split", "oracle")
CNIC_OVER_SNIC = 8
EMULATION = """
apiVersion: dualpath.io/v1alpha1
kind: DualPathEmulation
metadata: {{name: bench-net}}
spec:
  prefill: {{nodes: {prefill}, snic: {snic}, cnic: {cnic}}}
  decode: {{nodes: {decode}, snic: {snic}, cnic: {cnic}}}
  storage: {{kind: mooncake, nodes: 1, size: {store}}}
  cluster:
    apiVersion: dualpath.io/v1alpha1
    kind: DualPathCluster
    metadata: {{name: bench}}
    spec:
      model: {{uri: "file:///set/by/--model", servedName: {model}, dtype: float32}}
      prefill: {{resources: {{dramBuffer: 512Mi, kvCache: 1Mi}}}}
      decode: {{resources: {{dramBuffer: 512Mi, kvCache: 512Mi}}}}
      storage: {{files: {{path: unused, size: 1Gi}}}}
"""


@dataclass(frozen=True, slots=True)
class Bed:
    """A running emulation whose storage NICs have `snic` bit/s."""

    cluster: Emulated
    snic: int
    prefills: int
    decodes: int

    def use(self, way: str) -> None:
        """Take one of POLICIES."""
        self.cluster.ask("/control/v1/tuning", {"pathPolicy": POLICIES[way]}, "PUT")
        rate = "unlimited" if way == "oracle" else self.snic
        for nic in self.storage_nics:
            self.cluster.network.set_rate(nic, rate)

    @property
    def storage_nics(self) -> list[str]:
        """Of the engines."""
        nodes = [f"p{n}" for n in range(self.prefills)] + [f"d{n}" for n in range(self.decodes)]
        return [f"{node}.snic0" for node in nodes]


@contextmanager
def bed(prefills: int, decodes: int, snic: int, store: str = "1Gi") -> Iterator[Bed]:
    """A bed with these engines and a store of this size; the policy is not set yet."""
    model = cached_checkpoint("qwen3", **MODEL)
    with tempfile.TemporaryDirectory(prefix="dualpath-bench-") as folder:
        file = Path(folder) / "emulation.yaml"
        sizes = {"prefill": prefills, "decode": decodes, "store": store, "model": NAME}
        file.write_text(EMULATION.format(snic=snic, cnic=CNIC_OVER_SNIC * snic, **sizes))
        with emulated(file, model=model) as cluster:
            yield Bed(cluster, snic, prefills, decodes)


def provenance(target: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Commit, machine and command (a target of the Makefile)."""
    head = ["git", "rev-parse", "HEAD"]
    commit = subprocess.run(head, cwd=RESULTS, capture_output=True, text=True, check=False).stdout.strip()
    machine = {"cores": os.cpu_count(), "kind": platform.machine(), "python": platform.python_version()}
    command = " ".join([f"make {target}", f'ARGS="{" ".join(arguments)}"' if arguments else ""]).strip()
    return {"commit": commit, "machine": machine, "command": command}
