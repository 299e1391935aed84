"""A test run with real nodes that is killed: nothing of it runs on, and the next one removes the rest."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import node_network
import real_nodes
from waiting import until


def test_a_killed_run_leaves_no_process_and_the_next_one_removes_the_rest(tmp_path: Path) -> None:
    program = (
        "import os, pathlib, real_nodes\n"
        f"real_nodes.RealNodes(pathlib.Path({str(tmp_path)!r})).__enter__()\n"
        "os.kill(os.getpid(), 9)\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    killed = subprocess.run([sys.executable, "-c", program], check=False, env=env)
    assert killed.returncode == -signal.SIGKILL
    until(lambda: not node_network.processes_of(0), 30)
    assert real_nodes.left()
    real_nodes.clean()
    assert real_nodes.left() == []
