"""A real gateway process with scripted engines connected to it, for whoever talks to `/control/v1`.

    async with gateway_with_engines(tmp_path, prefill=[Pod(name="a")], decode=[Pod(name="b")]) as cluster:
        await cluster.load("a-0", storage=0.9)
        report = await cluster.report()

Engines obey drains, report at each beat, and come back when the gateway is restarted.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from checkpoints import write_tokenizer

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "gateway"))
from scripted_engine import ScriptedEngine

from dualpath_api import wire

BEAT_S = 0.2
LINK_BYTES_PER_S = 25e9
DEADLINE_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """Who an engine is; its id in the gateway is NAME-RANK."""

    name: str
    rank: int = 0
    revision: str = ""
    uid: str = ""
    node: str = ""

    @property
    def engine(self) -> str:
        return f"{self.name}-{self.rank}"

    def registration(self) -> dict[str, Any]:
        return {
            "revision": self.revision,
            "pod": self.name,
            "pod_uid": self.uid,
            "node": self.node,
            "process": f"{self.engine}/{self.uid}",
        }


@dataclass(slots=True)
class Traffic:
    """Bytes per second of one engine, and what they have come to."""

    rates: dict[str, float] = field(default_factory=dict)  # storage, compute: received by that NIC
    reads: float = 0.0  # from storage by the engine itself
    received: dict[str, float] = field(default_factory=dict)
    read: float = 0.0
    since: float = field(default_factory=time.monotonic)

    def figures(self) -> dict[str, Any]:
        """The fields of a report, now."""
        now = time.monotonic()
        seconds, self.since = now - self.since, now
        self.read += self.reads * seconds
        for role, rate in self.rates.items():
            self.received[role] = self.received.get(role, 0.0) + rate * seconds
        nics = tuple(self._nic(role, rate) for role, rate in self.rates.items())
        return {"read_bytes_total": int(self.read), "nics": nics}

    def _nic(self, role: str, rate: float) -> wire.Nic:
        return wire.Nic(
            name=f"{role}0",
            role=role,
            rx_bytes=int(self.received[role]),
            tx_bytes=0,
            rx_bytes_per_s=rate,
            tx_bytes_per_s=0.0,
            link_bytes_per_s=LINK_BYTES_PER_S,
        )


class GatewayCluster:
    """The gateway, its engines, and a client that has the token."""

    def __init__(self, config: Path, token: Path | None, env: dict[str, str]) -> None:
        self._command = [sys.executable, "-m", "dualpath_gateway", "--config", str(config)]
        self.environ = {**os.environ, **env}
        self._port = 0
        self._headers = {}
        if token is not None:
            self.environ["DUALPATH_CONTROL_TOKEN_FILE"] = str(token)
            self._headers = {"Authorization": f"Bearer {token.read_text()}"}
        self._engines: dict[str, tuple[wire.Role, Pod]] = {}
        self._traffic: dict[str, Traffic] = {}
        self._beat: asyncio.Task[None] | None = None
        self.engines: dict[str, ScriptedEngine] = {}
        self.store: set[bytes] = set()
        self.url = ""

    # ------------------------------------------------------------ the gateway

    async def start(self) -> None:
        """Start the process, on the port that it had before."""
        self.process = await asyncio.create_subprocess_exec(
            *self._command,
            *("--port", str(self._port)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=self.environ,
        )
        assert self.process.stdout is not None
        line = (await asyncio.wait_for(self.process.stdout.readline(), DEADLINE_S)).decode()
        assert line.startswith("listening http"), line
        self.url = line.split()[1]
        self._port = int(self.url.rpartition(":")[2])
        self.client = aiohttp.ClientSession(base_url=self.url, headers=self._headers)
        self._beat = asyncio.create_task(self._report_forever())

    async def stop(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End the process; the engines lose their connections."""
        if self._beat is not None:
            self._beat.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._beat
        for engine in self.engines.values():
            await engine.kill()
        self.engines.clear()
        await self.client.close()
        if self.process.returncode is None:
            self.process.send_signal(number)
        await self.process.wait()

    async def restart(self, *, forget: bool = False) -> None:
        """Another gateway on the same port, to which the engines come back, as they were told to be.

        `forget`: as engines that were started anew, too.
        """
        wished = {} if forget else {name: engine.figures for name, engine in self.engines.items()}
        await self.stop()
        await self.start()
        for name in list(self._engines):
            drain = {key: wished.get(name, {}).get(key, True) for key in ("accept_new", "serve_reads")}
            await self._connect(name, **drain)

    async def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and JSON of one call."""
        async with self.client.request(method, path, json=body) as response:
            return response.status, await response.json()

    async def report(self) -> dict[str, Any]:
        """`GET /control/v1/report`."""
        status, report = await self.call("GET", "/control/v1/report")
        assert status == 200, report
        return dict(report)

    async def until(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first report that meets the condition."""
        async with asyncio.timeout(DEADLINE_S):
            while not condition(report := await self.report()):  # noqa: ASYNC110  another process
                await asyncio.sleep(0.01)
        return report

    # ------------------------------------------------------------ the engines

    async def add(self, role: wire.Role, pod: Pod) -> ScriptedEngine:
        """Connect one more engine."""
        self._engines[pod.engine] = (role, pod)
        self._traffic[pod.engine] = Traffic()
        return await self._connect(pod.engine)

    async def remove(self, name: str) -> None:
        """The engine's process is gone."""
        del self._engines[name]
        await self.engines.pop(name).kill()
        await self.until(lambda report: all(engine["id"] != name for engine in report["engines"]))

    async def load(self, name: str, *, reads: float = 0.0, **busy: float) -> None:
        """Let NICs be used: storage=0.5 is half of its link; `reads` is bytes/s read by the engine itself."""
        traffic = self._traffic[name]
        traffic.reads, traffic.rates = reads, {role: part * LINK_BYTES_PER_S for role, part in busy.items()}
        await self._report(name)

    async def _connect(self, name: str, **registration: Any) -> ScriptedEngine:
        role, pod = self._engines[name]
        url = f"{self.url}/engines"
        engine = ScriptedEngine(url, name, role, self.store, **pod.registration(), **registration)
        engine.headers = self._headers
        await engine.__aenter__()
        self.engines[name] = engine
        await self.until(lambda report: any(one["id"] == name for one in report["engines"]))
        return engine

    async def _report(self, name: str) -> None:
        engine = self.engines[name]
        engine.figures |= self._traffic[name].figures()
        with contextlib.suppress(ConnectionError):
            await engine.report()

    async def _report_forever(self) -> None:
        while True:
            for name in list(self.engines):
                await self._report(name)
            await asyncio.sleep(BEAT_S)


@contextlib.asynccontextmanager
async def gateway_with_engines(
    directory: Path,
    *,
    prefill: Sequence[Pod] = (),
    decode: Sequence[Pod] = (),
    token: str | None = None,
    **env: str,
) -> AsyncIterator[GatewayCluster]:
    """A gateway and these engines; its files go into `directory`, `env` into its environment."""
    file = directory / "token"
    if token is not None:
        file.write_text(token)
    cluster = GatewayCluster(write_config(directory), file if token is not None else None, env)
    await cluster.start()
    try:
        for role, pods in ((wire.Role.PREFILL, prefill), (wire.Role.DECODE, decode)):
            for pod in pods:
                await cluster.add(role, pod)
        yield cluster
    finally:
        await cluster.stop()


def write_config(directory: Path, checkpoint_name: str = "checkpoint") -> Path:
    """A cluster file whose checkpoint is a tokenizer alone."""
    checkpoint = directory / checkpoint_name
    checkpoint.mkdir(exist_ok=True)
    write_tokenizer(checkpoint, add_bos=True)
    memory = {"resources": {"dramBuffer": "1Mi", "kvCache": "1Mi"}}
    spec = {
        "model": {"uri": checkpoint.as_uri(), "servedName": "tiny", "dtype": "float32"},
        "prefill": memory,
        "decode": memory,
        "storage": {"files": {"path": str(directory), "size": "1Gi"}},
    }
    file = directory / "cluster.json"
    head = {"apiVersion": "dualpath.io/v1alpha1", "kind": "DualPathCluster", "metadata": {"name": "t"}}
    file.write_text(json.dumps({**head, "spec": spec}))
    return file
