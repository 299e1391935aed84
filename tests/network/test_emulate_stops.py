"""However and whenever an emulation is told to stop, nothing of it stays."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from checkpoints import cached_checkpoint
from test_emulate_serves import FILE
from test_network_life import traces

from dualpath_cli.emulation import places
from dualpath_cli.emulation.system import FILES_WARNING

COMMAND = [sys.executable, "-m", "dualpath_cli", "emulate"]
FILES = "storage: {kind: files}"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """1P1D on a directory."""
    found = tmp_path / "emulated.yaml"
    store = f"storage: {{files: {{path: {tmp_path}/kv, size: 64Mi}}}}"
    text = FILE.replace("storage: {kind: mooncake, nodes: 1, size: 128Mi}", FILES)
    found.write_text(text + f"      {store}\n")
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_it_starts_ends_all_of_it(file, number):
    name = f"test-{os.getpid()}-stops"
    options = ["-f", file, "--model", cached_checkpoint("qwen3"), "--name", name, "--json"]
    with subprocess.Popen([*COMMAND, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert json.loads(process.stdout.readline())["event"] == "started"
        assert len(traces(name)) == 5
        process.send_signal(number)
        told, errors = process.communicate(timeout=60)
    assert json.loads(told.splitlines()[-1]) == {"event": "stopped", "code": 0}
    assert process.returncode == 0
    assert b"cross no emulated NIC" in errors
    assert traces(name) == []


def test_a_terminal_gets_a_table_and_the_log_goes_to_a_file(file):
    name = f"test-{os.getpid()}-table"
    mine, theirs = pty.openpty()
    with os.fdopen(mine, "rb", buffering=0) as screen:
        options = ["-f", file, "--model", cached_checkpoint("qwen3"), "--name", name]
        with subprocess.Popen([*COMMAND, *options], stdout=theirs, stderr=subprocess.PIPE) as process:
            os.close(theirs)
            seen = b""
            while b"waiting for" not in seen:
                seen += screen.read(4096)
            assert b"p0.snic0" in seen
            assert b"200mbit" in seen
            assert "gateway started" in (places.ROOT / name / "log").read_text()
            process.send_signal(signal.SIGINT)
            drained = threading.Thread(target=_drain, args=(screen,))
            drained.start()
            assert process.wait(60) == 0
            drained.join()
            assert process.stderr.read().splitlines() == [f"warning: {FILES_WARNING}".encode()]
    assert traces(name) == []


def _drain(screen) -> None:
    """Until the other end of the terminal is closed."""
    with contextlib.suppress(OSError):
        while screen.read(4096):
            pass


def test_a_bad_name_is_refused(file):
    done = subprocess.run(
        [*COMMAND, "-f", file, "--name", "Bad Name"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "metadata.name is 'Bad Name'" in done.stderr


def test_who_is_not_root_is_told_so(file):
    done = subprocess.run(
        ["unshare", "--user", *COMMAND, "-f", file], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "need root" in done.stderr
    assert "Traceback" not in done.stderr
