"""How long the gateway's event loop is held up while it takes in one prompt of about 1 MB.

Run: PYTHONPATH=examples python benchmarks/gateway_pace.py [CHECKPOINT]. Prints one JSON line: seconds of each
step, and the largest gap in milliseconds between two turns of the loop meanwhile; "idle" is for comparison.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Awaitable
from pathlib import Path

import uvloop
from checkpoints import write_tokenizer

from dualpath_gateway.__main__ import SWITCH_INTERVAL_S
from dualpath_gateway.api.generate import hash_prompt
from dualpath_gateway.api.prompts import check_ids
from dualpath_gateway.text.model import TextModel, load_text_model
from dualpath_gateway.workpool import WorkPool

TEXT = "The agent reads a file, changes a line, and runs all of the tests again.\n" * 14_000


class Gaps:
    """Watches the loop: the largest time between two of its turns."""

    async def __aenter__(self) -> Gaps:
        self.largest = 0.0
        self._task = asyncio.create_task(self._watch())
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()

    async def _watch(self) -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0)
            now = time.perf_counter()
            self.largest, last = max(self.largest, now - last), now


async def measured(name: str, work: Awaitable[object]) -> tuple[dict[str, float], object]:
    """Seconds and largest gap of one step, and its result."""
    async with Gaps() as gaps:
        since = time.perf_counter()
        result = await work
        seconds = time.perf_counter() - since
    return {f"{name}_s": round(seconds, 4), f"{name}_gap_ms": round(gaps.largest * 1e3, 2)}, result


async def main(model: TextModel) -> None:
    """Idle, encode, check, hash, decode."""
    pool, row = WorkPool(2), {"chars": float(len(TEXT))}
    step, _ = await measured("idle", asyncio.sleep(0.3))
    row |= step
    encode = pool.run(len(TEXT), lambda: model.encode(TEXT, special=True, most=10**9))
    step, ids = await measured("encode", encode)
    row |= step
    assert isinstance(ids, list)
    row["tokens"] = len(ids)
    step, _ = await measured("hash", hash_prompt(b"", ids, 64))
    row |= step
    step, _ = await measured("check", check_ids(ids, model))
    row |= step
    stream, since = model.vocabulary.stream(), time.perf_counter()
    for token in ids[:100_000]:
        stream.push(token)
    row["decode_us_a_token"] = round((time.perf_counter() - since) * 10, 2)
    pool.close()
    sys.stdout.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(scratch)
        if len(sys.argv) == 1:
            write_tokenizer(directory, add_bos=True)
        uvloop.run(main(load_text_model(directory, "bench")))
