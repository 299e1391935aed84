"""A real gateway on a real port with a small tokenizer, and scripted engines connected to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from checkpoints import write_tokenizer
from tokenizers import Tokenizer

from dualpath_api.cluster import DualPathCluster
from dualpath_api.wire import Role
from dualpath_gateway.app import build_app
from dualpath_gateway.keys_of_app import MODEL, SERVICE
from dualpath_gateway.scheduler.core import Scheduler
from dualpath_gateway.settings import Settings
from dualpath_gateway.text.model import load_text_model

sys.path.insert(0, str(Path(__file__).parent))
from scripted_engine import ScriptedEngine

CLUSTER = {
    "apiVersion": "dualpath.io/v1alpha1",
    "kind": "DualPathCluster",
    "metadata": {"name": "test"},
    "spec": {
        "model": {"uri": "file:///none", "servedName": "tiny", "dtype": "float32"},
        "prefill": {"resources": {"dramBuffer": "1Mi", "kvCache": "1Mi"}},
        "decode": {"resources": {"dramBuffer": "1Mi", "kvCache": "1Mi"}},
        "storage": {"files": {"path": "/none", "size": "1Gi"}},
    },
}


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("checkpoint")
    write_tokenizer(directory, add_bos=True)
    (directory / "config.json").write_text(json.dumps({"vocab_size": 384, "eos_token_id": 2}))
    (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 4]}))
    return directory


class Gateway:
    """A running gateway and the engines of a test."""

    def __init__(self, app: web.Application, port: int) -> None:
        self.app = app
        self.url = f"http://127.0.0.1:{port}"
        self.store: set[bytes] = set()
        self.stack = contextlib.AsyncExitStack()
        self.client = aiohttp.ClientSession(base_url=self.url)

    @property
    def scheduler(self) -> Scheduler:
        return self.app[SERVICE].scheduler

    @property
    def tokenizer(self) -> Tokenizer:
        return self.app[MODEL].tokenizer

    async def engine(self, name: str, **registration: Any) -> ScriptedEngine:
        role = Role(name.partition("-")[0])
        engine = ScriptedEngine(f"{self.url}/engines", name, role, self.store, **registration)
        await self.stack.enter_async_context(engine)
        await self.until(lambda: self.scheduler.world.engines.get(name) is not None)
        return engine

    async def pair(self, **registration: Any) -> tuple[ScriptedEngine, ScriptedEngine]:
        return (
            await self.engine("prefill-0-0", **registration),
            await self.engine("decode-0-0", **registration),
        )

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():  # noqa: ASYNC110  any state of the process under test
                await asyncio.sleep(0.002)

    async def post(self, path: str, body: Any, **more: Any) -> tuple[int, Any]:
        async with self.client.post(path, json=body, **more) as response:
            return response.status, await response.json()

    async def get(self, path: str, **more: Any) -> tuple[int, Any]:
        async with self.client.get(path, **more) as response:
            return response.status, await response.json()

    async def events(self, path: str, body: Any) -> list[Any]:
        """All events of a stream; the end mark as None."""
        found: list[Any] = []
        async with self.client.post(path, json={**body, "stream": True}) as response:
            assert response.status == 200, await response.text()
            async for line in response.content:
                if line.startswith(b"data: "):
                    data = line.removeprefix(b"data: ").strip()
                    found.append(None if data == b"[DONE]" else json.loads(data))
        return found

    def idle(self) -> bool:
        world = self.scheduler.world
        return not (world.jobs or world.turns or world.queue or world.queries) and all(
            not (engine.jobs or engine.unseen or engine.reserved) for engine in world.engines
        )


@pytest.fixture
async def make_gateway(checkpoint: Path) -> AsyncIterator[Callable[..., Any]]:
    async with contextlib.AsyncExitStack() as stack:

        async def make(directory: Path | None = None, **settings: Any) -> Gateway:
            model = load_text_model(directory or checkpoint, "tiny")
            app = build_app(DualPathCluster.model_validate(CLUSTER), model, Settings(**settings))
            runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            gateway = Gateway(app, runner.addresses[0][1])
            stack.push_async_callback(gateway.client.close)
            stack.push_async_callback(gateway.stack.aclose)
            return gateway

        yield make


@pytest.fixture
async def gateway(make_gateway: Callable[..., Any]) -> Gateway:
    return await make_gateway()
