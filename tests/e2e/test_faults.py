"""Killed and stopped processes, damaged blocks: no wrong token, nothing leaked, service goes on."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkpoints import cached_checkpoint
from client import BLOCK, blocks_used, call, complete, fresh, metric, tune, wait_for, whole
from conversations import check
from specs import write_spec

from dualpath_cli.embedded import Embedded, embedded


@pytest.fixture(scope="module")
def fragile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    """A cluster of its own, with two engines a side, whose processes the tests kill."""
    spec = write_spec(tmp_path_factory.mktemp("fragile"), cached_checkpoint("qwen3"))
    overrides = [
        "spec.prefill.scaling.replicas=2",
        "spec.decode.scaling.replicas=2",
        "spec.pathPolicy.mode=Split",
    ]
    with embedded(spec, overrides=overrides) as running:
        yield running


@pytest.mark.parametrize("role", ["prefill", "decode"])
def test_a_killed_engine_costs_no_token(fragile: Embedded, reference: object, role: str) -> None:
    model = cached_checkpoint("qwen3")
    wait_for(lambda: whole(fragile), "all engines are up", 120)
    victim = f"{role}-0-0"
    pid = fragile.pids[victim]
    failures: list[BaseException] = []

    def client(number: int) -> None:
        try:
            context = fresh(2 * BLOCK, ("kill", role, number))
            for turn in range(3):
                context += fresh(40, (number, turn))
                context += check(fragile, reference, model, context, 40).tokens
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    wait_for(lambda: serving_on(fragile, victim), f"{victim} works on a request")
    os.kill(pid, signal.SIGKILL)
    for thread in threads:
        thread.join(timeout=200)
    assert not failures
    wait_for(lambda: fragile.pids.get(victim) not in (None, pid), "the supervisor has replaced it", 120)
    wait_for(lambda: whole(fragile), "the new engine takes requests", 120)
    wait_for(lambda: blocks_used(fragile) == 0, "all blocks are free again")


def serving_on(cluster: Embedded, engine: str) -> bool:
    """Whether an engine has unfinished requests."""
    report = call(cluster.url("/control/v1/report"))
    return any(one["id"] == engine and one["inFlight"] > 0 for one in report["engines"])


def test_a_killed_gateway_comes_back_with_all_engines(fragile: Embedded, reference: object) -> None:
    wait_for(lambda: whole(fragile), "all engines are up", 120)
    engines = {name: pid for name, pid in fragile.pids.items() if name != "gateway"}
    gateway = fragile.pids["gateway"]
    os.kill(gateway, signal.SIGKILL)
    wait_for(lambda: fragile.pids.get("gateway") not in (None, gateway), "a new gateway", 60)
    wait_for(lambda: whole(fragile), "the engines have registered again", 120)
    assert {name: pid for name, pid in fragile.pids.items() if name != "gateway"} == engines
    check(fragile, reference, cached_checkpoint("qwen3"), fresh(3 * BLOCK, "after the gateway died"))


@pytest.mark.parametrize("role", ["prefill", "decode"])
def test_a_stopped_engine_is_passed_over_and_comes_back(
    fragile: Embedded, reference: object, role: str
) -> None:
    model = cached_checkpoint("qwen3")
    wait_for(lambda: whole(fragile), "all engines are up", 120)
    context = fresh(8 * BLOCK, ("stop", role))
    check(fragile, reference, model, context, 2)
    pid = fragile.pids[f"{role}-1-0"]
    os.kill(pid, signal.SIGSTOP)
    try:
        for number in range(4):
            check(fragile, reference, model, context + fresh(20, number), 4)
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_for(lambda: whole(fragile), "the engine is back", 120)
    wait_for(lambda: blocks_used(fragile) == 0, "quarantine has drained")


def blocks_of(directory: Path) -> list[Path]:
    """Full Block files of a store, newest last."""
    files = [path for path in directory.rglob("*") if path.is_file() and len(path.stem) == 64]
    return sorted(files, key=lambda path: path.stat().st_mtime_ns)


DAMAGE = {
    "a flipped byte": lambda data: data[:1000] + bytes([data[1000] ^ 1]) + data[1001:],
    "truncated": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
}


@pytest.mark.parametrize("damage", [*DAMAGE, "another block's content"])
@pytest.mark.parametrize("mode", ["PrefillOnly", "DecodeOnly", "Split"])
def test_a_damaged_block_is_a_miss(
    damage: str, mode: str, damaged: tuple[Embedded, Path], reference: object
) -> None:
    cluster, store = damaged
    model = cached_checkpoint("qwen3")
    tune(cluster, pathPolicy=mode)
    known = set(blocks_of(store))
    context = fresh(6 * BLOCK, (damage, mode))
    check(cluster, reference, model, context, 2)
    wait_for(lambda: len(set(blocks_of(store)) - known) == 6, "six blocks are stored")
    victim, other = [path for path in blocks_of(store) if path not in known][2:4]
    content = other.read_bytes() if damage not in DAMAGE else DAMAGE[damage](victim.read_bytes())
    victim.write_bytes(content)
    answer = check(cluster, reference, model, context + fresh(5, damage), 2)
    assert answer.cached < 6 * BLOCK
    wait_for(lambda: victim.exists() and victim.read_bytes() != content, "the block is written anew")
    assert check(cluster, reference, model, context + fresh(6, damage), 2).cached == 6 * BLOCK
    assert metric(cluster, "prefill-0-0", "dualpath_kv_blocks_quarantined") == 0


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Embedded, Path]]:
    """A cluster whose store the tests damage."""
    directory = tmp_path_factory.mktemp("damaged")
    with embedded(write_spec(directory, cached_checkpoint("qwen3"))) as running:
        yield running, directory / "kv"


def test_a_full_disk_stops_storing_and_nothing_else(tmp_path: Path, reference: object) -> None:
    """8 MB of tmpfs as the store; with room again, storing resumes."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    os.system(f"mount -t tmpfs -o size=8m tmpfs {disk}")
    try:
        model = cached_checkpoint("qwen3")
        spec = write_spec(tmp_path, model)
        override = f"spec.storage.files.path={disk}/kv"
        with embedded(spec, overrides=[override]) as cluster:
            filler = disk / "filler"
            filler.write_bytes(bytes(6 << 20))
            for number in range(6):
                check(cluster, reference, model, fresh(20 * BLOCK, ("full", number)), 2)
            assert metric(cluster, "decode-0-0", "dualpath_storage_errors_total") > 0
            filler.unlink()
            context = fresh(4 * BLOCK, "room again")
            check(cluster, reference, model, context, 2)
            assert complete(cluster, context, 2).cached == 4 * BLOCK - 1
    finally:
        os.system(f"umount {disk}")
