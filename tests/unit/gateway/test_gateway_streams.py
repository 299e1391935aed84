"""Streams: kept alive while nothing comes, patient with slow readers, whole after an error."""

from __future__ import annotations

import asyncio

BODY = {"model": "tiny", "prompt": list(range(100, 230)), "max_tokens": 60, "stream": True}


async def test_a_stream_without_tokens_is_kept_alive(make_gateway):
    gateway = await make_gateway(keepalive_s=0.02)
    prefill, _ = await gateway.pair()
    prefill.hold_tokens.clear()
    async with gateway.client.post("/v1/completions", json=BODY) as response:
        assert response.headers["Content-Type"].startswith("text/event-stream")
        for _ in range(3):
            assert await response.content.readline() == b": keep-alive\n"
            await response.content.readline()
        prefill.hold_tokens.set()
        rest = await response.read()
    assert rest.endswith(b"data: [DONE]\n\n")
    assert rest.count(b'"finish_reason":"length"') == 1


async def test_chat_streams_begin_with_the_role_and_end_with_the_reason(gateway):
    await gateway.pair()
    body = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3, "n": 2}
    events = await gateway.events("/v1/chat/completions", body)
    assert events[-1] is None
    for index in range(2):
        deltas = [e["choices"][0] for e in events[:-1] if e["choices"][0]["index"] == index]
        assert deltas[0]["delta"] == {"role": "assistant", "content": ""}
        assert (deltas[-1]["delta"], deltas[-1]["finish_reason"]) == ({}, "length")
        assert {event["object"] for event in events[:-1]} == {"chat.completion.chunk"}
        assert all(choice["finish_reason"] is None for choice in deltas[:-1])


async def test_a_reader_that_stops_reading_does_not_stop_the_others(gateway):
    await gateway.pair(context=60_000, slots=1000, pages=1000)
    slow_body = {**BODY, "max_tokens": 50_000, "logprobs": 5, "n": 1}
    async with gateway.client.post("/v1/completions", json=slow_body) as slow:
        await slow.content.readline()
        events = await asyncio.wait_for(gateway.events("/v1/completions", {**BODY, "max_tokens": 5}), 20)
        assert events[-1] is None
        slow.close()
    await gateway.until(gateway.idle)
