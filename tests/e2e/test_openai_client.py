"""The official `openai` client against a real cluster: every answer is what transformers says."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from client import BLOCK, blocks_used, call, fresh, wait_for
from openai import AsyncOpenAI, OpenAI
from openai_side import EXACT, IDS, Streamed, cached, gather, logprobs_of
from transformers_side import TransformersSide

from dualpath_cli.embedded import Embedded

SYSTEM = "You are a helpful agent. The user asks, the assistant answers and calls tools."
MESSAGES = [
    {"role": "system", "content": SYSTEM},
    {"role": "user", "content": "What is the weather in Paris today? \u00e9\u4e16\U0001f642"},
]
CLOSE = 1e-3


def test_the_served_model_is_listed(openai: OpenAI) -> None:
    assert [model.id for model in openai.models.list()] == ["tiny"]
    assert openai.models.retrieve("tiny").owned_by == "dualpath"


def test_chat_equals_the_template_and_generate_of_transformers(
    openai: OpenAI, theirs: TransformersSide
) -> None:
    prompt = theirs.chat(MESSAGES)
    expected = theirs.greedy(prompt, 24)
    answer = openai.chat.completions.create(
        model="tiny", messages=MESSAGES, max_completion_tokens=24, temperature=0, extra_body=EXACT
    )
    choice = answer.choices[0]
    assert (answer.prompt_token_ids, choice.token_ids) == (prompt, expected)
    assert (choice.message.role, choice.message.content) == ("assistant", theirs.text(expected))
    assert (choice.finish_reason, answer.usage.completion_tokens) == ("length", 24)
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (len(prompt), len(prompt) + 24)


def test_a_chat_of_several_turns_finds_its_own_blocks(openai: OpenAI, theirs: TransformersSide) -> None:
    messages = [{"role": "user", "content": f"{SYSTEM} {number}"} for number in range(2)]
    known = 0
    for _turn in range(3):
        prompt = theirs.chat(messages)
        answer = openai.chat.completions.create(
            model="tiny", messages=messages, max_tokens=20, temperature=0, extra_body=EXACT
        )
        assert answer.choices[0].token_ids == theirs.greedy(prompt, 20)
        assert cached(answer) >= known
        known = len(prompt) // BLOCK * BLOCK
        messages += [
            {"role": "assistant", "content": "It is sunny, and the temperature is 21 degrees."},
            {"role": "user", "content": "Please list the directory, then read the file again. " * 3},
        ]
    assert known > 2 * BLOCK


def test_a_streamed_chat_is_the_whole_one_in_pieces(openai: OpenAI) -> None:
    body = {"model": "tiny", "messages": MESSAGES, "max_tokens": 30, "seed": 3, "extra_body": EXACT}
    whole = openai.chat.completions.create(**body)
    chunks = list(openai.chat.completions.create(**body, stream=True, stream_options={"include_usage": True}))
    streamed = gather(chunks)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert (streamed.text, streamed.tokens) == (whole.choices[0].message.content, whole.choices[0].token_ids)
    assert (streamed.finish, streamed.usage.completion_tokens) == ("length", 30)
    assert (chunks[-1].choices, {chunk.usage for chunk in chunks[:-1]}) == ([], {None})
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_stream_without_include_usage_has_none(openai: OpenAI) -> None:
    chunks = openai.completions.create(model="tiny", prompt="Hello", max_tokens=3, stream=True)
    assert gather(chunks).usage is None


def test_a_text_completion_equals_generate_of_transformers(openai: OpenAI, theirs: TransformersSide) -> None:
    expected = theirs.greedy(theirs.encode(SYSTEM), 20)
    body = {"model": "tiny", "prompt": SYSTEM, "max_tokens": 20, "temperature": 0, "extra_body": EXACT}
    whole = openai.completions.create(**body).choices[0]
    streamed = gather(openai.completions.create(**body, stream=True))
    assert whole.token_ids == streamed.tokens == expected
    assert whole.text == streamed.text == theirs.text(expected)
    assert whole.prompt_token_ids == theirs.encode(SYSTEM)


def test_streamed_token_ids_are_increments_that_come_step_by_step(openai: OpenAI) -> None:
    chunks = openai.completions.create(
        model="tiny", prompt="The quick", max_tokens=40, temperature=0, stream=True, extra_body=EXACT
    )
    sizes = [len(chunk.choices[0].token_ids) for chunk in chunks]
    assert sum(sizes) == 40
    assert len(sizes) > 10


def test_several_prompts_are_answered_in_order(openai: OpenAI, theirs: TransformersSide) -> None:
    prompts = [fresh(length, ("several", length)) for length in (5, 70, 130)]
    answer = openai.completions.create(
        model="tiny", prompt=prompts, max_tokens=6, temperature=0, extra_body=EXACT
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    for prompt, choice in zip(prompts, answer.choices, strict=True):
        assert choice.token_ids == theirs.greedy(prompt, 6)
    assert answer.usage.prompt_tokens == sum(map(len, prompts))


async def test_32_streams_at_once_are_each_as_if_alone(
    openai_async: AsyncOpenAI, theirs: TransformersSide
) -> None:
    system = fresh(BLOCK + 20, "32 streams")
    prompts = [[*system, *fresh(5 * number + 1, ("32", number))] for number in range(32)]

    async def one(prompt: list[int]) -> Streamed:
        found = Streamed()
        stream = await openai_async.completions.create(
            model="tiny",
            prompt=prompt,
            max_tokens=16,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
            extra_body=EXACT,
        )
        async for chunk in stream:
            found.add(chunk)
        return found

    answers = await asyncio.gather(*map(one, prompts))
    expected = [theirs.greedy(prompt, 16) for prompt in prompts]
    assert [answer.tokens for answer in answers] == expected
    assert [answer.text for answer in answers] == [theirs.text(tokens) for tokens in expected]
    assert [answer.usage.prompt_tokens for answer in answers] == [len(prompt) for prompt in prompts]


@pytest.mark.parametrize("over", [0, 1, 63], ids=["exactly whole blocks", "one more", "one less"])
def test_the_blocks_of_a_one_token_answer_are_hits(
    openai: OpenAI, theirs: TransformersSide, over: int
) -> None:
    prompt = fresh(3 * BLOCK + over, ("one token", over))
    body = {"model": "tiny", "prompt": prompt, "max_tokens": 1, "temperature": 0, "extra_body": EXACT}
    first, again = openai.completions.create(**body), openai.completions.create(**body)
    assert first.choices[0].token_ids == again.choices[0].token_ids == theirs.greedy(prompt, 1)
    assert (cached(first), cached(again)) == (0, 3 * BLOCK - (over == 0))


def test_streams_tell_cached_tokens_too(openai: OpenAI) -> None:
    body = {"model": "tiny", "prompt": fresh(130, "cached in a stream"), "max_tokens": 2, "stream": True}
    usages = [
        gather(openai.completions.create(**body, stream_options={"include_usage": True})).usage
        for _ in range(2)
    ]
    assert [usage.prompt_tokens_details.cached_tokens for usage in usages] == [0, 2 * BLOCK]


@pytest.mark.parametrize("temperature", [0, 0.7])
def test_completion_logprobs_are_those_of_transformers(
    openai: OpenAI, theirs: TransformersSide, temperature: float
) -> None:
    prompt = fresh(100, "logprobs")
    choice = openai.completions.create(
        model="tiny",
        prompt=prompt,
        max_tokens=12,
        temperature=temperature,
        seed=11,
        logprobs=5,
        extra_body=EXACT,
    ).choices[0]
    expected = theirs.logprobs(prompt, choice.token_ids)
    drawn = [float(row[token]) for row, token in zip(expected, choice.token_ids, strict=True)]
    assert choice.logprobs.token_logprobs == pytest.approx(drawn, abs=CLOSE)
    for tops, row in zip(choice.logprobs.top_logprobs, expected, strict=True):
        assert sorted(tops.values())[-5:] == pytest.approx(sorted(row.tolist())[-5:], abs=CLOSE)
    offsets = choice.logprobs.text_offset
    assert offsets == sorted(offsets)
    assert offsets[0] == 0


@pytest.mark.parametrize("stream", [False, True])
def test_chat_logprobs_are_those_of_transformers(
    openai: OpenAI, theirs: TransformersSide, stream: bool
) -> None:
    prompt = theirs.chat(MESSAGES)
    body = {"model": "tiny", "messages": MESSAGES, "max_tokens": 10, "seed": 5, "extra_body": EXACT}
    answer = openai.chat.completions.create(**body, logprobs=True, top_logprobs=4, stream=stream)
    chunks = list(answer) if stream else [answer]
    choices = [choice for chunk in chunks for choice in chunk.choices]
    entries = [entry for choice in choices if choice.logprobs for entry in choice.logprobs.content]
    tokens = [token for choice in choices for token in getattr(choice, "token_ids", None) or []]
    assert len(tokens) == 10
    expected = theirs.logprobs(prompt, tokens)
    drawn = [float(row[token]) for row, token in zip(expected, tokens, strict=True)]
    assert [entry.logprob for entry in entries] == pytest.approx(drawn, abs=CLOSE)
    for entry, row in zip(entries, expected, strict=True):
        best, ids = row.topk(4)
        assert [top.logprob for top in entry.top_logprobs] == pytest.approx(best.tolist(), abs=CLOSE)
        named = [top.token for top in entry.top_logprobs if not top.token.startswith(("bytes:", "<|"))]
        assert set(named) <= {theirs.text([token]) for token in ids.tolist()}
    assert b"".join(bytes(entry.bytes) for entry in entries).decode(errors="replace") == (
        gather(chunks).text if stream else answer.choices[0].message.content
    )


def test_logprobs_without_alternatives(openai: OpenAI) -> None:
    choice = openai.completions.create(model="tiny", prompt="Hi", max_tokens=4, logprobs=0, seed=1).choices[0]
    assert choice.logprobs.top_logprobs is None
    assert len(choice.logprobs.token_logprobs) == len(choice.logprobs.tokens)
    chat = openai.chat.completions.create(model="tiny", messages=MESSAGES, max_tokens=4, logprobs=True)
    assert all(entry.top_logprobs == [] for entry in chat.choices[0].logprobs.content)


def greedy_text(openai: OpenAI, prompt: list[int]) -> tuple[str, list[int]]:
    """40 greedy tokens as text, and where each begins."""
    choice = openai.completions.create(
        model="tiny", prompt=prompt, max_tokens=40, temperature=0, logprobs=0, extra_body=EXACT
    ).choices[0]
    return choice.text, choice.logprobs.text_offset


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_string_over_token_borders_ends_the_text_before_it(openai: OpenAI, stream: bool) -> None:
    prompt = fresh(50, "stop")
    text, offsets = greedy_text(openai, prompt)
    borders = [after for before, after in pairwise(offsets) if 8 < before < after < len(text) - 2]
    assert borders
    for border in borders[::4]:
        stop = text[border - 2 : border + 2]
        answer = openai.completions.create(
            model="tiny",
            prompt=prompt,
            max_tokens=40,
            temperature=0,
            stop=["never to be seen", stop],
            stream=stream,
            extra_body=EXACT,
        )
        choice = gather(answer) if stream else answer.choices[0]
        assert choice.text == text[: text.find(stop)]
        assert (choice.finish if stream else choice.finish_reason) == "stop"


def test_the_beginning_of_a_stop_string_at_the_end_is_shown(openai: OpenAI) -> None:
    prompt = fresh(50, "stop")
    text, _ = greedy_text(openai, prompt)
    stream = openai.completions.create(
        model="tiny",
        prompt=prompt,
        max_tokens=40,
        temperature=0,
        stop=text[-2:] + "#",
        stream=True,
        extra_body=EXACT,
    )
    streamed = gather(stream)
    assert (streamed.text, len(streamed.tokens), streamed.finish) == (text, 40, "length")


def test_a_stop_in_chat_frees_the_engines_at_once(cluster: Embedded, openai: OpenAI) -> None:
    body = {"model": "tiny", "messages": MESSAGES, "temperature": 0, "extra_body": EXACT}
    text = openai.chat.completions.create(**body, max_tokens=20).choices[0].message.content
    choice = openai.chat.completions.create(**body, max_tokens=3000, stop=text[4:7]).choices[0]
    assert (choice.message.content, choice.finish_reason) == (text[: text.find(text[4:7])], "stop")
    wait_for(lambda: blocks_used(cluster) == 0, "all blocks are free again", 10)


@pytest.mark.parametrize("eos", [2, 4], ids=["<|eos|>", "<|im_end|>"])
def test_each_end_of_sequence_token_ends_and_is_not_shown(openai: OpenAI, eos: int) -> None:
    body = {"model": "tiny", "prompt": "Hello", "max_tokens": 5, "temperature": 0, "logit_bias": {eos: 100}}
    ended = openai.completions.create(**body, extra_body=IDS)
    assert (ended.choices[0].text, ended.choices[0].token_ids) == ("", [])
    assert (ended.choices[0].finish_reason, ended.usage.completion_tokens) == ("stop", 0)
    ignored = openai.completions.create(**body, extra_body=EXACT).choices[0]
    assert (ignored.token_ids, ignored.finish_reason) == ([eos] * 5, "length")


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_ends_where_it_draws_an_end_of_sequence(openai: OpenAI, stream: bool) -> None:
    body = {"model": "tiny", "prompt": fresh(90, "eos"), "seed": 2, "max_tokens": 60, "logprobs": 1}
    bias = {"logit_bias": {2: 6, 4: 6}}
    tokens = openai.completions.create(**body, **bias, extra_body=EXACT).choices[0].token_ids
    end = next(place for place, token in enumerate(tokens) if token in (2, 4))
    assert 0 < end < 59
    answer = openai.completions.create(**body, **bias, stream=stream, extra_body=IDS)
    chunks = list(answer) if stream else [answer]
    choices = [choice for chunk in chunks for choice in chunk.choices]
    assert [token for choice in choices for token in choice.token_ids] == tokens[:end]
    assert sum(len(logprobs_of(choice)) for choice in choices) == end
    assert choices[-1].finish_reason == "stop"


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_a_client_that_goes_away_frees_everything(
    cluster: Embedded, openai_async: AsyncOpenAI, stream: bool
) -> None:
    name = f"gone-{stream}"
    body = {"model": "tiny", "prompt": fresh(200, name), "max_tokens": 3000, "extra_body": EXACT}
    body["extra_headers"] = {"X-Request-Id": name}
    if stream:
        chunks = await openai_async.completions.create(**body, stream=True)
        await anext(aiter(chunks))
        await chunks.close()
    else:
        task = asyncio.create_task(openai_async.completions.create(**body))
        await asyncio.to_thread(wait_for, lambda: blocks_used(cluster) > 0, "the request is being served")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await asyncio.to_thread(wait_for, lambda: blocks_used(cluster) == 0, "all blocks are free again", 10)
    record = await asyncio.to_thread(call, cluster.url(f"/debug/requests/{name}"))
    assert record["outcome"] == "aborted"
    assert record["generated_tokens"] < 3000
