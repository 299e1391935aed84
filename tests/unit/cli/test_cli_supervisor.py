"""The supervisor over real processes that stand in for gateway and engines."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

STANDIN = Path(__file__).with_name("standin")
EXAMPLE = Path(__file__).parents[3] / "examples" / "local.yaml"
NAMES = ["decode-0-0", "gateway", "prefill-0-0"]


class Up:
    """A running supervisor: its events, its ready file, its log."""

    def __init__(self, folder: Path, form: str, **behaviour: str) -> None:
        self.ready_file, self.log = folder / "ready.json", folder / "log"
        (folder / "run").mkdir()
        environment = {**os.environ, "PYTHONPATH": str(STANDIN)}
        environment |= {f"STANDIN_{role}": how for role, how in behaviour.items()}
        script = str(STANDIN / "standin_up.py")
        with self.log.open("wb") as sink:
            self.process = subprocess.Popen(
                [sys.executable, script, str(EXAMPLE), str(folder / "run"), str(self.ready_file), form],
                stdout=subprocess.PIPE,
                stderr=sink,
                text=True,
                env=environment,
            )
        self.pids: dict[str, int] = {}

    def event(self, name: str) -> dict[str, object]:
        """The next event of this name."""
        for line in self.process.stdout:
            found = json.loads(line)
            if found["event"] == "started":
                self.pids[found["process"]] = found["pid"]
            if found["event"] == name:
                return found
        raise AssertionError(f"no event {name}; the log:\n{self.log.read_text()}")

    def ready(self) -> dict[str, dict[str, object]]:
        return json.loads(self.ready_file.read_text())

    def end(self, number: signal.Signals | None = None) -> int:
        """The exit code, after an optional signal; no process may be left."""
        handles = [os.pidfd_open(pid) for pid in [*self.pids.values(), self.process.pid] if _alive(pid)]
        if number is not None:
            self.process.send_signal(number)
        self.process.stdout.read()
        code = self.process.wait()
        for handle in handles:
            assert select.select([handle], [], [], 10)[0], "a process outlived its supervisor"
            os.close(handle)
        return code


def _alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


@pytest.fixture
def up(tmp_path):
    running: list[Up] = []

    def start(form: str = "text", **behaviour: str) -> Up:
        running.append(Up(tmp_path, form, **behaviour))
        return running[-1]

    yield start
    for each in running:
        if each.process.poll() is None:
            each.process.kill()
        each.process.stdout.close()
        each.process.wait()


def test_it_starts_everything_says_where_and_stops_in_order(up):
    run = up()
    ready = run.event("ready")
    url = ready["openai"]
    port = int(url.removeprefix("http://127.0.0.1:").removesuffix("/v1"))
    assert run.ready() == {
        "openai": url,
        "metrics": {
            "decode-0-0": "http://127.0.0.1:1/decode",
            "gateway": f"http://127.0.0.1:{port}/metrics",
            "prefill-0-0": "http://127.0.0.1:1/prefill",
        },
        "pids": run.pids,
    }
    assert sorted(run.pids) == NAMES
    assert run.end(signal.SIGTERM) == 0
    assert not run.ready_file.exists()
    log = run.log.read_text()
    assert "gateway       | listening on" in log
    assert "drain 7.0" in log
    assert f"prefill-0-0   | scheduler is ws://127.0.0.1:{port}/engines" in log
    assert log.index("gateway drained") < log.index("last words without a line end")
    assert log.endswith("\n")


def test_ctrl_c_stops_it_too(up):
    run = up()
    run.event("ready")
    assert run.end(signal.SIGINT) == 0


def test_a_dead_engine_is_replaced_and_the_ready_file_follows(up):
    run = up()
    run.event("ready")
    old = dict(run.pids)
    os.kill(old["decode-0-0"], signal.SIGKILL)
    ended = run.event("ended")
    assert ended["process"] == "decode-0-0"
    assert "SIGKILL" in ended["reason"]
    assert run.event("process-ready")["process"] == "decode-0-0"
    assert run.pids["decode-0-0"] != old["decode-0-0"]
    assert run.ready()["pids"] == run.pids
    assert run.end(signal.SIGTERM) == 0
    assert "decode-0-0 was ended by SIGKILL" in run.log.read_text()


def test_what_a_dead_engine_had_started_does_not_survive(up):
    run = up(PREFILL="parent")
    run.event("ready")
    with run.log.open() as log:
        while "grandchild" not in (line := log.readline()):
            pass
    run.pids["grandchild"] = grandchild = int(line.split()[-1])
    handle = os.pidfd_open(grandchild)
    os.kill(run.pids["prefill-0-0"], signal.SIGKILL)
    assert select.select([handle], [], [], 10)[0]
    os.close(handle)
    run.event("process-ready")
    assert run.end(signal.SIGTERM) == 0


def test_a_dead_gateway_comes_back_at_the_same_address(up):
    run = up()
    before = run.event("ready")
    os.kill(run.pids["gateway"], signal.SIGKILL)
    run.event("process-ready")
    assert run.ready()["openai"] == before["openai"]
    assert run.end(signal.SIGTERM) == 0


def test_a_refused_configuration_stops_everything_with_its_message(up):
    run = up(PREFILL="refuse")
    assert run.event("gave-up")["process"] == "prefill-0-0"
    assert run.end() == 2
    log = run.log.read_text()
    assert "prefill-0-0   | error: this model is not acceptable" in log
    assert log.count("prefill-0-0 started") == 1
    assert not run.ready_file.exists()


def test_when_the_supervisor_is_killed_nothing_survives(up):
    run = up()
    run.event("ready")
    run.end(signal.SIGKILL)


def test_a_second_signal_ends_a_process_that_does_not_listen(up):
    run = up(DECODE="deaf")
    run.event("ready")
    run.process.send_signal(signal.SIGTERM)
    run.event("stopping")
    assert run.end(signal.SIGTERM) == 128 + signal.SIGTERM


def test_a_stop_while_starting_is_a_stop(up):
    run = up()
    run.event("started")
    assert run.end(signal.SIGTERM) == 0


def test_logs_as_json_are_json_line_by_line(up):
    run = up("json")
    run.event("ready")
    assert run.end(signal.SIGTERM) == 0
    lines = [json.loads(line) for line in run.log.read_text().splitlines()]
    assert {line["process"] for line in lines} == {*NAMES, "supervisor"}
