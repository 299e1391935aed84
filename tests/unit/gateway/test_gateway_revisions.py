"""A rollout as clients see it: engines of two revisions, with KV of two layouts, behind one gateway."""

from __future__ import annotations

import asyncio

import pytest
from scripted_engine import LAYOUT, ScriptedEngine, replaced, token_at

from dualpath_api import wire

NEW = replaced(LAYOUT, fingerprint="01", block_tokens=32)
BODY = {"model": "tiny", "prompt": list(range(100, 230)), "max_tokens": 20, "return_token_ids": True}
EXPECTED = [token_at(0, 130 + i) for i in range(20)]


async def pair_of(gateway, revision: str, number: int, **registration) -> list[ScriptedEngine]:
    names = [f"prefill-{number}-0", f"decode-{number}-0"]
    return [await gateway.engine(name, revision=revision, **registration) for name in names]


async def complete(gateway) -> dict:
    status, answer = await gateway.post("/v1/completions", BODY)
    assert (status, answer["choices"][0]["token_ids"]) == (200, EXPECTED)
    await gateway.until(gateway.idle)
    return answer["usage"]["prompt_tokens_details"]["cached_tokens"]


def assigned(*engines: ScriptedEngine) -> list[int]:
    return [len(engine.all_of(wire.Assign)) for engine in engines]


async def test_a_revision_serves_once_it_has_both_roles_and_hits_its_own_blocks(gateway):
    old = await pair_of(gateway, "old", 0)
    assert [await complete(gateway), await complete(gateway)] == [0, 128]
    await gateway.engine("prefill-1-0", revision="new", layout=NEW)
    assert await complete(gateway) == 128
    new_decode = await gateway.engine("decode-1-0", revision="new", layout=NEW)
    for engine in old:
        await gateway.post(f"/control/v1/engines/{engine.name}/drain", None)
    assert [await complete(gateway), await complete(gateway)] == [0, 128]
    (first, second) = new_decode.all_of(wire.Assign)
    assert [len(first.keys), first.hit_blocks, second.hit_blocks] == [4, 0, 4]
    assert assigned(*old) == [3, 3]


async def test_half_a_revision_serves_nobody(gateway):
    await gateway.engine("prefill-0-0", revision="old")
    await gateway.engine("decode-0-0", revision="new", layout=NEW)
    assert (await gateway.get("/readyz"))[0] == 503
    assert (await gateway.post("/v1/completions", BODY))[0] == 503
    await gateway.engine("prefill-1-0", revision="new", layout=NEW)
    await complete(gateway)
    report = (await gateway.get("/control/v1/report"))[1]
    assert [(one["revision"], one["complete"]) for one in report["revisions"]] == [
        ("new", True),
        ("old", False),
    ]


async def test_requests_run_in_both_revisions_at_once(gateway):
    engines = await pair_of(gateway, "old", 0) + await pair_of(gateway, "new", 1, layout=NEW)
    for engine in engines:
        engine.hold_tokens.clear()
    answers = [asyncio.create_task(gateway.post("/v1/completions", BODY)) for _ in range(6)]
    await gateway.until(lambda: sum(assigned(*engines)) == 12)
    assert assigned(*engines) == [3, 3, 3, 3]
    for engine in engines:
        engine.hold_tokens.set()
    for answer in answers:
        assert (await answer)[1]["choices"][0]["token_ids"] == EXPECTED


async def test_a_stream_that_loses_its_revision_goes_on_in_the_other(gateway):
    _, decode = await pair_of(gateway, "old", 0)
    decode.tokens_limit = 5
    stream = asyncio.create_task(gateway.events("/v1/completions", BODY))
    await decode.saw(wire.Start)
    new = await pair_of(gateway, "new", 1, layout=NEW)
    await decode.kill()
    events = await stream
    assert [token for event in events[:-1] for token in event["choices"][0]["token_ids"]] == EXPECTED
    assert assigned(*new) == [1, 1]


async def test_a_started_stream_stays_with_its_weights_while_it_can(gateway):
    _, decode = await pair_of(gateway, "old", 0)
    decode.tokens_limit = 5
    stream = asyncio.create_task(gateway.events("/v1/completions", BODY))
    await decode.saw(wire.Start)
    new = await pair_of(gateway, "new", 1, layout=NEW)
    spare = await gateway.engine("decode-2-0", revision="old")
    await decode.kill()
    await stream
    assert assigned(*new, spare) == [0, 0, 1]


async def test_a_layout_may_differ_between_revisions_but_not_within_one(gateway):
    await gateway.engine("prefill-0-0", revision="old")
    await gateway.engine("prefill-1-0", revision="new", layout=NEW)
    url = f"{gateway.url}/engines"
    async with ScriptedEngine(url, "decode-1-0", wire.Role.DECODE, gateway.store, revision="new") as refused:
        await gateway.until(lambda: refused.socket.closed)
        assert refused.socket.close_code == 4000


@pytest.mark.parametrize("revision", ["old", "new"])
async def test_the_context_is_what_every_serving_revision_holds(gateway, revision):
    await pair_of(gateway, "old", 0, slots=10)
    await pair_of(gateway, "new", 1, slots=10, layout=NEW)
    engines = gateway.scheduler.world.engines
    assert engines.context() == 9 * 32
    number = 0 if revision == "old" else 1
    await gateway.post(f"/control/v1/engines/decode-{number}-0/drain", None)
    assert engines.context() == (9 * 32 if revision == "old" else 9 * 64)
