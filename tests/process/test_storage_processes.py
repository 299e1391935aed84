"""The `files` store under several processes, kill -9, and a full disk."""

import json
import os
import random
import select
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from process.storage_worker import KEYS, LAYOUT, SIZE, block_of, check, key_of

from dualpath_worker.storage import FilesStore, ReadResult
from dualpath_worker.storage.evict import TRUST_BLOCKS
from dualpath_worker.storage.usage import footprint

WORKER = Path(__file__).with_name("storage_worker.py")
PATIENCE_S = 60
ROOMY = 1 << 30


def start(verb, root, limit, *rest, node=""):
    command = [sys.executable, WORKER, verb, root, limit, *rest]
    environment = {**os.environ, "STORE_NODE": node}
    process = subprocess.Popen(
        [str(part) for part in command], stdout=subprocess.PIPE, text=True, env=environment
    )
    if verb == "write":
        readable, _, _ = select.select([process.stdout], [], [], PATIENCE_S)
        assert readable
        assert process.stdout.readline() == "ready\n"
    return process


def result_of(process):
    output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, output
    return Counter(json.loads(output))


def block_files(root):
    return [path for path in (root / "blocks").rglob("*") if path.is_file()]


def test_processes_share_a_store_and_keep_it_below_its_limit(tmp_path):
    limit = 20 * footprint(SIZE + 4096)
    workers = [start("write", tmp_path, limit, seed, 250) for seed in range(3)]
    counts = sum((result_of(worker) for worker in workers), Counter())
    assert counts["read corrupt"] == counts["read error"] == counts["write error"] == 0
    assert counts["read hit"] > 0
    assert counts["write written"] > 20
    files = block_files(tmp_path)
    assert sum(footprint(path.stat().st_size) for path in files) <= limit
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.parametrize("nodes", [("a", "b", "c"), ("lockless",) * 3], ids=["locks-of-a-node", "no-locks"])
def test_nodes_that_do_not_see_each_other_s_locks_share_a_store(tmp_path, nodes):
    """Its size may be missed by what they write between two looks, and by no more."""
    size = footprint(SIZE + 4096)
    limit = 2 * TRUST_BLOCKS * size // 3
    workers = [start("write", tmp_path, limit, seed, 400, node=node) for seed, node in enumerate(nodes)]
    counts = sum((result_of(worker) for worker in workers), Counter())
    assert counts["read corrupt"] == counts["read error"] == counts["write error"] == 0
    assert counts["read hit"] > 0
    assert counts["write written"] > 100
    files = block_files(tmp_path)
    assert sum(footprint(path.stat().st_size) for path in files) <= limit + len(nodes) * TRUST_BLOCKS * size
    assert list((tmp_path / "scratch").iterdir()) == []


def test_the_clock_of_another_node_may_be_an_hour_off(tmp_path):
    limit = 8 * footprint(SIZE + 4096)
    store = FilesStore(tmp_path, limit, LAYOUT)
    for number in range(6):
        assert store.write_full(key_of(number), [block_of(number)]).ok
    for path in block_files(tmp_path)[:3]:
        ahead = path.stat().st_mtime + 3600
        os.utime(path, (ahead, ahead))
    counts = Counter()
    for number in range(30):
        assert store.write_full(key_of(number), [block_of(number)]).ok
        check(store, number, counts)
    assert counts["read corrupt"] == counts["read error"] == counts["read miss"] == 0
    assert store.stats().used_bytes <= limit
    store.close()


def test_a_process_killed_at_any_instant_leaves_no_torn_block(tmp_path):
    draw = random.Random(7)
    for seed in range(6):
        victim = start("write", tmp_path, ROOMY, seed, 0)
        written = len(block_files(tmp_path))
        while len(block_files(tmp_path)) < min(written + 1 + draw.randrange(8), KEYS // 2):
            assert victim.poll() is None
        victim.kill()
        victim.communicate()
    store = FilesStore(tmp_path, ROOMY, LAYOUT)
    counts = Counter()
    for number in range(KEYS):
        check(store, number, counts)
    assert counts["read corrupt"] == counts["read error"] == 0
    assert counts["read hit"] == len(block_files(tmp_path)) > 0
    store._evictor.recount()
    assert store.stats().used_bytes == sum(footprint(p.stat().st_size) for p in block_files(tmp_path))
    store._places.sweep_scratch()
    assert len(list((tmp_path / "scratch").glob("*.lock"))) == 1
    store.close()


def on_a_small_disk(verb, root):
    """Run the worker on a file system of 8 MiB that only it can see."""
    inside = f"mount -t tmpfs -o size=8m tmpfs {root} && exec {sys.executable} {WORKER} {verb} {root} {ROOMY}"
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", inside]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr
    return Counter(json.loads(done.stdout))


def test_a_full_disk_refuses_blocks_and_takes_them_again_when_there_is_room(tmp_path):
    counts = on_a_small_disk("fill", tmp_path)
    assert counts["squeezed full"] == 10
    assert counts["full"] == 1
    assert counts["roomy written"] > 30
    assert counts["read hit"] == counts["roomy written"]
    assert counts["roomy error"] == counts["squeezed error"] == 0


def test_a_store_opens_on_a_full_disk(tmp_path):
    counts = on_a_small_disk("start", tmp_path)
    assert counts == {"squeezed full": 1, "roomy written": 1, "read hit": 1}


def test_blocks_survive_the_processes_that_wrote_them(tmp_path):
    result_of(start("write", tmp_path, ROOMY, 1, 40))
    store = FilesStore(tmp_path, ROOMY, LAYOUT)
    present = [number for number in range(KEYS) if store.match_prefix([key_of(number)])]
    buffer = memoryview(bytearray(SIZE))
    for number in present:
        assert store.read_full([key_of(number)], [buffer]) == [ReadResult.HIT]
        assert buffer == block_of(number)
    assert len(present) == len(block_files(tmp_path)) > 10
    store.close()
