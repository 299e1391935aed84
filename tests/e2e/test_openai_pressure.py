"""What a client sees of a cache that is too small and of a killed engine: nothing."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from checkpoints import cached_checkpoint
from client import BLOCK, blocks_used, fresh, metric, wait_for, wait_ready
from openai import AsyncOpenAI, OpenAI
from openai_side import EXACT, gather, logprobs_of
from specs import write_spec

from dualpath_cli.embedded import Embedded, embedded

TOKENS = 100


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    """A cluster whose decode engine holds 16 pages: 1,024 tokens of all requests together."""
    spec = write_spec(tmp_path_factory.mktemp("narrow"), cached_checkpoint("qwen3"))
    with embedded(spec, overrides=["spec.decode.resources.kvCache=2Mi"]) as running:
        yield running


def seeded(number: int) -> dict[str, Any]:
    """A request with one to three choices, with penalties or without; the same number, the same tokens."""
    body: dict[str, Any] = {
        "model": "tiny",
        "prompt": fresh(40 + 37 * number, ("pressure", number)),
        "max_tokens": TOKENS,
        "seed": number,
        "n": 1 + number % 3,
        "logprobs": 2,
        "extra_body": EXACT,
    }
    penalties = (
        {"presence_penalty": 1.0, "frequency_penalty": 0.5},
        {"extra_body": {**EXACT, "repetition_penalty": 1.3}},
        {"temperature": 0},
        {"temperature": 1.2, "top_p": 0.9},
    )
    return body | penalties[number % 4]


def seen(answer: Any) -> list[tuple[list[int], str, str]]:
    """What a client sees of the choices."""
    return [(choice.token_ids, choice.text, choice.finish_reason) for choice in answer.choices]


async def test_requests_that_push_each_other_out_answer_as_if_alone(narrow: Embedded) -> None:
    async with AsyncOpenAI(base_url=narrow.openai, api_key="none", max_retries=0) as client:
        alone = [await client.completions.create(**seeded(number)) for number in range(8)]
        crowd = await asyncio.gather(*(client.completions.create(**seeded(number)) for number in range(8)))
    for one, other in zip(alone, crowd, strict=True):
        assert seen(one) == seen(other)
        for mine, theirs in zip(one.choices, other.choices, strict=True):
            assert logprobs_of(mine) == pytest.approx(logprobs_of(theirs), abs=1e-3)
        assert one.usage.completion_tokens == other.usage.completion_tokens
    excused = await asyncio.to_thread(metric, narrow, "gateway", "dualpath_attempts_total", result="excused")
    assert excused > 0
    await asyncio.to_thread(wait_for, lambda: blocks_used(narrow) == 0, "all blocks are free again")


def test_a_request_that_waits_for_room_enters_when_the_one_before_it_ends(narrow: Embedded) -> None:
    fields = {"model": "tiny", "temperature": 0, "extra_body": EXACT}
    with OpenAI(base_url=narrow.openai, api_key="none", max_retries=0, timeout=60) as client:
        running = iter(
            client.completions.create(prompt=fresh(645, "before"), max_tokens=50, stream=True, **fields)
        )
        chunks = [next(running), next(running)]  # the second one comes from the decode engine
        waiting = client.completions.create(prompt=fresh(250, "after"), max_tokens=10, n=2, **fields)
        assert waiting.usage.completion_tokens == 20
        assert len(gather([*chunks, *running]).tokens) == 50


@pytest.mark.parametrize("role", ["decode", "prefill"])
def test_a_seeded_stream_goes_on_where_a_killed_engine_left_it(narrow: Embedded, role: str) -> None:
    body = {**seeded(5), "n": 2, "max_tokens": 3 * BLOCK}
    with OpenAI(base_url=narrow.openai, api_key="none", max_retries=0) as client:
        whole = client.completions.create(**body)
        stream = iter(client.completions.create(**body, stream=True, stream_options={"include_usage": True}))
        chunks = [next(stream) for _ in range(20)]
        victim = f"{role}-0-0"
        pid = narrow.pids[victim]
        os.kill(pid, signal.SIGKILL)
        chunks += stream
    for choice in whole.choices:
        streamed = gather(chunks, choice.index)
        assert (streamed.tokens, streamed.text) == (choice.token_ids, choice.text)
        assert streamed.logprobs == pytest.approx(logprobs_of(choice), abs=1e-3)
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    wait_for(lambda: narrow.pids.get(victim) not in (None, pid), "the supervisor has replaced it")
    wait_ready(narrow)
    wait_for(lambda: blocks_used(narrow) == 0, "all blocks are free again")
