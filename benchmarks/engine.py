"""Engine benchmark: warm store against recompute, decoding against transformers, storage against plain pread.

Every figure is a ratio to a baseline that is measured in the same run, interleaved with it. Prints a table;
with --write also benchmarks/results/engine.json, which the README quotes. Run by `make bench-engine`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from checkpoints import BENCH_QWEN3, cached_checkpoint
from openai import OpenAI
from rich.console import Console
from rich.table import Table

from dualpath_cli.embedded import embedded

CONTEXT, APPENDED = 4096, 256
DECODE_CONTEXT, DECODE_TOKENS = 4096, 32
RESULT = Path(__file__).parent / "results" / "engine.json"
CLUSTER = """\
apiVersion: dualpath.io/v1alpha1
kind: DualPathCluster
metadata: {{name: bench}}
spec:
  model: {{uri: "file://{model}", servedName: bench, dtype: float32}}
  prefill: {{resources: {{dramBuffer: 2Gi, kvCache: 1Mi}}, batching: {{computeQuota: 10s, maxTokens: 8192}}}}
  decode: {{resources: {{dramBuffer: 2Gi, kvCache: 2Gi}}}}
  storage: {{files: {{path: "{store}", size: 8Gi}}}}
"""
console = Console(stderr=True)


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured ratio."""

    item: str
    ours: float
    baseline: float
    unit: str
    ratio: float  # above 1: better than the baseline
    wanted: float


def main() -> int:
    """0 if every ratio is as wanted."""
    parser = argparse.ArgumentParser(description=__doc__, epilog="Example: make bench-engine")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", action="store_true", help=f"write {RESULT.name}")
    arguments = parser.parse_args()
    model = cached_checkpoint("qwen3", **BENCH_QWEN3)
    with tempfile.TemporaryDirectory(prefix="dualpath-bench-") as scratch:
        spec = Path(scratch) / "cluster.yaml"
        spec.write_text(CLUSTER.format(model=model, store=Path(scratch) / "kv"))
        figures = [*serving_figures(spec, model, arguments.rounds), *storage_figures(Path(scratch))]
    show(figures)
    if arguments.write:
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(json.dumps({**machine(), "figures": [asdict(f) for f in figures]}, indent=2) + "\n")
    return 0 if all(figure.ratio >= figure.wanted for figure in figures) else 1


# ---------------------------------------------------------------- serving


def serving_figures(spec: Path, model: Path, rounds: int) -> list[Figure]:
    """TTFT of a warm store against recompute; decode throughput against transformers."""
    cold, warm = [], []
    ours: dict[int, list[float]] = {1: [], 8: []}
    theirs: dict[int, list[float]] = {1: [], 8: []}
    with embedded(spec) as cluster, Reference(model) as reference:
        client = OpenAI(base_url=cluster.openai, api_key="none", timeout=600)
        stream(client, tokens(256), 4)
        prompts = [tokens(DECODE_CONTEXT) for _ in range(8)]
        console.print("contexts for decoding, into the store and into the reference's cache")
        for prompt in prompts:
            stream(client, prompt, 1)
        reference.decode_rate(1)
        reference.decode_rate(8)
        for number in range(rounds):
            console.print(f"round {number + 1} of {rounds}: time to first token")
            context = tokens(CONTEXT)
            cold.append(stream(client, context + tokens(APPENDED), 2).ttft_s)
            warm.append(stream(client, context + tokens(APPENDED), 2).ttft_s)
            for batch in (1, 8):
                console.print(f"round {number + 1} of {rounds}: decode, batch {batch}")
                ours[batch].append(decode_rate(client, prompts[:batch]))
                theirs[batch].append(reference.decode_rate(batch))
    return [
        figure("TTFT, 4096 cached + 256 new tokens, against recompute", warm, cold, "s", 5.0, lower=True),
        figure(
            "decode tokens/s, 4096 tokens of context, batch 1, against transformers",
            ours[1],
            theirs[1],
            "tokens/s",
            1.0,
        ),
        figure(
            "decode tokens/s, 4096 tokens of context, batch 8, against transformers",
            ours[8],
            theirs[8],
            "tokens/s",
            1.5,
        ),
    ]


@dataclass(frozen=True, slots=True)
class Timed:
    """When the first and the last token of a stream came."""

    ttft_s: float
    first: float
    last: float
    count: int


def stream(client: OpenAI, prompt: Sequence[int], count: int) -> Timed:
    """One streamed completion of exactly `count` tokens."""
    began = time.perf_counter()
    times = []
    for chunk in client.completions.create(
        model="bench",
        prompt=list(prompt),
        max_tokens=count,
        temperature=0,
        stream=True,
        extra_body={"ignore_eos": True, "return_token_ids": True},
    ):
        for choice in chunk.choices:
            times += [time.perf_counter()] * len(getattr(choice, "token_ids", None) or [])
    return Timed(times[0] - began, times[0], times[-1], len(times))


def decode_rate(client: OpenAI, prompts: Sequence[Sequence[int]]) -> float:
    """Tokens per second of one stream a prompt, all in the store, while all of them decode."""
    with ThreadPoolExecutor(len(prompts)) as pool:
        timed = list(pool.map(lambda prompt: stream(client, prompt, DECODE_TOKENS), prompts))
    began, ended = max(one.first for one in timed), min(one.last for one in timed)
    alone = sum((one.count - 1) * (ended - began) / (one.last - one.first) for one in timed)
    return alone / (ended - began)


class Reference:
    """transformers' cached `generate` in a process of its own, asked between our rounds."""

    def __init__(self, model: Path) -> None:
        command = [sys.executable, __file__.replace("engine.py", "reference.py"), str(model)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Reference:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)

    def decode_rate(self, batch: int) -> float:
        """Tokens per second of a batch, prefill not counted."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(f"{batch} {DECODE_CONTEXT} {DECODE_TOKENS}\n")
        stdin.flush()
        return float(stdout.readline())


# ---------------------------------------------------------------- storage


def storage_figures(directory: Path) -> list[Figure]:
    """Reading Full Blocks of the store, CRC checked, against a plain pread of the same files."""
    script = Path(__file__).with_name("storage_read.py")
    command = [sys.executable, str(script), str(directory), "--json"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    speed = json.loads(output.splitlines()[-1])
    ratio = round(speed["store"] / speed["preadv"], 2)
    item = "store read with CRC check, against preadv of the same files"
    return [Figure(item, round(speed["store"], 2), round(speed["preadv"], 2), "GB/s", ratio, 0.7)]


# ---------------------------------------------------------------- results


def figure(
    item: str,
    ours: Sequence[float],
    baseline: Sequence[float],
    unit: str,
    wanted: float,
    *,
    lower: bool = False,
) -> Figure:
    """Medians and the median of the rounds' ratios."""
    ratios = [b / a if lower else a / b for a, b in zip(ours, baseline, strict=True)]
    medians = statistics.median(ours), statistics.median(baseline)
    return Figure(
        item, round(medians[0], 4), round(medians[1], 4), unit, round(statistics.median(ratios), 2), wanted
    )


def tokens(count: int) -> list[int]:
    """Fresh random tokens: nothing of them is in the store."""
    return [random.randrange(300, BENCH_QWEN3["vocab_size"]) for _ in range(count)]


def machine() -> dict[str, object]:
    """Where and what was measured."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return {
        "commit": commit.stdout.strip(),
        "command": "make bench-engine",
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }


def show(figures: Sequence[Figure]) -> None:
    """A table on stdout."""
    table = Table(box=None)
    for name in ("item", "ours", "baseline", "unit", "ratio", "wanted"):
        table.add_column(name, justify="left" if name in ("item", "unit") else "right")
    for one in figures:
        table.add_row(
            one.item, f"{one.ours:g}", f"{one.baseline:g}", one.unit, f"{one.ratio:.2f}", f">= {one.wanted:g}"
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    sys.exit(main())
