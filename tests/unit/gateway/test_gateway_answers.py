"""Answers as OpenAI's client library understands them: chat, streams, n, stop, log-probabilities."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import openai
import pytest
from scripted_engine import token_at

from dualpath_api import wire

PROMPT = list(range(100, 230))
CHAT = [{"role": "user", "content": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]}]


@pytest.fixture
async def client(gateway) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def text_of(gateway, ids: list[int]) -> str:
    return gateway.tokenizer.decode(ids)


async def test_chat_with_the_official_client(gateway, client):
    prefill, _ = await gateway.pair()
    answer = await client.chat.completions.create(
        model="tiny", messages=CHAT, max_completion_tokens=6, n=2, extra_body={"return_token_ids": True}
    )
    assign = await prefill.saw(wire.Assign)
    assert gateway.tokenizer.decode(list(assign.tokens), skip_special_tokens=False) == (
        "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    )
    start = len(assign.tokens)
    for choice in answer.choices:
        ids = [token_at(choice.index, start + i) for i in range(6)]
        assert choice.message.content == text_of(gateway, ids)
        assert choice.model_extra is not None
        assert choice.model_extra["token_ids"] == ids
    assert answer.usage is not None
    assert (answer.usage.completion_tokens, answer.usage.prompt_tokens) == (12, start)
    assert answer.model_extra is not None
    assert answer.model_extra["prompt_token_ids"] == list(assign.tokens)


async def test_chat_without_max_tokens_goes_on_to_the_end_of_the_context(gateway, client):
    prefill, _ = await gateway.pair(context=100)
    answer = await client.chat.completions.create(model="tiny", messages=CHAT)
    start = len((await prefill.saw(wire.Assign)).tokens)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 100 - start
    assert answer.choices[0].finish_reason == "length"


async def test_streamed_chat_with_usage(gateway, client):
    await gateway.pair()
    stream = await client.chat.completions.create(
        model="tiny",
        messages=CHAT,
        max_tokens=30,
        n=2,
        stream=True,
        stream_options={"include_usage": True},
    )
    texts, finishes, usage = ["", ""], [], None
    async for chunk in stream:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            if choice.finish_reason:
                finishes.append(choice.finish_reason)
        usage = chunk.usage or usage
    whole = await client.chat.completions.create(model="tiny", messages=CHAT, max_tokens=30, n=2)
    assert texts == [choice.message.content for choice in whole.choices]
    assert finishes == ["length", "length"]
    assert usage is not None
    assert usage.completion_tokens == 60


async def test_32_streams_at_once(gateway, client):
    await gateway.pair()

    async def one(index: int) -> int:
        stream = await client.completions.create(
            model="tiny", prompt=[100 + index] * (index + 1), max_tokens=20, stream=True
        )
        return sum([len(chunk.choices) async for chunk in stream])

    assert all(await asyncio.gather(*(one(index) for index in range(32))))
    await gateway.until(gateway.idle)


async def test_several_prompts_come_back_in_order(gateway, client):
    await gateway.pair()
    prompts = [[100] * 5, [101] * 70, [102]]
    answer = await client.completions.create(
        model="tiny", prompt=prompts, max_tokens=2, n=2, extra_body={"return_token_ids": True}
    )
    assert [choice.index for choice in answer.choices] == list(range(6))
    for choice in answer.choices:
        prompt = prompts[choice.index // 2]
        assert choice.model_extra is not None
        assert choice.model_extra["prompt_token_ids"] == prompt
        assert choice.model_extra["token_ids"] == [
            token_at(choice.index % 2, len(prompt) + i) for i in range(2)
        ]
    events = await gateway.events("/v1/completions", {"model": "tiny", "prompt": prompts, "max_tokens": 2})
    assert {event["choices"][0]["index"] for event in events[:-1]} == {0, 1, 2}


async def test_completions_default_to_16_tokens(gateway, client):
    await gateway.pair()
    answer = await client.completions.create(model="tiny", prompt=PROMPT)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 16


def spell(gateway, text: str, start: int):
    """A script that makes the engines say `text`, one byte a token, again and again."""
    alphabet = [gateway.tokenizer.encode(char, add_special_tokens=False).ids[0] for char in text]
    return lambda _choice, position: alphabet[(position - start) % len(alphabet)]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_stop_string_over_token_borders_is_not_shown(gateway, stream):
    prefill, decode = await gateway.pair()
    prefill.script = decode.script = spell(gateway, "abcdefgh", 130)
    body = {
        "model": "tiny",
        "prompt": PROMPT,
        "max_tokens": 500,
        "stop": ["def", "zzz"],
        "return_token_ids": True,
    }
    if stream:
        events = await gateway.events("/v1/completions", body)
        choices = [event["choices"][0] for event in events[:-1]]
        text = "".join(choice["text"] for choice in choices)
        ids = [token for choice in choices for token in choice["token_ids"]]
        finish = choices[-1]["finish_reason"]
    else:
        _, answer = await gateway.post("/v1/completions", body)
        choice = answer["choices"][0]
        text, ids, finish = choice["text"], choice["token_ids"], choice["finish_reason"]
        assert answer["usage"]["completion_tokens"] == 6
    assert (text, len(ids), finish) == ("abc", 3, "stop")
    await decode.saw(wire.Abort, lambda message: message.choice == 0)
    await gateway.until(gateway.idle)


async def test_the_end_of_sequence_token_is_neither_text_nor_id(gateway):
    prefill, decode = await gateway.pair()
    for engine in (prefill, decode):
        engine.finish_at, engine.finish_token = 4, 2
    body = {"model": "tiny", "prompt": PROMPT, "max_tokens": 50, "return_token_ids": True, "logprobs": 0}
    _, answer = await gateway.post("/v1/completions", body)
    choice = answer["choices"][0]
    assert choice["finish_reason"] == "stop"
    assert choice["token_ids"] == [token_at(0, 130 + i) for i in range(3)]
    assert len(choice["logprobs"]["tokens"]) == 3
    assert answer["usage"]["completion_tokens"] == 3
    assert (await prefill.saw(wire.Assign)).sampling.stop_token_ids == (2, 4)


async def test_ignore_eos_and_sampling_parameters_reach_the_engine(gateway):
    prefill, _ = await gateway.pair()
    body = {
        "model": "tiny",
        "prompt": PROMPT,
        "max_tokens": 2,
        "ignore_eos": True,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 7,
        "min_p": 0.1,
        "presence_penalty": 1,
        "frequency_penalty": -1,
        "repetition_penalty": 1.2,
        "logit_bias": {"5": -100},
        "seed": -1,
    }
    assert (await gateway.post("/v1/completions", body))[0] == 200
    assert (await prefill.saw(wire.Assign)).sampling == wire.Sampling(
        max_tokens=2,
        seed=2**63 - 1,
        temperature=0.5,
        top_p=0.9,
        top_k=7,
        min_p=0.1,
        presence_penalty=1.0,
        frequency_penalty=-1.0,
        repetition_penalty=1.2,
        logit_bias={5: -100.0},
    )


@pytest.mark.parametrize(
    ("generation", "expected"),
    [
        ({}, (1.0, 1.0, 0, 1.0, ())),
        (
            {"temperature": 0.6, "top_p": 0.95, "top_k": 20, "repetition_penalty": 1.1, "eos_token_id": 4},
            (0.6, 0.95, 20, 1.1, (4,)),
        ),
        ({"do_sample": False, "temperature": 0.6}, (0.0, 1.0, 0, 1.0, ())),
    ],
    ids=["nothing said", "all said", "greedy"],
)
async def test_the_generation_config_gives_defaults(make_gateway, checkpoint, tmp_path, generation, expected):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((checkpoint / name).read_bytes())
    (tmp_path / "generation_config.json").write_text(json.dumps(generation))
    gateway = await make_gateway(tmp_path)
    prefill, _ = await gateway.pair()
    await gateway.post("/v1/completions", {"model": "tiny", "prompt": PROMPT, "max_tokens": 1})
    sampling = (await prefill.saw(wire.Assign)).sampling
    found = (sampling.temperature, sampling.top_p, sampling.top_k, sampling.repetition_penalty)
    assert (*found, sampling.stop_token_ids) == expected


async def test_logprobs_of_chat(gateway, client):
    await gateway.pair()
    answer = await client.chat.completions.create(
        model="tiny", messages=CHAT, max_tokens=5, logprobs=True, top_logprobs=2
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    joined = b"".join(bytes(entry.bytes or []) for entry in logprobs.content)
    assert joined.decode(errors="replace") == answer.choices[0].message.content
    assert [len(entry.top_logprobs) for entry in logprobs.content] == [2] * 5
    assert logprobs.content[0].logprob == -0.5


async def test_logprobs_of_completions(gateway, client):
    prefill, decode = await gateway.pair()
    prefill.script = decode.script = spell(gateway, "abc", 130)
    answer = await client.completions.create(model="tiny", prompt=PROMPT, max_tokens=4, logprobs=2)
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert (logprobs.tokens, logprobs.text_offset) == (["a", "b", "c", "a"], [0, 1, 2, 3])
    assert logprobs.token_logprobs == [-0.5] * 4
    assert logprobs.top_logprobs is not None
    assert all(top[token] == -0.5 for top, token in zip(logprobs.top_logprobs, logprobs.tokens, strict=True))


async def test_streamed_logprobs_are_those_of_the_whole_answer(gateway):
    await gateway.pair()
    body = {"model": "tiny", "prompt": PROMPT, "max_tokens": 30, "logprobs": 1, "stop": ["qqqq"]}
    _, whole = await gateway.post("/v1/completions", body)
    events = await gateway.events("/v1/completions", body)
    merged: dict[str, list] = {"tokens": [], "text_offset": [], "token_logprobs": [], "top_logprobs": []}
    for event in events[:-1]:
        for name, values in merged.items():
            values += event["choices"][0]["logprobs"][name]
    assert merged == whole["choices"][0]["logprobs"]
    assert "".join(event["choices"][0]["text"] for event in events[:-1]) == whole["choices"][0]["text"]
