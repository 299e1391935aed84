"""A request's way through the gateway, with scripted engines on real sockets."""

from __future__ import annotations

from scripted_engine import token_at

from dualpath_api import wire

PROMPT = list(range(100, 230))  # 130 tokens: two blocks and a tail


async def test_a_completion_comes_back_whole(gateway):
    await gateway.pair()
    body = {"model": "tiny", "prompt": PROMPT, "max_tokens": 5, "return_token_ids": True}
    status, answer = await gateway.post("/v1/completions", body)
    assert status == 200, answer
    choice = answer["choices"][0]
    assert choice["token_ids"] == [token_at(0, 130 + i) for i in range(5)]
    assert (choice["finish_reason"], choice["prompt_token_ids"]) == ("length", PROMPT)
    assert answer["usage"] == {
        "prompt_tokens": 130,
        "completion_tokens": 5,
        "total_tokens": 135,
        "prompt_tokens_details": {"cached_tokens": 0},
    }
    await gateway.until(gateway.idle)


async def test_the_next_turn_hits_the_blocks_of_the_one_before(gateway):
    await gateway.pair()
    body = {"model": "tiny", "prompt": PROMPT, "max_tokens": 100, "return_token_ids": True}
    _, first = await gateway.post("/v1/completions", body)
    longer = PROMPT + first["choices"][0]["token_ids"] + [101, 102]
    _, second = await gateway.post("/v1/completions", {**body, "prompt": longer})
    assert second["usage"]["prompt_tokens_details"]["cached_tokens"] == 192


async def test_a_stream_shows_every_token_once_and_its_usage(gateway):
    await gateway.pair()
    body = {
        "model": "tiny",
        "prompt": PROMPT,
        "max_tokens": 40,
        "n": 2,
        "return_token_ids": True,
        "stream_options": {"include_usage": True},
    }
    events = await gateway.events("/v1/completions", body)
    assert events[-1] is None
    assert events[-2]["usage"]["completion_tokens"] == 80
    assert events[-2]["choices"] == []
    for index in range(2):
        mine = [e["choices"][0] for e in events[:-2] if e["choices"][0]["index"] == index]
        ids = [token for choice in mine for token in choice["token_ids"]]
        assert ids == [token_at(index, 130 + i) for i in range(40)]
        assert [c["finish_reason"] for c in mine][-1] == "length"
    await gateway.until(gateway.idle)


async def test_the_decode_engine_starts_with_the_tokens_of_the_prefill_engine(gateway):
    prefill, decode = await gateway.pair()
    body = {"model": "tiny", "prompt": PROMPT, "max_tokens": 3, "n": 2, "seed": 7}
    await gateway.post("/v1/completions", body)
    assign = await prefill.saw(wire.Assign)
    start = await decode.saw(wire.Start)
    assert assign.sampling.seed == 7
    assert start.first == ((0, token_at(0, 130)), (1, token_at(1, 130)))


async def test_one_token_is_enough_for_the_client_but_the_decode_engine_still_persists(gateway):
    _, decode = await gateway.pair()
    status, answer = await gateway.post(
        "/v1/completions", {"model": "tiny", "prompt": PROMPT, "max_tokens": 1}
    )
    assert (status, answer["usage"]["completion_tokens"]) == (200, 1)
    start = await decode.saw(wire.Start)
    assert start.first == ()
    await gateway.until(gateway.idle)


async def test_a_request_waits_for_blocks_in_the_write_queue(gateway):
    _, decode = await gateway.pair()
    decode.store_late = True
    body = {"model": "tiny", "prompt": PROMPT, "max_tokens": 2}
    await gateway.post("/v1/completions", body)
    await gateway.until(gateway.idle)
    import asyncio

    second = asyncio.create_task(gateway.post("/v1/completions", body))
    await gateway.until(lambda: len(gateway.scheduler.world.queue) == 1)
    await decode.flush()
    _, answer = await second
    assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] == 128


async def test_chat_uses_the_template_and_nothing_else(gateway):
    prefill, _ = await gateway.pair()
    body = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
    status, answer = await gateway.post("/v1/chat/completions", body)
    assert status == 200, answer
    assert answer["object"] == "chat.completion"
    assert answer["choices"][0]["message"]["role"] == "assistant"
    assign = await prefill.saw(wire.Assign)
    assert assign.tokens[0] == 3  # <|im_start|>, no BOS before it


async def test_a_text_prompt_gets_what_the_tokenizer_adds(gateway):
    prefill, _ = await gateway.pair()
    await gateway.post("/v1/completions", {"model": "tiny", "prompt": "Hi", "max_tokens": 1})
    assert (await prefill.saw(wire.Assign)).tokens[0] == 1
