"""What operators read and set, and who may."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from dualpath_api import wire
from dualpath_gateway.metrics import METRICS
from dualpath_gateway.settings import read_settings

PROMPT = list(range(100, 230))
BODY = {"model": "tiny", "prompt": PROMPT, "max_tokens": 70}


async def put(gateway, path: str, body: object, **more):
    async with gateway.client.put(path, json=body, **more) as response:
        return response.status, await response.json()


async def test_the_report_tells_what_was_read_and_by_whom(gateway):
    _, decode = await gateway.pair()
    await put(gateway, "/control/v1/tuning", {"pathPolicy": "DecodeOnly"})
    for _ in range(2):
        await gateway.post("/v1/completions", BODY)
        await gateway.until(gateway.idle)
    nic = wire.Nic(
        name="eth0",
        role="storage",
        rx_bytes=1,
        tx_bytes=2,
        rx_bytes_per_s=25.0,
        tx_bytes_per_s=5.0,
        link_bytes_per_s=100.0,
    )
    await decode.report(nics=(nic,))
    world = gateway.scheduler.world
    await gateway.until(lambda: bool(world.engines.get("decode-0-0").report.nics))
    status, report = await gateway.get("/control/v1/report")
    assert status == 200
    assert report["hitTokens"] == 128
    assert report["hitRatio"] == pytest.approx(128 / 260)
    assert report["read"]["prefillBytes"] == 0
    assert report["read"]["decodeShare"] == report["read"]["recentDecodeShare"] == 1.0
    assert report["sides"]["decode"]["utilisation"] == {"storage": 0.25, "compute": None}
    assert report["queue"] == {"waiting": 0, "running": 0, "oldestS": 0, "turnedAway": 0}
    assert report["recentHitPermille"] == 492
    assert [engine["state"] for engine in report["engines"]] == ["serving", "serving"]
    assert report["tuning"]["pathPolicy"] == "DecodeOnly"


async def test_tuning_holds_from_the_next_decision_on(gateway):
    prefill, _ = await gateway.pair()
    await gateway.post("/v1/completions", BODY)
    await gateway.until(gateway.idle)
    for policy, mode in (("PrefillOnly", "prefill"), ("DecodeOnly", "decode"), ("Split", "split")):
        status, answer = await put(gateway, "/control/v1/tuning", {"pathPolicy": policy})
        assert (status, answer["pathPolicy"]) == (200, policy)
        before = len(prefill.all_of(wire.Assign))
        await gateway.post("/v1/completions", BODY)
        assert prefill.all_of(wire.Assign)[before].mode == mode
        await gateway.until(gateway.idle)
    assert (await gateway.get("/control/v1/tuning"))[1]["pathPolicy"] == "Split"


@pytest.mark.parametrize(
    "body",
    [
        {"pathPolicy": "Sideways"},
        {"biasTokens": "x"},
        {"decodeMinPermille": 600, "decodeMaxPermille": 500},
        {"decodeMaxPermille": 1001},
        {"bias": 1},
        [],
    ],
)
async def test_bad_tuning_changes_nothing(gateway, body):
    before = (await gateway.get("/control/v1/tuning"))[1]
    status, answer = await put(gateway, "/control/v1/tuning", body)
    assert (status, "error" in answer) == (400, True)
    assert (await gateway.get("/control/v1/tuning"))[1] == before


async def test_a_drained_engine_finishes_and_gets_nothing_new(gateway):
    _, decode = await gateway.pair()
    other = await gateway.engine("decode-1-0")
    decode.hold_tokens.clear()
    other.hold_tokens.clear()
    stream = asyncio.create_task(gateway.events("/v1/completions", BODY))
    await gateway.until(lambda: bool(decode.all_of(wire.Start) or other.all_of(wire.Start)))
    busy, idle = (decode, other) if decode.all_of(wire.Start) else (other, decode)
    path = f"/control/v1/engines/{busy.name}"
    status, state = await gateway.post(f"{path}/drain", None)
    assert (status, state["state"], state["acceptNew"], state["serveReads"]) == (200, "draining", False, True)
    assert state["inFlight"] == 1
    await busy.saw(wire.Drain, lambda m: (m.accept_new, m.serve_reads) == (False, True))
    idle.hold_tokens.set()
    await gateway.post("/v1/completions", BODY)
    assert len(idle.all_of(wire.Assign)) == 1
    busy.hold_tokens.set()
    await stream
    engine = gateway.scheduler.world.engines.get(busy.name)
    await gateway.until(lambda: not engine.jobs and engine.report.seq_e == 0)
    assert (await gateway.get(path))[1]["drained"] is False  # it still reads for others
    await gateway.post(f"{path}/drain", {"serveReads": False})
    await gateway.until(lambda: engine.drained)
    assert (await gateway.get(path))[1]["drained"] is True
    assert (await gateway.get(f"{path}/drain"))[1]["state"] == "drained"
    await gateway.post(f"{path}/resume", None)
    await gateway.until(lambda: engine.status == "serving")
    assert (await gateway.post("/control/v1/engines/none/drain", None))[0] == 404


async def test_a_drain_outlives_the_engines_connection(gateway):
    _, decode = await gateway.pair()
    await gateway.post("/control/v1/engines/decode-0-0/drain", {"serveReads": False})
    await decode.kill()
    await gateway.until(lambda: len(gateway.scheduler.world.engines) == 1)
    again = await gateway.engine("decode-0-0", incarnation="2")
    assert (await again.saw(wire.Drain)) == wire.Drain(accept_new=False, serve_reads=False)
    assert (await gateway.get("/readyz"))[0] == 503


async def test_a_new_process_of_a_drained_engine_serves_and_a_new_gateway_keeps_the_drain(gateway):
    await gateway.engine("prefill-0-0")
    first = await gateway.engine("decode-0-0", process="1")
    await gateway.post("/control/v1/engines/decode-0-0/drain", None)
    await first.kill()
    await gateway.until(lambda: len(gateway.scheduler.world.engines) == 1)
    again = await gateway.engine("decode-0-0", process="2")
    assert (await again.saw(wire.Drain)) == wire.Drain(accept_new=True, serve_reads=True)
    await again.kill()
    await gateway.until(lambda: len(gateway.scheduler.world.engines) == 1)
    kept = await gateway.engine("decode-0-0", process="3", accept_new=False)
    assert (await kept.saw(wire.Drain)) == wire.Drain(accept_new=False, serve_reads=True)


async def test_a_drain_for_a_pod_spares_its_successor(gateway):
    await gateway.engine("decode-0-0", pod_uid="new")
    path = "/control/v1/engines/decode-0-0/drain"
    assert (await gateway.post(path, {"podUid": "old"}))[0] == 409
    assert (await gateway.get(path))[1]["acceptNew"] is True
    assert (await gateway.post(path, {"podUid": "new"}))[0] == 200


async def test_with_a_token_nothing_goes_without_it(make_gateway):
    gateway = await make_gateway(control_token="secret")
    for path in ("/control/v1/report", "/control/v1/tuning", "/debug/requests", "/engines"):
        assert (await gateway.get(path))[0] == 401
        assert (await gateway.get(path, headers={"Authorization": "Bearer wrong"}))[0] == 401
    good = {"Authorization": "Bearer secret"}
    assert (await gateway.get("/control/v1/report", headers=good))[0] == 200
    async with aiohttp.ClientSession(headers=good) as session, session.ws_connect(f"{gateway.url}/engines"):
        pass
    assert (await gateway.get("/v1/models"))[0] == 200


async def test_without_a_token_browser_pages_are_refused(gateway):
    headers = {"Origin": "http://example.com"}
    assert (await gateway.post("/control/v1/engines/x/drain", None, headers=headers))[0] == 403
    async with gateway.client.put("/control/v1/tuning", data=b"{}") as response:
        assert response.status == 415


async def test_without_a_token_other_machines_are_refused(make_gateway):
    gateway = await make_gateway()
    transport = _Elsewhere()
    from aiohttp.test_utils import make_mocked_request

    request = make_mocked_request("GET", "/control/v1/report", app=gateway.app, transport=transport)
    from dualpath_gateway.access import check_access
    from dualpath_gateway.errors import ApiError

    with pytest.raises(ApiError) as refused:
        check_access(request)
    assert refused.value.status == 403


class _Elsewhere(asyncio.Transport):
    """A connection from an address of the documentation range."""

    def get_extra_info(self, name: str, default: object = None) -> object:
        return ("192.0.2.1", 5) if name == "peername" else default


async def test_a_request_tells_its_story(gateway):
    await gateway.pair()
    await gateway.post("/v1/completions", BODY)
    await gateway.until(gateway.idle)
    headers = {"X-Request-Id": "story"}
    await gateway.post("/v1/completions", BODY, headers=headers)
    await gateway.until(gateway.idle)
    status, record = await gateway.get("/debug/requests/story")
    assert status == 200
    states = [step["state"] for step in record["history"]]
    wanted = ["QUEUED", "MATCHED", "ASSIGNED", "READING", "PREFILLING", "FIRST_TOKEN", "FILLING", "DECODING"]
    assert [state for state in states if state in wanted] == wanted
    assert states[-1] == "DONE"
    times = [step["at"] for step in record["history"]]
    assert times == sorted(times)
    (attempt,) = record["attempts"]
    assert (attempt["prefill"], attempt["decode"]) == ("prefill-0-0", "decode-0-0")
    assert attempt["hit_tokens"] == record["cached_tokens"] == 128
    assert attempt["prefill_bytes"] + attempt["decode_bytes"] == 2 * 64 * 2 * 64
    assert all(attempt["reasons"][key] for key in ("decode_group", "decode", "prefill", "mode"))
    assert (await gateway.get("/debug/requests"))[1]["requests"][0]["id"] == "story"
    assert (await gateway.get("/debug/requests/none"))[0] == 404


async def test_the_metrics_page_has_every_metric_of_the_table(gateway):
    await gateway.pair()
    await gateway.post("/v1/completions", BODY)
    await gateway.until(gateway.idle)
    async with gateway.client.get("/metrics") as response:
        page = await response.text()
    families = {family.name: family for family in text_string_to_metric_families(page)}
    for spec in METRICS:
        assert families[spec.name.removesuffix("_total")].documentation == spec.help
    samples = {s.name: s.value for family in families.values() for s in family.samples if not s.labels}
    assert samples["dualpath_prompt_tokens_total"] == 130
    assert samples["dualpath_generated_tokens_total"] == 70
    assert samples["dualpath_ttft_seconds_count"] == 1
    assert samples["dualpath_itl_seconds_count"] == 69


def test_settings_come_from_the_environment_and_typos_are_told(tmp_path):
    from dualpath_api.errors import SpecError

    assert read_settings({"DUALPATH_GATEWAY_QUEUE_LIMIT": "5", "PATH": "x"}).queue_limit == 5
    with pytest.raises(SpecError, match="unknown variable DUALPATH_GATEWAY_QUEUE_LIMITS"):
        read_settings({"DUALPATH_GATEWAY_QUEUE_LIMITS": "5"})
    with pytest.raises(SpecError, match="DUALPATH_GATEWAY_QUEUE_LIMIT='x'"):
        read_settings({"DUALPATH_GATEWAY_QUEUE_LIMIT": "x"})
    file = tmp_path / "token"
    file.write_text("abc\n")
    assert read_settings({"DUALPATH_CONTROL_TOKEN_FILE": str(file)}).control_token == "abc"
    with pytest.raises(SpecError, match="cannot be read"):
        read_settings({"DUALPATH_CONTROL_TOKEN_FILE": str(tmp_path / "none")})
    file.write_text("")
    with pytest.raises(SpecError, match="is empty"):
        read_settings({"DUALPATH_CONTROL_TOKEN_FILE": str(file)})
