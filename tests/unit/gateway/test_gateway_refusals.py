"""What a client did wrong is told as an OpenAI error body that names the field."""

from __future__ import annotations

import json

import pytest

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]}
TEXT = {"model": "tiny", "prompt": "Hi"}

BAD = [
    ("chat", {"messages": []}, "messages"),
    ("chat", {"messages": "Hi"}, "messages"),
    ("chat", {"messages": [{"content": "x"}]}, "messages[0].role"),
    ("chat", {"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    ("chat", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content"),
    ("chat", {"top_logprobs": 3}, "top_logprobs"),
    ("chat", {"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ("chat", {"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format"),
    ("chat", {"tools": [], "tool_choice": "required"}, "tool_choice"),
    ("chat", {"functions": [{"name": "f"}]}, "functions"),
    ("text", {"prompt": None}, "prompt"),
    ("text", {"prompt": ""}, "prompt"),
    ("text", {"prompt": []}, "prompt"),
    ("text", {"prompt": {}}, "prompt"),
    ("text", {"prompt": [[]]}, "prompt"),
    ("text", {"prompt": ["a", [1]]}, "prompt"),
    ("text", {"prompt": [1, 2.5]}, "prompt"),
    ("text", {"prompt": [1, True]}, "prompt"),
    ("text", {"prompt": [1, 384]}, "prompt"),
    ("text", {"prompt": [-1]}, "prompt"),
    ("text", {"prompt": [1] * 100_000}, "prompt"),
    ("text", {"prompt": "word " * 50_000}, "prompt"),
    ("text", {"prompt": ["a"] * 65}, "prompt"),
    ("text", {"prompt": ["a"] * 60, "n": 16}, "n"),
    ("text", {"max_tokens": 0}, "max_tokens"),
    ("text", {"max_tokens": 10**9}, "max_tokens"),
    ("text", {"max_tokens": "5"}, "max_tokens"),
    ("text", {"max_tokens": 1.5}, "max_tokens"),
    ("text", {"max_tokens": True}, "max_tokens"),
    ("text", {"temperature": -0.1}, "temperature"),
    ("text", {"temperature": 2.1}, "temperature"),
    ("text", {"temperature": "hot"}, "temperature"),
    ("text", {"top_p": 1.1}, "top_p"),
    ("text", {"top_k": -2}, "top_k"),
    ("text", {"min_p": 2}, "min_p"),
    ("text", {"presence_penalty": 3}, "presence_penalty"),
    ("text", {"repetition_penalty": 0}, "repetition_penalty"),
    ("text", {"seed": 2**70}, "seed"),
    ("text", {"seed": 1.5}, "seed"),
    ("text", {"logit_bias": {"x": 1}}, "logit_bias"),
    ("text", {"logit_bias": {"5": 101}}, "logit_bias"),
    ("text", {"logit_bias": {"400": 1}}, "logit_bias"),
    ("text", {"logprobs": 21}, "logprobs"),
    ("text", {"n": 0}, "n"),
    ("text", {"n": 17}, "n"),
    ("text", {"stop": ["a", "b", "c", "d", "e"]}, "stop"),
    ("text", {"stop": ""}, "stop"),
    ("text", {"stop": [1]}, "stop"),
    ("text", {"best_of": 4}, "best_of"),
    ("text", {"echo": True}, "echo"),
    ("text", {"suffix": "x"}, "suffix"),
    ("text", {"stream": "yes"}, "stream"),
    ("text", {"stream_options": {"include_usage": True}}, "stream_options"),
    ("text", {"model": 5}, "model"),
    ("text", {"guided_json": {}}, "guided_json"),
]


@pytest.mark.parametrize(("kind", "change", "field"), BAD, ids=lambda value: str(value)[:40])
async def test_a_bad_field_is_named(gateway, kind, change, field):
    await gateway.pair()
    path, body = ("/v1/chat/completions", CHAT) if kind == "chat" else ("/v1/completions", TEXT)
    status, answer = await gateway.post(path, {**body, **change})
    assert status == 400, answer
    error = answer["error"]
    assert error["type"] == "invalid_request_error"
    assert field in f"{error['param']} {error['message']}"
    assert gateway.idle()


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"[]", b'"x"', b'{"model": NaN}', b"\xff\xfe", b'{"a":' * 3000],
    ids=["empty", "cut", "list", "text", "nan", "not utf-8", "deep"],
)
async def test_a_body_that_is_no_json_object_is_400(gateway, raw):
    await gateway.pair()
    headers = {"Content-Type": "application/json"}
    async with gateway.client.post("/v1/completions", data=raw, headers=headers) as response:
        assert response.status == 400
        assert (await response.json())["error"]["code"] == "invalid_json"


async def test_what_would_fit_is_said(gateway):
    await gateway.pair(context=200)
    body = {"model": "tiny", "prompt": [100] * 150, "max_tokens": 51}
    status, answer = await gateway.post("/v1/completions", body)
    assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")
    assert "at most 50" in answer["error"]["message"]
    status, _ = await gateway.post("/v1/completions", {**body, "max_tokens": 50})
    assert status == 200


async def test_the_context_is_what_the_smallest_engine_holds(gateway):
    await gateway.engine("prefill-0-0", slots=5)
    await gateway.engine("decode-0-0", slots=4, pages=9)
    assert gateway.scheduler.world.engines.context() == 192
    status, answer = await gateway.post("/v1/completions", {"model": "tiny", "prompt": [100] * 192})
    assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")
    status, _ = await gateway.post("/v1/completions", {"model": "tiny", "prompt": [100] * 191})
    assert status == 200


async def test_answers_that_do_not_fit_into_the_cache_together_are_refused(gateway):
    await gateway.pair(pages=10)
    body = {"model": "tiny", "prompt": [100] * 64, "max_tokens": 256, "n": 2}
    status, answer = await gateway.post("/v1/completions", body)
    assert (status, answer["error"]["param"]) == (400, "n")
    assert "at most 192" in answer["error"]["message"]
    assert (await gateway.post("/v1/completions", {**body, "max_tokens": 192}))[0] == 200


async def test_unknown_models_routes_and_methods(gateway):
    await gateway.pair()
    status, answer = await gateway.post("/v1/completions", {**TEXT, "model": "other"})
    assert (status, answer["error"]["code"]) == (404, "model_not_found")
    assert (await gateway.get("/v1/models/other"))[0] == 404
    assert (await gateway.get("/v1/models/tiny"))[1]["id"] == "tiny"
    assert (await gateway.get("/v1/models"))[1]["data"][0]["id"] == "tiny"
    assert (await gateway.get("/v2"))[1]["error"]["code"] == "not_found"
    async with gateway.client.get("/v1/completions") as response:
        assert response.status == 405
        assert response.headers["Allow"] == "POST"
        assert "error" in await response.json()


async def test_a_body_over_the_limit_is_413(make_gateway):
    gateway = await make_gateway(max_body_bytes=1000)
    await gateway.pair()
    status, answer = await gateway.post("/v1/completions", {**TEXT, "prompt": "x" * 2000})
    assert (status, answer["error"]["code"]) == (413, "body_too_large")


async def test_xml_is_415(gateway):
    async with gateway.client.post(
        "/v1/completions", data=b"<a/>", headers={"Content-Type": "application/xml"}
    ) as response:
        assert response.status == 415


async def test_without_engines_it_is_503_and_not_ready(gateway):
    async with gateway.client.post("/v1/completions", json=TEXT) as response:
        assert response.status == 503
        assert "Retry-After" in response.headers
    assert (await gateway.get("/readyz"))[0] == 503
    assert (await gateway.get("/healthz"))[0] == 200
    await gateway.engine("prefill-0-0")
    assert (await gateway.get("/readyz"))[0] == 503
    await gateway.engine("decode-0-0")
    assert (await gateway.get("/readyz"))[0] == 200


async def test_a_full_queue_is_429(make_gateway):
    gateway = await make_gateway(queue_limit=1)
    prefill, decode = await gateway.pair()
    await decode.report(free_slots=0)
    await gateway.until(lambda: gateway.scheduler.world.engines.get("decode-0-0").report.free_slots == 0)
    import asyncio

    first = asyncio.create_task(gateway.post("/v1/completions", TEXT))
    await gateway.until(lambda: len(gateway.scheduler.world.queue) == 1)
    async with gateway.client.post("/v1/completions", json=TEXT) as response:
        assert response.status == 429
        assert int(response.headers["Retry-After"]) >= 1
        assert (await response.json())["error"]["type"] == "rate_limit_error"
    await decode.report()
    assert (await first)[0] == 200
    assert prefill.received


async def test_ignored_fields_are_ignored(gateway):
    await gateway.pair()
    body = {
        **CHAT,
        "user": "me",
        "metadata": {"a": 1},
        "store": False,
        "stream_options": None,
        "max_tokens": 2,
    }
    status, answer = await gateway.post("/v1/chat/completions", body)
    assert status == 200, answer


async def test_a_request_id_is_taken_over_and_answered(gateway):
    await gateway.pair()
    headers = {"X-Request-Id": "mine-1"}
    async with gateway.client.post("/v1/completions", json=TEXT, headers=headers) as response:
        assert response.headers["X-Request-Id"] == "mine-1"
        assert (await response.json())["id"] == "cmpl-mine-1"
    status, record = await gateway.get("/debug/requests/cmpl-mine-1")
    assert (status, record["outcome"]) == (200, "ok")
    async with gateway.client.post("/v1/completions", json=TEXT, headers=headers) as response:
        assert response.headers["X-Request-Id"].startswith("mine-1-")
    bad = {"X-Request-Id": "x" * 500}
    async with gateway.client.get("/nothing", headers=bad) as response:
        assert len(response.headers["X-Request-Id"]) < 130
        assert json.loads(await response.text())["error"]["code"] == "not_found"
