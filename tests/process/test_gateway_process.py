"""The gateway as a process: how it starts, what it says, how it ends. Engines are scripted peers on sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "gateway"))
from gateway_cluster import write_config
from scripted_engine import ScriptedEngine, token_at

from dualpath_api import wire

BODY = {"model": "tiny", "prompt": list(range(100, 230)), "max_tokens": 30, "return_token_ids": True}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_config(tmp_path, "a checkpoint")


async def start(*arguments: str, **env: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "dualpath_gateway",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **env},
    )


@contextlib.asynccontextmanager
async def serving(config: Path, *arguments: str, **env: str) -> AsyncIterator[tuple[Any, str]]:
    """(process, URL); the process is killed in the end if it still runs."""
    process = await start("--config", str(config), *arguments, **env)
    try:
        assert process.stdout is not None
        line = (await process.stdout.readline()).decode()
        assert line.startswith("listening http://127.0.0.1:"), line
        yield process, line.split()[1]
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await process.communicate()


@contextlib.asynccontextmanager
async def pair(url: str, **registration: Any) -> AsyncIterator[tuple[ScriptedEngine, ScriptedEngine]]:
    store: set[bytes] = set()
    socket_url = f"{url}/engines"
    async with (
        ScriptedEngine(socket_url, "prefill-0-0", wire.Role.PREFILL, store, **registration) as prefill,
        ScriptedEngine(socket_url, "decode-0-0", wire.Role.DECODE, store, **registration) as decode,
        aiohttp.ClientSession() as session,
        asyncio.timeout(20),
    ):
        while True:
            async with session.get(f"{url}/readyz") as response:
                if response.status == 200:
                    break
        yield prefill, decode


async def stream(url: str, begun: asyncio.Event) -> list[Any]:
    events: list[Any] = []
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/v1/completions", json={**BODY, "stream": True}) as response,
    ):
        async for line in response.content:
            if line.startswith(b"data: "):
                data = line.removeprefix(b"data: ").strip()
                events.append(None if data == b"[DONE]" else json.loads(data))
                begun.set()
    return events


async def test_it_tells_its_port_and_stops_at_once_when_idle(config, tmp_path):
    ready = tmp_path / "ready.json"
    async with serving(config, "--log", "json", "--ready-file", str(ready)) as (process, url):
        told = json.loads(ready.read_text())
        assert (told["url"], told["pid"]) == (url, process.pid)
        async with pair(url):
            process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(process.wait(), 10) == 0
        log = (await process.stderr.read()).decode()
        events = [json.loads(line)["message"] for line in log.splitlines()]
        assert [event for event in events if event in ("listening", "stopping", "stopped")] == [
            "listening",
            "stopping",
            "stopped",
        ]
        assert "engine up" in events


async def test_what_runs_is_finished_before_it_stops(config):
    async with serving(config) as (process, url), pair(url) as (_, decode):
        decode.hold_tokens.clear()
        begun = asyncio.Event()
        running = asyncio.create_task(stream(url, begun))
        await asyncio.wait_for(begun.wait(), 10)
        process.send_signal(signal.SIGTERM)
        async with aiohttp.ClientSession() as session, asyncio.timeout(10):
            while True:
                async with session.post(f"{url}/v1/completions", json={**BODY, "max_tokens": 1}) as response:
                    if response.status == 503:
                        break
        decode.hold_tokens.set()
        events = await running
        ids = [token for event in events[:-1] for token in event["choices"][0]["token_ids"]]
        assert ids == [token_at(0, 130 + i) for i in range(30)]
        assert await asyncio.wait_for(process.wait(), 10) == 0


async def test_what_takes_too_long_ends_with_an_error_event(config):
    env = {"DUALPATH_GATEWAY_STOP_S": "0.1"}
    async with serving(config, **env) as (process, url), pair(url) as (_, decode):
        decode.hold_tokens.clear()
        begun = asyncio.Event()
        running = asyncio.create_task(stream(url, begun))
        await asyncio.wait_for(begun.wait(), 10)
        process.send_signal(signal.SIGINT)
        events = await running
        assert events[-1] is None
        assert events[-2]["error"]["message"] == "the server is shutting down"
        assert await asyncio.wait_for(process.wait(), 10) == 0


async def test_a_client_that_reads_slowly_gets_the_rest(config):
    messages = [{"role": "user", "content": "all of it"}]
    body = {"model": "tiny", "messages": messages, "max_tokens": 400, "n": 16, "stream": True}
    body |= {"logprobs": True, "top_logprobs": 20}  # more than the buffers of a connection hold
    async with serving(config) as (process, url), pair(url, pages=200), asyncio.timeout(60):
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.connect(("127.0.0.1", int(url.rpartition(":")[2])))
            reader, writer = await asyncio.open_connection(sock=slow, limit=4096)
            data = json.dumps(body).encode()
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(data)}"
            writer.write(head.encode() + b"\r\n\r\n" + data)
            async with aiohttp.ClientSession() as session:
                seen = 0
                while seen < 16 * 400:  # all tokens are there, but most of them are not written yet
                    async with session.get(f"{url}/metrics") as response:
                        page = await response.text()
                    seen = int(float(page.split("\ndualpath_generated_tokens_total ")[1].split()[0]))
            process.send_signal(signal.SIGTERM)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.shield(process.wait()), 2)
            answer = await reader.read(-1)
            writer.close()
        assert answer.count(b'"logprob"') > 16 * 400 * 20
        assert b"data: [DONE]" in answer
        assert await process.wait() == 0


async def failing(*arguments: str, **env: str) -> tuple[int | None, str]:
    process = await start(*arguments, **env)
    _, err = await asyncio.wait_for(process.communicate(), 20)
    return process.returncode, err.decode()


async def test_a_bad_start_is_one_message(config, tmp_path):
    bad = tmp_path / "bad.yaml"
    bad.write_text(config.read_text().replace("servedName", "servdName"))
    code, err = await failing("--config", str(bad))
    assert (code, "remedy" in err, "Traceback" in err) == (2, True, False)
    code, err = await failing("--config", str(config), DUALPATH_GATEWAY_TYPO="1")
    assert (code, "DUALPATH_GATEWAY_TYPO" in err) == (2, True)
    (tmp_path / "a checkpoint" / "tokenizer.json").write_text("{")
    code, err = await failing("--config", str(config))
    assert (code, "tokenizer.json" in err, "Traceback" in err) == (2, True, False)


async def test_a_taken_port_is_told(config):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, err = await failing("--config", str(config), "--port", str(taken.getsockname()[1]))
    assert code == 1
    assert "cannot listen" in err
