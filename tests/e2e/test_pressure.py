"""Too little memory, killed processes and other block sizes: every token stays right, and everything is freed."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

import psutil
import pytest
from checkpoints import cached_checkpoint
from client import blocks_used, call, complete, fresh, metric, wait_for, wait_ready, whole
from conversations import check
from specs import write_spec

from dualpath_cli.embedded import Embedded, embedded


@contextmanager
def running(directory: Path, *overrides: str) -> Iterator[Embedded]:
    """A cluster of its own."""
    spec = write_spec(directory, cached_checkpoint("qwen3"))
    with embedded(spec, overrides=[f"spec.{override}" for override in overrides]) as cluster:
        yield cluster


def conversations(
    cluster: Embedded, reference: object, name: str, count: int, turns: int, reply: int
) -> None:
    """`count` conversations at once, each reply equal to the reference."""
    model = cached_checkpoint("qwen3")
    shared = fresh(150, name)

    def converse(number: int) -> None:
        context = [*shared, *fresh(20, (name, number))]
        for turn in range(turns):
            context += fresh(random.Random(number * 10 + turn).randint(1, 90), (name, number, turn))
            context += check(cluster, reference, model, context, reply).tokens

    with ThreadPoolExecutor(count) as pool:
        list(pool.map(converse, range(count)))
    wait_for(lambda: blocks_used(cluster) == 0, "all blocks are free again")


@pytest.mark.parametrize("mode", ["Split", "DecodeOnly"])
def test_twelve_conversations_in_too_little_memory(tmp_path: Path, reference: object, mode: str) -> None:
    """Sixteen pages and twenty slots for twelve conversations of up to eight blocks."""
    block = 4 * 64 * 2 * 2 * 32 * 4
    decode = "decode.resources"
    with running(
        tmp_path,
        f"pathPolicy.mode={mode}",
        f"{decode}.kvCache={16 * block}",
        f"{decode}.dramBuffer={20 * block}",
        f"prefill.resources.dramBuffer={20 * block}",
    ) as cluster:
        conversations(cluster, reference, "small", 12, 3, 40)
        assert metric(cluster, "decode-0-0", "dualpath_kv_blocks_total", pool="cache") == 16


@pytest.mark.parametrize("block", [16, 128])
def test_other_block_sizes(tmp_path: Path, reference: object, block: int) -> None:
    with running(tmp_path, f"kv.blockTokens={block}", "pathPolicy.mode=Split") as cluster:
        conversations(cluster, reference, f"blocks of {block}", 4, 3, 20)
        context = fresh(3 * block + 1, ("whole", block))
        check(cluster, reference, cached_checkpoint("qwen3"), context, 2)
        assert complete(cluster, context, 2).cached == 3 * block


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    """Two engines a side, to be killed."""
    replicas = [f"{role}.scaling.replicas=2" for role in ("prefill", "decode")]
    with running(tmp_path_factory.mktemp("pairs"), "pathPolicy.mode=Split", *replicas) as cluster:
        yield cluster


@contextmanager
def load(cluster: Embedded, reference: object, name: str, clients: int = 4) -> Iterator[None]:
    """Conversations that go on until the block ends; their tokens must be right."""
    over, failures = threading.Event(), []

    def client(number: int) -> None:
        try:
            turn = 0
            while not over.is_set():
                turn += 1
                prompt = [*fresh(130, (name, number)), *fresh(40, (name, number, turn))]
                check(cluster, reference, cached_checkpoint("qwen3"), prompt, 30)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join(timeout=200)
    assert not failures


def test_engines_killed_one_after_the_other(pairs: Embedded, reference: object) -> None:
    wait_for(lambda: whole(pairs), "all engines are up", 120)
    with load(pairs, reference, "killed"):
        for victim in ("prefill-0-0", "decode-0-0", "prefill-1-0", "decode-1-0"):
            pid = pairs.pids[victim]
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda v=victim, p=pid: pairs.pids.get(v) not in (None, p), f"{victim} is replaced", 120)
            wait_for(lambda: whole(pairs), "all engines are up", 120)
    wait_for(lambda: blocks_used(pairs) == 0, "all blocks are free again")


@pytest.mark.parametrize("victim", ["prefill-0-0", "decode-0-0"])
def test_an_engine_stopped_in_the_middle_of_its_work(pairs: Embedded, reference: object, victim: str) -> None:
    """Declared dead, then back with what it had under way: nobody uses that, and nothing stays in quarantine."""
    wait_for(lambda: whole(pairs), "all engines are up", 120)
    process = psutil.Process(pairs.pids[victim])
    with load(pairs, reference, f"stopped {victim}"):
        wait_for(lambda: in_flight(pairs, victim), f"{victim} works")
        process.suspend()
        try:
            wait_for(lambda: not known(pairs, victim), f"{victim} is out of rotation")
        finally:
            process.resume()
        wait_for(lambda: whole(pairs), f"{victim} is back", 120)
    wait_for(lambda: blocks_used(pairs) == 0, "quarantine has drained")


def in_flight(cluster: Embedded, name: str) -> int:
    """Unfinished requests of an engine."""
    engines = call(cluster.url("/control/v1/report"))["engines"]
    return sum(engine["inFlight"] for engine in engines if engine["id"] == name)


def known(cluster: Embedded, name: str) -> bool:
    """Whether an engine is registered and takes requests."""
    engines = call(cluster.url("/control/v1/report"))["engines"]
    return any(engine["id"] == name and engine["acceptNew"] for engine in engines)


def stream(cluster: Embedded, prompt: Sequence[int], count: int, started: threading.Event) -> list[int]:
    """A streamed completion's tokens; `started` is set with the first one."""
    body = {"model": "tiny", "prompt": list(prompt), "max_tokens": count, "temperature": 0, "stream": True}
    body |= {"ignore_eos": True, "return_token_ids": True}
    data = json.dumps(body).encode()
    request = urllib.request.Request(f"{cluster.openai}/completions", data)
    request.add_header("Content-Type", "application/json")
    tokens: list[int] = []
    with urllib.request.urlopen(request, timeout=120) as answer:
        for line in answer:
            if line.startswith(b"data: {"):
                for choice in json.loads(line[6:])["choices"]:
                    tokens += choice["token_ids"]
                    started.set()
    return tokens


def test_a_gateway_killed_during_streams(pairs: Embedded, reference: object) -> None:
    """Streams break off, with right tokens so far; the engines drop the work and serve the next gateway."""
    wait_for(lambda: whole(pairs), "all engines are up", 120)
    gateway, started = pairs.pids["gateway"], threading.Event()

    def client(number: int) -> None:
        try:
            stream(pairs, fresh(200, ("gateway", number)), 1500, started)
        except (urllib.error.URLError, HTTPException, OSError):
            return

    with ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(client, number) for number in range(4)]
        assert started.wait(60)
        os.kill(gateway, signal.SIGKILL)
        for done in clients:
            done.result(timeout=60)
    wait_for(lambda: pairs.pids.get("gateway") not in (None, gateway), "a new gateway", 60)
    wait_for(lambda: whole(pairs), "the engines have registered again", 120)
    wait_for(lambda: blocks_used(pairs) == 0, "all blocks are free again")
    wait_ready(pairs)
    check(pairs, reference, cached_checkpoint("qwen3"), fresh(300, "after the gateway"), 8)


def test_a_stop_lets_running_requests_finish(tmp_path: Path, reference: object) -> None:
    with running(tmp_path) as cluster, ThreadPoolExecutor(3) as pool:
        started = [threading.Event() for _ in range(3)]
        prompts = [fresh(100, ("stop", number)) for number in range(3)]
        streams = [
            pool.submit(stream, cluster, prompt, 300, event)
            for prompt, event in zip(prompts, started, strict=True)
        ]
        for event in started:
            assert event.wait(60)
        assert cluster.stop() == 0
        for prompt, tokens in zip(prompts, streams, strict=True):
            assert callable(reference)
            assert tokens.result(timeout=30) == reference(cached_checkpoint("qwen3"), prompt, 300)
