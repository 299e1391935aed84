"""Real engines in the environment that Kubernetes gives them: identity, probes, and the end of a Pod."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
from checkpoints import cached_checkpoint

sys.path.insert(0, str(Path(__file__).parent))
from gateway_cluster import GatewayCluster

from dualpath_api.report import ControlReport, decode_report

ROLES = ("prefill", "decode")
DEADLINE_S = 120.0


def write_config(directory: Path, dtype: str, checkpoint: Path | None = None) -> Path:
    role = {"resources": {"dramBuffer": "16Mi", "kvCache": "16Mi"}}
    spec = {
        "model": {
            "uri": (checkpoint or cached_checkpoint("qwen3")).as_uri(),
            "servedName": "tiny",
            "dtype": dtype,
        },
        "prefill": role,
        "decode": role,
        "storage": {"files": {"path": str(directory / "kv"), "size": "1Gi"}},
    }
    head = {"apiVersion": "dualpath.io/v1alpha1", "kind": "DualPathCluster", "metadata": {"name": "t"}}
    file = directory / f"{dtype}.json"
    file.write_text(json.dumps({**head, "spec": spec}))
    return file


def pod_env(cluster: GatewayCluster, role: str, revision: str) -> dict[str, str]:
    return {
        **cluster.environ,
        "DUALPATH_POD_NAME": f"c-{role}-{revision}-0",
        "DUALPATH_POD_UID": f"uid-{role}-{revision}",
        "DUALPATH_POD_IP": "127.0.0.1",
        "DUALPATH_NODE_NAME": "node",
        "DUALPATH_REVISION": revision,
        "DUALPATH_RANK": "0",
        "DUALPATH_SCHEDULER": f"{cluster.url.replace('http', 'ws')}/engines",
        "OMP_NUM_THREADS": "1",
    }


@contextlib.asynccontextmanager
async def pods(
    cluster: GatewayCluster, config: Path, revision: str
) -> AsyncIterator[dict[str, asyncio.subprocess.Process]]:
    """A prefill and a decode engine of one revision."""
    scheduler = f"{cluster.url.replace('http', 'ws')}/engines"
    started = {
        role: await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "dualpath_worker", "--config", str(config), "--role", role),
            *("--scheduler", scheduler, "--host", "0.0.0.0"),
            env=pod_env(cluster, role, revision),
        )
        for role in ROLES
    }
    try:
        yield started
    finally:
        for process in started.values():
            if process.returncode is None:
                process.kill()
            await process.wait()


async def report_of(cluster: GatewayCluster) -> ControlReport:
    async with cluster.client.get("/control/v1/report") as response:
        return decode_report(await response.read())


async def served_by(cluster: GatewayCluster, *revisions: str) -> ControlReport:
    """Wait until exactly these revisions can serve."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            report = await report_of(cluster)
            if sorted(one.revision for one in report.revisions if one.complete) == sorted(revisions):
                return report
            await asyncio.sleep(0.1)


async def answer(cluster: GatewayCluster, prompt: list[int]) -> list[int]:
    body = {"model": "tiny", "prompt": prompt, "max_tokens": 8, "temperature": 0, "return_token_ids": True}
    status, found = await cluster.call("POST", "/v1/completions", body)
    assert status == 200, found
    tokens: list[int] = found["choices"][0]["token_ids"]
    return tokens


async def test_a_rollout_of_real_engines_ends_with_the_new_revision(tmp_path):
    configs = {dtype: write_config(tmp_path, dtype) for dtype in ("float32", "bfloat16")}
    token = tmp_path / "token"
    token.write_text("secret")
    cluster = GatewayCluster(configs["float32"], token, {})
    await cluster.start()
    prompt = [7 + i % 300 for i in range(200)]
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(cluster.stop)
        old = await stack.enter_async_context(pods(cluster, configs["float32"], "aaaaaaaa"))
        report = await served_by(cluster, "aaaaaaaa")
        identities = {(one.id, one.pod_uid, one.node, one.state) for one in report.engines}
        assert ("c-decode-aaaaaaaa-0-0", "uid-decode-aaaaaaaa", "node", "serving") in identities
        await probe(report)
        first = await answer(cluster, prompt)
        await stack.enter_async_context(pods(cluster, configs["bfloat16"], "bbbbbbbb"))
        await served_by(cluster, "aaaaaaaa", "bbbbbbbb")
        for role in ROLES:
            hook = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "dualpath_worker.prestop", "--log", os.devnull),
                env=pod_env(cluster, role, "aaaaaaaa"),
                stderr=asyncio.subprocess.PIPE,
            )
            _, err = await asyncio.wait_for(hook.communicate(), DEADLINE_S)
            assert b"drained after" in err
            old[role].send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(old[role].wait(), DEADLINE_S) == 0
        await served_by(cluster, "bbbbbbbb")
        second = await answer(cluster, prompt)
        assert len(first) == len(second) == 8


async def test_an_engine_that_still_loads_its_model_ends_at_once(tmp_path):
    fifo = tmp_path / "config.json"
    os.mkfifo(fifo)  # a checkpoint that takes for ever to read
    config = write_config(tmp_path, "float32", tmp_path)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "dualpath_worker", "--config", str(config), "--role", "prefill"),
        *("--scheduler", "ws://127.0.0.1:1/engines"),
    )
    async with asyncio.timeout(DEADLINE_S):
        writer = None
        while writer is None:
            with contextlib.suppress(OSError):  # nobody reads it yet
                writer = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
            await asyncio.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    os.close(writer)


async def probe(report: ControlReport) -> None:
    """Every engine answers for itself, at the address that it told."""
    async with aiohttp.ClientSession() as session:
        for engine in report.engines:
            url = engine.metrics_url.removesuffix("/metrics")
            assert url.startswith("http://127.0.0.1:")
            for path in ("/healthz", "/readyz", "/metrics"):
                async with session.get(url + path) as response:
                    assert response.status == 200
