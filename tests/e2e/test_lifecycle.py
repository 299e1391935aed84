"""Start, stop, restart: what a service manager relies on."""

from __future__ import annotations

import signal
from pathlib import Path

import psutil
from checkpoints import cached_checkpoint
from client import BLOCK, complete, fresh, wait_for
from specs import write_spec

from dualpath_cli.embedded import embedded


def test_the_cache_survives_a_restart_and_nothing_else_does(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, cached_checkpoint("qwen3"))
    context = fresh(5 * BLOCK + 3, "restart")
    with embedded(spec) as cluster:
        first = complete(cluster, context, 8)
        children = [psutil.Process(pid) for pid in cluster.pids.values()]
        assert {child.is_running() for child in children} == {True}
        assert cluster.stop() == 0
        assert not any(child.is_running() for child in children)
    with embedded(spec) as cluster:
        again = complete(cluster, context, 8)
        assert (again.tokens, again.cached) == (first.tokens, 5 * BLOCK)


def test_no_orphan_survives_a_killed_supervisor(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, cached_checkpoint("qwen3"))
    with embedded(spec) as cluster:
        children = [psutil.Process(pid) for pid in cluster.pids.values()]
        cluster.process.send_signal(signal.SIGKILL)
        wait_for(lambda: not any(alive(child) for child in children), "all children have ended", 30)


def alive(process: psutil.Process) -> bool:
    """Running, and not a zombie that nobody has waited for."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
