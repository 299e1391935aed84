"""Long prompts do not stop the others: what is long goes to a thread, or is done in slices."""

from __future__ import annotations

import asyncio

from dualpath_api.keys import block_keys
from dualpath_gateway.api.generate import HASH_SLICE_BLOCKS, hash_prompt
from dualpath_gateway.keys_of_app import POOL


async def test_a_long_text_is_encoded_in_a_thread_and_a_short_one_at_once(gateway):
    await gateway.pair(context=1_000_000, slots=20_000, pages=20_000)
    pool = gateway.app[POOL]
    await gateway.post("/v1/completions", {"model": "tiny", "prompt": "short", "max_tokens": 1})
    assert pool.sent == 0
    status, answer = await gateway.post(
        "/v1/completions", {"model": "tiny", "prompt": "a long text " * 80_000, "max_tokens": 1}
    )
    assert status == 200, answer
    assert pool.sent == 1


async def test_a_long_conversation_is_rendered_and_encoded_in_threads(gateway):
    await gateway.pair(context=1_000_000, slots=20_000, pages=20_000)
    messages = [{"role": "user", "content": "a long text " * 10_000}]
    status, _ = await gateway.post(
        "/v1/chat/completions", {"model": "tiny", "messages": messages, "max_tokens": 1}
    )
    assert status == 200
    assert gateway.app[POOL].sent == 2


async def test_hashing_gives_way_after_each_slice():
    block, slices = 64, 10
    tokens = list(range(slices * HASH_SLICE_BLOCKS * block + 7))
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    keys = await hash_prompt(b"root", tokens, block)
    task.cancel()
    assert turns >= slices
    assert list(keys) == block_keys(b"root", tokens, block)


async def test_an_absurdly_long_text_is_refused_without_encoding_it(gateway):
    await gateway.pair()
    status, answer = await gateway.post("/v1/completions", {"model": "tiny", "prompt": "word " * 100_000})
    assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")
    assert "at least" in answer["error"]["message"]
    assert gateway.app[POOL].sent == 0
