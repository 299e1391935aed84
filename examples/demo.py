"""An agent's conversation through both read paths, on this machine: what `make demo` runs.

Makes a small random checkpoint, starts one prefill and one decode engine, replays a conversation three
times (PrefillOnly, DecodeOnly, Split), restarts everything to show that the cache survived, and compares
every token with transformers' `generate`.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from checkpoints import BOS, IM_END, IM_START, cached_checkpoint
from openai import OpenAI
from rich.console import Console
from rich.table import Table

from dualpath_cli.embedded import embedded

MODES = ("PrefillOnly", "DecodeOnly", "Split")
TURNS = 9
REPLY_TOKENS = 32
MODEL = {
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 32,
    "max_position_embeddings": 16384,
}
CLUSTER = """\
apiVersion: dualpath.io/v1alpha1
kind: DualPathCluster
metadata: {{name: demo}}
spec:
  model: {{uri: "file://{model}", servedName: tiny, dtype: float32}}
  prefill: {{resources: {{dramBuffer: 256Mi, kvCache: 256Mi}}}}
  decode: {{resources: {{dramBuffer: 256Mi, kvCache: 256Mi}}}}
  storage: {{files: {{path: "{store}", size: 1Gi}}}}
  pathPolicy: {{mode: PrefillOnly}}
"""

console = Console(width=110)


@dataclass(frozen=True, slots=True)
class Turn:
    """One answered turn."""

    prompt: list[int]
    reply: list[int]
    cached: int
    ttft_s: float
    tokens_per_s: float
    prefill_mb: float
    decode_mb: float


def main() -> int:
    """Run the demo; 0 if every token equals the reference."""
    console.print("[bold]1. A checkpoint[/] (Qwen3-shaped, random weights, made here; kept for the next run)")
    model = cached_checkpoint("qwen3", **MODEL)
    turns: dict[str, list[Turn]] = {}
    with tempfile.TemporaryDirectory(prefix="dualpath-demo-") as scratch:
        spec = Path(scratch) / "cluster.yaml"
        spec.write_text(CLUSTER.format(model=model, store=Path(scratch) / "kv"))
        console.print("[bold]2. dualpath up[/]: a gateway, one prefill and one decode engine")
        with serving(spec) as url:
            for mode in MODES:
                tune(url, mode)
                console.print(f"[bold]3. A conversation of {TURNS} turns, read path {mode}[/]")
                turns[mode] = list(converse(url, mode))
                show(turns[mode], mode)
        console.print("[bold]4. Everything stopped and started again[/]: is the cache still there?")
        with serving(spec) as url:
            last = turns["Split"][-1]
            tune(url, "Split")
            again = ask(url, last.prompt)
            show([again], "Split")
            turns["after the restart"] = [again]
    if again.cached < 0.9 * len(again.prompt):
        console.print("[red]the cache did not survive the restart[/]")
        return 1
    return compare(model, turns)


@contextmanager
def serving(spec: Path) -> Iterator[str]:
    """`dualpath up` as a user starts it; yields the URL of the API, stops it with SIGTERM."""
    began = time.perf_counter()
    with embedded(spec) as cluster:
        console.print(f"   ready {cluster.openai}   ({time.perf_counter() - began:.1f} s)")
        yield cluster.openai


def tune(url: str, mode: str) -> None:
    """Choose the read path for the requests to come."""
    body = json.dumps({"pathPolicy": mode}).encode()
    request = urllib.request.Request(control(url, "tuning"), data=body, method="PUT")
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=10):
        pass


def control(url: str, path: str) -> str:
    """URL of a control endpoint."""
    return f"{url.removesuffix('/v1')}/control/v1/{path}"


def converse(url: str, mode: str) -> Iterator[Turn]:
    """Each turn re-sends the whole context and appends a tool's output, as an agent does."""
    context = [BOS, *message(f"system: you are a coding agent, session {mode}. " + TOOLS)]
    for number in range(TURNS):
        context += message(f"tool result {number}: " + OUTPUT * (2 + number % 3))
        turn = ask(url, context)
        yield turn
        context += turn.reply


def ask(url: str, prompt: Sequence[int]) -> Turn:
    """Stream one completion of token ids and time it."""
    client = OpenAI(base_url=url, api_key="none")
    began = time.perf_counter()
    first = 0.0
    reply: list[int] = []
    cached, name = 0, ""
    stream = client.completions.create(
        model="tiny",
        prompt=list(prompt),
        max_tokens=REPLY_TOKENS,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"return_token_ids": True, "ignore_eos": True},
    )
    for chunk in stream:
        name = chunk.id
        for choice in chunk.choices:
            first = first or time.perf_counter()
            reply += getattr(choice, "token_ids", None) or []
        if chunk.usage and chunk.usage.prompt_tokens_details:
            cached = chunk.usage.prompt_tokens_details.cached_tokens or 0
    ended = time.perf_counter()
    prefill, decode = bytes_read(url, name)
    return Turn(
        prompt=list(prompt),
        reply=reply,
        cached=cached,
        ttft_s=first - began,
        tokens_per_s=(len(reply) - 1) / (ended - first),
        prefill_mb=prefill / 1e6,
        decode_mb=decode / 1e6,
    )


def bytes_read(url: str, name: str) -> tuple[int, int]:
    """What each side read from storage for one request."""
    with urllib.request.urlopen(f"{url.removesuffix('/v1')}/debug/requests/{name}", timeout=10) as answer:
        attempts = json.load(answer)["attempts"]
    return tuple(
        sum(attempt.get(f"{side}_bytes", 0) for attempt in attempts) for side in ("prefill", "decode")
    )


def show(turns: Sequence[Turn], mode: str) -> None:
    """One row a turn."""
    table = Table(box=None, pad_edge=False)
    names = ("turn", "prompt", "cached", "path", "MB by prefill", "MB by decode", "TTFT ms", "tokens/s")
    for name in names:
        table.add_column(name, justify="right")
    for number, turn in enumerate(turns, 1):
        table.add_row(
            str(number),
            str(len(turn.prompt)),
            str(turn.cached),
            mode,
            f"{turn.prefill_mb:.2f}",
            f"{turn.decode_mb:.2f}",
            f"{turn.ttft_s * 1000:.0f}",
            f"{turn.tokens_per_s:.0f}",
        )
    console.print(table)


def compare(model: Path, turns: dict[str, list[Turn]]) -> int:
    """Every reply against transformers' greedy `generate` on the same prompt."""
    console.print("[bold]5. The reference[/]: transformers' generate on the same prompts")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch
    from transformers import AutoModelForCausalLM

    reference = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    wrong = total = 0
    for mode, conversation in turns.items():
        for number, turn in enumerate(conversation, 1):
            prompt = torch.tensor([turn.prompt])
            expected = reference.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                do_sample=False,
                max_new_tokens=REPLY_TOKENS,
                eos_token_id=None,
                pad_token_id=0,
            )[0, prompt.shape[1] :].tolist()
            total += len(expected)
            if expected != turn.reply:
                wrong += 1
                console.print(f"[red]{mode}, turn {number} differs[/]: {turn.reply} instead of {expected}")
    if wrong:
        return 1
    console.print(f"   all {total} tokens equal, in all read paths and after the restart")
    console.print("Next, a model of your own: [bold]dualpath up --model DIR_OR_HF_ID[/]")
    return 0


def message(text: str) -> list[int]:
    """A chat message as token ids of the byte-level tokenizer: one id a byte behind the special ones."""
    return [IM_START, *(5 + byte for byte in text.encode()), IM_END]


TOOLS = (
    "tools: read(path), write(path, text), run(command), search(pattern). Answer with one call a turn. " * 2
)
OUTPUT = "src/app.py:12: def load(path): return json.loads(open(path).read()); 3 tests passed, 1 failed. "


if __name__ == "__main__":
    sys.exit(main())
