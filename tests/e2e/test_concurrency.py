"""Many conversations at once, and clients that go away."""

from __future__ import annotations

import asyncio
import random
from concurrent.futures import ThreadPoolExecutor

import aiohttp
import pytest
from checkpoints import cached_checkpoint
from client import BLOCK, blocks_used, call, fresh, tune, wait_for
from conversations import check

from dualpath_cli.embedded import Embedded


def test_sixteen_conversations_at_once(cluster: Embedded, reference: object) -> None:
    tune(cluster, pathPolicy="Auto")
    model = cached_checkpoint("qwen3")
    shared = fresh(3 * BLOCK, "shared system prompt")

    def conversation(number: int) -> None:
        context = [*shared, *fresh(30, number)]
        for turn in range(4):
            context += fresh(random.Random(number * 10 + turn).randint(1, 150), (number, turn))
            context += check(cluster, reference, model, context, 12).tokens

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(conversation, range(16)))
    wait_for(lambda: blocks_used(cluster) == 0, "all blocks are free again")


@pytest.mark.parametrize("stream", [True, False], ids=["streaming", "whole answers"])
async def test_two_hundred_cancelled_requests_leave_nothing_behind(cluster: Embedded, stream: bool) -> None:
    tune(cluster, pathPolicy="Split")
    prefix = fresh(6 * BLOCK, "cancelled")
    draw = random.Random(stream)
    async with aiohttp.ClientSession() as session:

        async def cancel_one(number: int) -> None:
            body = {
                "model": "tiny",
                "prompt": [*prefix, *fresh(draw.randint(1, 200), number)],
                "max_tokens": 400,
                "ignore_eos": True,
                "stream": stream,
            }
            patience = aiohttp.ClientTimeout(total=draw.choice([0.005, 0.02, 0.05, 0.1, 0.3, 0.6]))
            try:
                async with session.post(
                    f"{cluster.openai}/completions", json=body, timeout=patience
                ) as answer:
                    async for _ in answer.content:
                        pass
            except TimeoutError:
                pass

        for start in range(0, 100, 20):
            await asyncio.gather(*(cancel_one(start + number) for number in range(20)))
    await asyncio.to_thread(wait_for, lambda: blocks_used(cluster) == 0, "all blocks are free again")
    report = await asyncio.to_thread(call, cluster.url("/control/v1/report"))
    assert all(engine["inFlight"] == 0 for engine in report["engines"])
