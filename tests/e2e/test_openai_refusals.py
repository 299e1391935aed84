"""What the official client raises: refusals that say what would work, and streams that end with an error."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

import pytest
from checkpoints import cached_checkpoint
from client import fresh
from openai import APIError, BadRequestError, NotFoundError, OpenAI
from openai_side import EXACT
from specs import write_spec

from dualpath_cli.embedded import Embedded, embedded

CONTEXT = 4096
HELLO = [{"role": "user", "content": "Hello"}]


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_as_long_as_the_context_is_told_what_fits(openai: OpenAI, stream: bool) -> None:
    with pytest.raises(BadRequestError) as refusal:
        openai.completions.create(model="tiny", prompt=fresh(CONTEXT, "long"), max_tokens=1, stream=stream)
    assert (refusal.value.code, refusal.value.param) == ("context_length_exceeded", "prompt")
    assert f"prompts of at most {CONTEXT - 1}" in refusal.value.message


def test_the_longest_prompt_is_served(openai: OpenAI) -> None:
    answer = openai.completions.create(model="tiny", prompt=fresh(CONTEXT - 1, "longest"), max_tokens=1)
    assert answer.usage.total_tokens == CONTEXT


def test_a_text_and_a_chat_beyond_the_context_are_refused(openai: OpenAI) -> None:
    text = "The quick brown fox jumps over the lazy dog; " * 4000
    for call in (
        lambda: openai.completions.create(model="tiny", prompt=text),
        lambda: openai.chat.completions.create(model="tiny", messages=[{"role": "user", "content": text}]),
    ):
        with pytest.raises(BadRequestError, match=f"at most {CONTEXT - 1}"):
            call()


def test_the_max_tokens_that_a_refusal_names_fits(openai: OpenAI) -> None:
    body: dict[str, Any] = {"model": "tiny", "prompt": fresh(CONTEXT - 20, "room"), "extra_body": EXACT}
    with pytest.raises(BadRequestError) as refusal:
        openai.completions.create(**body, max_tokens=21)
    named = re.search(r"can be at most (\d+)", refusal.value.message)
    assert named
    assert (int(named[1]), refusal.value.param) == (20, "max_tokens")
    answer = openai.completions.create(**body, max_tokens=20, temperature=0)
    assert (answer.usage.total_tokens, answer.choices[0].finish_reason) == (CONTEXT, "length")


def test_another_model_is_not_found(openai: OpenAI) -> None:
    for call in (
        lambda: openai.chat.completions.create(model="other", messages=HELLO),
        lambda: openai.completions.create(model="other", prompt="Hello"),
        lambda: openai.models.retrieve("other"),
    ):
        with pytest.raises(NotFoundError) as refusal:
            call()
        assert (refusal.value.code, refusal.value.param) == ("model_not_found", "model")
        assert "'tiny'" in refusal.value.message


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", "warm"),
        ("temperature", 2.5),
        ("max_tokens", 0),
        ("max_tokens", 1.5),
        ("max_tokens", True),
        ("n", 17),
        ("n", 0),
        ("top_p", 1.1),
        ("stop", ["a", "b", "c", "d", "e"]),
        ("stop", [1]),
        ("stop", ""),
        ("seed", "one"),
        ("logit_bias", {"x": 1}),
        ("logit_bias", {"5": 101}),
        ("logit_bias", {"384": 1}),
        ("stream_options", {"include_usage": True}),
        ("messages", []),
        ("messages", [{"content": "nobody"}]),
        ("messages", "Hello"),
        ("top_logprobs", 21),
        ("logprobs", 5),
        ("response_format", {"type": "json_object"}),
        ("frequency_penalty", -2.1),
        ("repetition_penalty", 1e-300),
    ],
    ids=repr,
)
def test_a_bad_value_is_refused_with_its_field(openai: OpenAI, field: str, value: object) -> None:
    body: dict[str, Any] = {"messages": HELLO, "max_tokens": 1, "extra_body": {field: value}}
    if field == "top_logprobs":
        body["logprobs"] = True
    with pytest.raises(BadRequestError) as refusal:
        openai.chat.completions.create(model="tiny", **body)
    assert field in f"{refusal.value.param} {refusal.value.message}"
    assert refusal.value.type == "invalid_request_error"


@pytest.mark.parametrize(
    "prompt", [None, [], "", [[]], [5, "a"], [5, 1.5], [384], [-1], {"a": 1}, ["a", [5]], 5], ids=repr
)
def test_a_prompt_of_another_shape_is_refused(openai: OpenAI, prompt: Any) -> None:
    with pytest.raises(BadRequestError) as refusal:
        openai.completions.create(model="tiny", prompt=prompt, max_tokens=1)
    assert refusal.value.param == "prompt"


def test_completions_cap_their_logprobs(openai: OpenAI) -> None:
    assert openai.completions.create(model="tiny", prompt="Hello", max_tokens=1, logprobs=20).choices
    with pytest.raises(BadRequestError, match="20"):
        openai.completions.create(model="tiny", prompt="Hello", max_tokens=1, logprobs=21)


def test_a_refused_request_leaves_the_client_usable(openai: OpenAI) -> None:
    with pytest.raises(BadRequestError):
        openai.chat.completions.create(model="tiny", messages=HELLO, extra_body={"unheard_of": 1})
    answer = openai.chat.completions.create(model="tiny", messages=HELLO, max_tokens=2, extra_body=EXACT)
    assert answer.usage.completion_tokens == 2


@pytest.fixture
def hasty(tmp_path: Path) -> Any:
    """A cluster that gives running requests no time when it is stopped."""
    with embedded(write_spec(tmp_path, cached_checkpoint("qwen3")), "--drain-seconds", "0") as running:
        yield running


def test_a_stream_that_cannot_go_on_ends_with_an_error(hasty: Embedded) -> None:
    with OpenAI(base_url=hasty.openai, api_key="none", max_retries=0) as client:
        stream = client.completions.create(
            model="tiny", prompt=fresh(100, "cut"), max_tokens=3900, stream=True, extra_body=EXACT
        )
        chunks = iter(stream)
        assert next(chunks).choices[0].token_ids
        codes: list[int] = []
        stopping = threading.Thread(target=lambda: codes.append(hasty.stop()))
        stopping.start()
        with pytest.raises(APIError, match="shutting down") as failure:
            list(chunks)
        stopping.join()
    assert failure.value.code == "shutdown"
    assert codes == [0]
