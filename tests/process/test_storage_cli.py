"""`dualpath storage`: a store with its etcd is run, looked at and emptied node by node."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys

import kube_tools
import pytest
from process.store_bed import IMPATIENT, LAYOUT, block_of, key_of, read
from process.store_client import ask
from processes import Process
from waiting import until

from dualpath_worker.storage import ReadResult, WriteResult
from dualpath_worker.storage.mooncake import MooncakeStore
from dualpath_worker.storage.mooncake_client import TCP
from dualpath_worker.storage.mooncake_link import StoreLink

NAMES = [str(number) for number in range(24)]


def free_range(count):
    """First of `count` neighbouring ports that are free now."""
    for first in range(20000, 30000, count):
        with contextlib.suppress(OSError), contextlib.ExitStack() as held:
            for port in range(first, first + count):
                held.enter_context(socket.create_server(("127.0.0.1", port)))
            return first
    raise AssertionError("no free ports")


def dualpath(*arguments):
    command = [sys.executable, "-m", "dualpath_cli", "storage", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def run_up(tmp_path):
    """Starts `dualpath storage up`; tells what its ready file says."""
    started = []

    def run(*arguments):
        ready, first = tmp_path / "ready.json", free_range(10)
        ports = ("--port", str(first), "--metrics-port", str(first + 5), "--ready-file", str(ready))
        command = [
            sys.executable,
            "-m",
            "dualpath_cli",
            "storage",
            "up",
            "--size",
            "64Mi",
            *ports,
            *arguments,
        ]
        started.append(Process("up", command, tmp_path / "up.log"))
        until(lambda: started[-1].running() and ready.exists(), 90, what="the store serves")
        return started[-1], json.loads(ready.read_text())

    yield run
    for process in started:
        process.stop(60)


@pytest.fixture
def open_store():
    opened = []

    def opener(endpoint, copies=1):
        link = StoreLink((endpoint,), TCP, copies=copies)
        assert link.wait(60)
        opened.append(MooncakeStore(link, LAYOUT, patience=IMPATIENT))
        return opened[-1]

    yield opener
    for store in opened:
        store.close()


def all_right(store):
    return all(read(store, key_of(name))[0] is ReadResult.HIT for name in NAMES)


def test_a_store_is_run_looked_at_and_a_node_of_it_emptied(run_up, open_store):
    up, ready = run_up("--nodes", "2")
    assert ready["pids"].keys() == {"master-0", "node-0", "node-1"}
    (master,) = ready["masters"]
    store = open_store(ready["endpoint"])
    assert {store.write_full(key_of(name), [block_of(name)]) for name in NAMES} == {WriteResult.WRITTEN}
    told = json.loads(dualpath("status", "--master", master, "--json").stdout)
    assert (told["serving"], told["keys"], told["masters"][0]["role"]) == (True, len(NAMES), "leader")
    assert told["sizeBytes"] == 2 * (64 << 20)
    assert told["usedBytes"] >= len(NAMES) * LAYOUT.full_block_bytes
    shown = dualpath("status", "--master", master)
    assert all(node["name"] in shown.stdout for node in told["nodes"])

    node = told["nodes"][0]
    done = dualpath("drain", node["name"], "--master", master)
    assert done.returncode == 0, done.stderr
    assert "; 0 are left" in done.stdout
    names = {store._name(key_of(name)) for name in NAMES}
    holders = store._link.client.holders(sorted(names))
    assert {address for held in holders.values() for address in held} == {told["nodes"][1]["address"]}
    assert all_right(store)

    alone = dualpath("drain", "nobody", "--master", master)
    assert (alone.returncode, "cannot be moved" in alone.stderr) == (2, True)
    os.kill(ready["pids"]["node-0"], signal.SIGKILL)
    os.kill(ready["pids"]["node-1"], signal.SIGKILL)
    until(lambda: store.write_full(key_of("new"), [block_of("new")]).ok, 60, what="nodes are replaced")
    assert up.stop(60) == 0
    gone = dualpath("status", "--master", master)
    assert (gone.returncode, "no master of a store answers" in gone.stderr) == (2, True)


def test_with_an_etcd_a_second_master_takes_over(run_up, tmp_path):
    etcd = str(kube_tools.path("etcd"))
    _, ready = run_up("--nodes", "1", "--etcd", etcd, "--path", str(tmp_path / "data"))
    masters = [word for master in ready["masters"] for word in ("--master", master)]
    assert ask(ready["endpoint"], 1, "write", NAMES) == {"written": len(NAMES)}
    roles = {
        one["role"]: one["address"]
        for one in json.loads(dualpath("status", *masters, "--json").stdout)["masters"]
    }
    assert roles.keys() == {"leader", "standby"}
    leader = ready["masters"].index(roles["leader"])
    os.kill(ready["pids"][f"master-{leader}"], signal.SIGKILL)
    until(
        lambda: ask(ready["endpoint"], 1, "read", NAMES) == {"hit": len(NAMES)}, 90, what="blocks as before"
    )


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["up", "--medium", "NVMe"], "medium NVMe needs a directory"),
        (["up", "--size", "much"], "--size much is no size"),
        (["up", "--size", "1Ki"], "a node keeps at least 16Mi"),
        (["up", "--ready-file", "/missing/x"], "cannot be written"),
        (["drain", "x", "--master", "127.0.0.1:1"], "leads a store"),
        (["status", "--master", "127.0.0.1:port"], "no master of a store answers"),
    ],
)
def test_what_cannot_be_done_is_said(arguments, complaint):
    done = dualpath(*arguments)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr
