"""Seeds, choices, penalties and filters through the official client, against transformers' processors."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from client import BLOCK, fresh, tune
from openai import AsyncOpenAI, OpenAI
from openai_side import EXACT, cached, gather
from transformers_side import TransformersSide

from dualpath_cli.embedded import Embedded

MODES = ("PrefillOnly", "DecodeOnly", "Split", "Auto")


def drawn(openai: OpenAI, prompt: list[int], count: int, **fields: Any) -> list[list[int]]:
    """Token ids of all choices of a completion; fields that OpenAI does not know are passed too."""
    extra = {name: fields.pop(name) for name in ("top_k", "min_p", "repetition_penalty") if name in fields}
    answer = openai.completions.create(
        model="tiny", prompt=prompt, max_tokens=count, extra_body={**EXACT, **extra}, **fields
    )
    return [choice.token_ids for choice in answer.choices]


def test_choices_differ_and_repeat_under_their_seed(openai: OpenAI) -> None:
    prompt = fresh(100, "choices")
    first = drawn(openai, prompt, 20, n=4, seed=7)
    assert len({tuple(tokens) for tokens in first}) == 4
    assert drawn(openai, prompt, 20, n=4, seed=7) == first
    assert drawn(openai, prompt, 20, n=2, seed=7) == first[:2]
    assert drawn(openai, prompt, 20, n=4, seed=8) != first


def test_without_a_seed_answers_differ(openai: OpenAI) -> None:
    prompt = fresh(40, "no seed")
    assert drawn(openai, prompt, 20) != drawn(openai, prompt, 20)


def test_greedy_choices_are_all_the_reference(openai: OpenAI, theirs: TransformersSide) -> None:
    prompt = fresh(BLOCK + 1, "greedy choices")
    assert drawn(openai, prompt, 70, n=3, temperature=0) == [theirs.greedy(prompt, 70)] * 3


def test_streamed_choices_are_the_whole_ones_in_pieces(openai: OpenAI) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "Hello"}], "n": 3, "seed": 1}
    body |= {"max_tokens": 12, "extra_body": EXACT}
    whole = openai.chat.completions.create(**body)
    chunks = list(openai.chat.completions.create(**body, stream=True, stream_options={"include_usage": True}))
    for choice in whole.choices:
        streamed = gather(chunks, choice.index)
        assert (streamed.tokens, streamed.text) == (choice.token_ids, choice.message.content)
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens == 36


def test_the_blocks_of_every_choice_are_hits(openai: OpenAI) -> None:
    prompt = fresh(BLOCK + 30, "choices as hits")
    for tokens in drawn(openai, prompt, 2 * BLOCK, n=3, seed=3):
        answer = openai.completions.create(model="tiny", prompt=[*prompt, *tokens], max_tokens=1)
        assert cached(answer) == 3 * BLOCK


async def test_a_seed_gives_the_same_tokens_alone_and_in_a_crowd(openai_async: AsyncOpenAI) -> None:
    prompt = fresh(2 * BLOCK + 9, "seeded")

    async def one(prompt: list[int], seed: int, **fields: Any) -> list[int]:
        answer = await openai_async.completions.create(
            model="tiny", prompt=prompt, max_tokens=40, seed=seed, extra_body=EXACT, **fields
        )
        return list(answer.choices[0].token_ids)

    alone = await one(prompt, 42)
    crowd = [one(fresh(17 * number, ("crowd", number)), number, temperature=1.5) for number in range(1, 13)]
    results = await asyncio.gather(one(prompt, 42), *crowd, one(prompt, 42))
    assert results[0] == results[-1] == alone
    assert all(other != alone for other in results[1:-1])


def test_a_seed_gives_the_same_tokens_through_every_path(cluster: Embedded, openai: OpenAI) -> None:
    prompt = fresh(5 * BLOCK + 3, "seeded paths")
    expected = drawn(openai, prompt, 24, n=2, seed=9, top_p=0.95)
    for mode in MODES:
        tune(cluster, pathPolicy=mode)
        assert drawn(openai, prompt, 24, n=2, seed=9, top_p=0.95) == expected


def test_the_sign_of_a_seed_matters(openai: OpenAI) -> None:
    prompt = fresh(40, "signs")
    assert drawn(openai, prompt, 20, seed=-5) == drawn(openai, prompt, 20, seed=-5)
    assert drawn(openai, prompt, 20, seed=-5) != drawn(openai, prompt, 20, seed=5)


@pytest.mark.parametrize("length", [20, BLOCK + 5])
def test_a_repetition_penalty_is_that_of_transformers(
    openai: OpenAI, theirs: TransformersSide, length: int
) -> None:
    prompt = fresh(length, "repetition")
    expected = theirs.greedy(prompt, 40, repetition_penalty=1.4)
    assert drawn(openai, prompt, 40, temperature=0, repetition_penalty=1.4) == [expected]
    assert expected != theirs.greedy(prompt, 40)


def test_a_logit_bias_is_the_sequence_bias_of_transformers(openai: OpenAI, theirs: TransformersSide) -> None:
    prompt = fresh(30, "bias")
    plain = theirs.greedy(prompt, 30)
    bias = {plain[0]: -100.0, plain[5]: -3.5, 77: 2.5}
    expected = theirs.greedy(prompt, 30, sequence_bias={(token,): amount for token, amount in bias.items()})
    given = {str(token): amount for token, amount in bias.items()}
    assert drawn(openai, prompt, 30, temperature=0, logit_bias=given) == [expected]
    assert expected != plain


@pytest.mark.parametrize(("presence", "frequency"), [(1.5, 0.0), (0.0, 1.2), (-1.0, 0.6)])
def test_presence_and_frequency_penalties_follow_their_formula(
    openai: OpenAI, theirs: TransformersSide, presence: float, frequency: float
) -> None:
    prompt = fresh(30, "presence")
    answer = drawn(openai, prompt, 30, temperature=0, presence_penalty=presence, frequency_penalty=frequency)[
        0
    ]
    logits = theirs.logits([*prompt, *answer])[len(prompt) - 1 : -1]
    for place, row in enumerate(logits):
        for token in set(answer[:place]):
            row[token] -= presence + frequency * answer[:place].count(token)
        assert int(row.argmax()) == answer[place]
    assert answer != theirs.greedy(prompt, 30)


@pytest.mark.parametrize(
    "fields",
    [{"top_k": 3}, {"top_p": 0.6}, {"min_p": 0.2}, {"top_k": 20, "top_p": 0.8, "min_p": 0.1}],
    ids=lambda fields: " and ".join(fields),
)
def test_only_tokens_that_transformers_would_keep_are_drawn(
    openai: OpenAI, theirs: TransformersSide, fields: dict[str, float]
) -> None:
    prompt = fresh(30, "filters")
    answers = drawn(openai, prompt, 8, n=16, seed=4, temperature=1.3, **fields)
    kept = theirs.kept(theirs.logits(prompt)[-1:], temperature=1.3, **fields)[0]
    firsts = {tokens[0] for tokens in answers}
    assert firsts <= kept
    assert len(firsts) > 1
    for tokens in answers[:4]:
        rows = theirs.logits([*prompt, *tokens])[len(prompt) - 1 : -1]
        places = theirs.kept(rows, temperature=1.3, **fields)
        assert all(token in place for token, place in zip(tokens, places, strict=True))


def test_top_k_of_one_and_top_p_of_zero_are_greedy(openai: OpenAI, theirs: TransformersSide) -> None:
    prompt = fresh(30, "as greedy")
    expected = [theirs.greedy(prompt, 20)]
    assert drawn(openai, prompt, 20, top_k=1, seed=1) == expected
    assert drawn(openai, prompt, 20, top_p=0, seed=1) == expected


def test_single_draws_follow_the_probabilities(openai: OpenAI, theirs: TransformersSide) -> None:
    prompt = fresh(30, "frequencies")
    best, ids = theirs.logits(prompt)[-1].softmax(-1).topk(1)
    draws = [drawn(openai, prompt, 1, n=16, seed=seed) for seed in range(20)]
    hits = sum(tokens == [int(ids[0])] for answers in draws for tokens in answers)
    chance = float(best[0])
    assert abs(hits / 320 - chance) < 5 * (chance * (1 - chance) / 320) ** 0.5
