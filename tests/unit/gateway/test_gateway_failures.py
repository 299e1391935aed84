"""Engines die, refuse, hang; clients go away. Real sockets, scripted engines."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
from scripted_engine import LAYOUT, ScriptedEngine, register, replaced, token_at

from dualpath_api import wire

PROMPT = list(range(100, 230))
BODY = {"model": "tiny", "prompt": PROMPT, "max_tokens": 60, "return_token_ids": True}
EXPECTED = [token_at(0, 130 + i) for i in range(60)]


def ids_of(events: list) -> list[int]:
    return [token for event in events[:-1] for token in event["choices"][0]["token_ids"]]


def _shown(gateway) -> int:
    """Tokens that the scheduler has passed on."""
    return gateway.scheduler.world.totals.generated_tokens


def running(gateway):
    return asyncio.create_task(gateway.events("/v1/completions", BODY))


async def test_a_stream_goes_on_where_a_dead_decode_engine_left_it(gateway):
    prefill, decode = await gateway.pair()
    decode.tokens_limit = 20
    stream = running(gateway)
    await gateway.until(lambda: _shown(gateway) == 21)
    other = await gateway.engine("decode-1-0")
    await decode.kill()
    events = await stream
    assert events[-1] is None
    assert ids_of(events) == EXPECTED
    again = await other.saw(wire.Assign)
    assert (again.attempt, again.prompt_tokens) == (2, 130)
    assert list(again.tokens[130:]) == EXPECTED[: len(again.tokens) - 130]
    gone = await prefill.saw(wire.PeerGone)
    assert gone.engine == "decode-0-0"
    await gateway.until(gateway.idle)


async def test_a_dead_prefill_engine_is_replaced_before_the_first_token(gateway):
    prefill, decode = await gateway.pair()
    prefill.hold_tokens.clear()
    stream = running(gateway)
    await prefill.saw(wire.Assign)
    await prefill.kill()
    await decode.saw(wire.Abort)
    await gateway.engine("prefill-0-0", incarnation="2")
    assert ids_of(await stream) == EXPECTED
    assert (await decode.saw(wire.PeerGone)).incarnation == "prefill-0-0-1"
    await gateway.until(gateway.idle)


async def test_a_dead_prefill_engine_is_not_missed_while_decoding(gateway):
    prefill, decode = await gateway.pair()
    decode.hold_tokens.clear()
    stream = running(gateway)
    await gateway.until(lambda: any(j.filled for j in gateway.scheduler.world.jobs.values()))
    await prefill.kill()
    await gateway.until(lambda: len(gateway.scheduler.world.engines) == 1)
    decode.hold_tokens.set()
    assert ids_of(await stream) == EXPECTED
    assert len(decode.all_of(wire.Assign)) == 1


async def test_a_refusal_is_tried_again(gateway):
    prefill, decode = await gateway.pair()
    decode.refuse, prefill.refuse = 2, 1
    assert ids_of(await running(gateway)) == EXPECTED
    assert len(decode.all_of(wire.Assign)) == 4
    assert len(prefill.all_of(wire.Assign)) == 2


async def test_three_failed_attempts_are_an_error_in_the_stream(gateway):
    prefill, _ = await gateway.pair()

    async def fail_again() -> None:
        for attempt in range(1, 4):
            await prefill.saw(wire.Assign, lambda m, n=attempt: m.attempt == n)
            prefill.fail_reason = "no luck"

    prefill.fail_reason = "no luck"
    failing = asyncio.create_task(fail_again())
    events = await running(gateway)
    await failing
    assert events[-1] is None
    assert "no luck" in events[-2]["error"]["message"]
    assert events[-2]["error"]["type"] == "server_error"
    prefill.fail_reason = None
    assert ids_of(await running(gateway)) == EXPECTED


async def test_an_excuse_does_not_count(gateway):
    prefill, decode = await gateway.pair()
    for attempt in range(1, 5):
        decode.mute.add(wire.Start)
        if attempt == 1:
            stream = running(gateway)
        start = await decode.saw(wire.Start, lambda m, n=attempt: m.attempt == n)
        if attempt == 4:
            decode.mute.clear()
            decode.firsts[start.request, start.attempt] = dict(start.first)
            decode._spawn(decode._decode(decode.live[start.request, start.attempt]))
            break
        decode.live.pop((start.request, start.attempt))
        await decode.send(
            wire.Failed(request=start.request, attempt=attempt, reason="cache full", excuse=True)
        )
    assert ids_of(await stream) == EXPECTED
    assert prefill.received


async def test_a_client_that_goes_away_frees_everything(gateway):
    prefill, decode = await gateway.pair()
    decode.hold_tokens.clear()
    async with gateway.client.post("/v1/completions", json={**BODY, "stream": True}) as response:
        await response.content.readline()
        response.close()
    await decode.saw(wire.Abort, lambda m: m.choice is None)
    await gateway.until(gateway.idle)
    prefill.hold_tokens.clear()
    waiting = asyncio.create_task(gateway.post("/v1/completions", BODY))
    await prefill.saw(wire.Assign, lambda m: len(prefill.all_of(wire.Assign)) == 2)
    waiting.cancel()
    await prefill.saw(wire.Abort)
    await gateway.until(gateway.idle)
    assert gateway.scheduler.world.totals.outcomes == {"aborted": 2}


async def test_a_client_that_goes_away_leaves_the_queue(gateway):
    _, decode = await gateway.pair()
    await decode.report(free_slots=0)
    world = gateway.scheduler.world
    await gateway.until(lambda: world.engines.get("decode-0-0").report.free_slots == 0)
    waiting = asyncio.create_task(gateway.post("/v1/completions", BODY))
    await gateway.until(lambda: len(world.queue) == 1)
    waiting.cancel()
    await gateway.until(lambda: not world.queue and gateway.idle())


async def test_200_cancelled_requests_leave_nothing(gateway):
    prefill, decode = await gateway.pair()
    prefill.hold_tokens.clear()
    tasks = [asyncio.create_task(gateway.post("/v1/completions", BODY)) for _ in range(200)]
    await gateway.until(lambda: len(gateway.scheduler.world.turns) >= 50)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await gateway.until(gateway.idle)
    prefill.hold_tokens.set()
    await gateway.until(lambda: not prefill.live and not decode.live)
    assert (await gateway.post("/v1/completions", BODY))[0] == 200


async def test_a_silent_engine_is_lost_after_three_heartbeats(make_gateway):
    gateway = await make_gateway(heartbeat_s=0.05)
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{gateway.url}/engines", autoping=False) as socket,
    ):
        await socket.send_bytes(wire.encode(register("decode-0-0", wire.Role.DECODE)))
        await gateway.until(lambda: len(gateway.scheduler.world.engines) == 1)
        await gateway.until(lambda: len(gateway.scheduler.world.engines) == 0)


async def test_an_engine_that_answers_pings_stays(make_gateway):
    gateway = await make_gateway(heartbeat_s=0.05)
    engine = await gateway.engine("decode-0-0")
    seen = []
    async with asyncio.timeout(5):
        while len(seen) < 6:  # pings that came back
            seen.append(await engine.socket.ping(b"x"))
            await asyncio.wait_for(gateway.client.get("/healthz"), 1)
    assert gateway.scheduler.world.engines.get("decode-0-0") is not None


@pytest.mark.parametrize(
    "first",
    [
        b"garbage",
        wire.encode(wire.Matched(query=1, blocks=1)),
        wire.encode(replaced(register("decode-9-0", wire.Role.DECODE), protocol=99)),
        wire.encode(register("decode-9-0", wire.Role.DECODE, layout=replaced(LAYOUT, layers=3))),
    ],
    ids=["garbage", "not Register", "protocol", "layout"],
)
async def test_an_engine_that_does_not_fit_is_sent_away(gateway, first):
    await gateway.pair()
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{gateway.url}/engines") as socket,
    ):
        await socket.send_bytes(first)
        message = await socket.receive(timeout=5)
        assert message.type is aiohttp.WSMsgType.CLOSE
        assert message.data == 4000
    assert len(gateway.scheduler.world.engines) == 2


async def test_a_new_incarnation_replaces_the_old_connection(gateway):
    _, decode = await gateway.pair()
    decode.hold_tokens.clear()
    stream = running(gateway)
    await decode.saw(wire.Start)
    url = f"{gateway.url}/engines"
    again = ScriptedEngine(url, "decode-0-0", wire.Role.DECODE, gateway.store, incarnation="2")
    async with again:
        await again.saw(wire.Assign)
        assert ids_of(await stream) == EXPECTED
        world = gateway.scheduler.world
        assert world.engines.get("decode-0-0").register.incarnation == "2"


async def test_storage_that_does_not_answer_is_a_miss(make_gateway):
    gateway = await make_gateway(match_s=0.05)
    prefill, decode = await gateway.pair()
    prefill.mute.add(wire.Match)
    decode.mute.add(wire.Match)
    assert ids_of(await running(gateway)) == EXPECTED


async def test_an_engine_that_never_accepts_is_left_for_another(make_gateway):
    gateway = await make_gateway(assign_s=0.05)
    _, decode = await gateway.pair()
    decode.mute.add(wire.Assign)
    other = await gateway.engine("decode-1-0")
    assert ids_of(await running(gateway)) == EXPECTED
    await other.saw(wire.Assign)


async def test_a_request_that_nobody_can_continue_ends_in_time(make_gateway):
    gateway = await make_gateway(request_s=0.2)
    prefill, decode = await gateway.pair()
    decode.tokens_limit = 5
    stream = running(gateway)
    await decode.saw(wire.Start)
    await decode.kill()
    events = await stream
    assert events[-2]["error"]["type"] == "timeout_error"
    assert prefill.received
