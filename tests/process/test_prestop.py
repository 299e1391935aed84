"""The preStop hook against a real gateway: it ends when the engine has proven that nothing is left."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from gateway_cluster import GatewayCluster, Pod, gateway_with_engines

from dualpath_api import wire
from dualpath_worker.prestop import Target, drain

P = Pod(name="c-prefill-aaaaaaaa-0", uid="u1")
D = Pod(name="c-decode-aaaaaaaa-0", uid="u2")
OTHER = Pod(name="c-decode-aaaaaaaa-1", uid="u3")
BODY = {"model": "tiny", "prompt": list(range(100, 230)), "max_tokens": 5}
READS, NO_READS = (
    wire.Drain(accept_new=False, serve_reads=True),
    wire.Drain(accept_new=False, serve_reads=False),
)


async def hook(cluster: GatewayCluster, pod: Pod, log: Path, *arguments: str) -> asyncio.subprocess.Process:
    """The hook as Kubernetes runs it in a container of the pod."""
    env = {
        **cluster.environ,
        "DUALPATH_POD_NAME": pod.name,
        "DUALPATH_POD_UID": pod.uid,
        "DUALPATH_RANK": "0",
        "DUALPATH_SCHEDULER": f"{cluster.url.replace('http', 'ws')}/engines",
    }
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "dualpath_worker.prestop", "--log", str(log), *arguments),
        stderr=asyncio.subprocess.PIPE,
        env=env,
    )


async def said(process: asyncio.subprocess.Process) -> str:
    _, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0
    return err.decode()


def target(cluster: GatewayCluster, pod: Pod) -> Target:
    return Target(gateway=cluster.url, token=None, pod=pod.name, pod_uid=pod.uid, rank=None)


async def test_it_lets_requests_end_then_reads_and_spares_other_pods(tmp_path):
    log = tmp_path / "container.log"
    log.touch()
    async with gateway_with_engines(tmp_path, prefill=[P], decode=[D], token="secret") as cluster:
        engine = cluster.engines[D.engine]
        engine.hold_tokens.clear()
        request = asyncio.create_task(cluster.call("POST", "/v1/completions", BODY))
        await engine.saw(wire.Start)
        other = await cluster.add(wire.Role.DECODE, OTHER)
        process = await hook(cluster, D, log)
        await engine.saw(wire.Drain, lambda m: m == READS)
        assert NO_READS not in engine.all_of(wire.Drain)
        engine.hold_tokens.set()
        assert (await request)[0] == 200
        text = await said(process)
        assert "waiting for 1 requests" in text
        assert "drained after" in text
        assert log.read_text() == text
        assert engine.all_of(wire.Drain)[-1] == NO_READS
        assert NO_READS not in other.all_of(wire.Drain)
        assert (await cluster.call("GET", f"/control/v1/engines/{D.engine}"))[1]["drained"] is True


async def test_it_ends_at_its_deadline_and_says_what_was_left(tmp_path):
    async with gateway_with_engines(tmp_path, prefill=[P], decode=[D]) as cluster:
        cluster.engines[D.engine].figures["serving_reads"] = 2
        text = await said(await hook(cluster, D, tmp_path / "none" / "log", "--deadline", "1.5"))
        assert "not drained within 1.5 s: waiting for 2 reads by other engines" in text


async def test_a_gateway_that_was_restarted_is_asked_again(tmp_path):
    async with gateway_with_engines(tmp_path, prefill=[P], decode=[D]) as cluster:
        cluster.engines[D.engine].figures["serving_reads"] = 1
        lines: list[str] = []
        waiting = asyncio.create_task(
            asyncio.to_thread(drain, target(cluster, D), 60.0, lines.append, poll_s=0.05)
        )
        await cluster.engines[D.engine].saw(wire.Drain, lambda m: m == NO_READS)
        await cluster.restart(forget=True)
        await cluster.engines[D.engine].saw(wire.Drain, lambda m: m == NO_READS)
        assert await waiting
        assert "drained" in lines[-1]


async def test_without_engines_or_gateway_there_is_nothing_to_wait_for(tmp_path):
    lines: list[str] = []
    async with gateway_with_engines(tmp_path, prefill=[P]) as cluster:
        away = target(cluster, D)
        assert await asyncio.to_thread(drain, away, 60.0, lines.append, silent_s=0.3, away_s=0.2, poll_s=0.05)
        assert "no engine of this pod is connected" in lines[-1]
    assert await asyncio.to_thread(drain, away, 60.0, lines.append, silent_s=0.3, away_s=0.2, poll_s=0.05)
    assert "the gateway does not answer" in lines[-1]


async def test_what_it_cannot_understand_it_says_and_ends_well(tmp_path):
    async with gateway_with_engines(tmp_path) as cluster:
        for arguments in (("--gateway", "gateway:80"), ("--deadline", "soon"), ("--no-such-flag",)):
            process = await hook(cluster, D, tmp_path / "none" / "log", *arguments)
            assert "prestop: " in await said(process)
