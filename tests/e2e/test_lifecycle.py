"""Start, stop, restart: what a service manager relies on."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import psutil
import pytest
from checkpoints import cached_checkpoint
from client import BLOCK, call, complete, fresh, wait_for
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


def test_with_a_token_the_engines_register_and_strangers_are_refused(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret\n")
    spec = write_spec(tmp_path, cached_checkpoint("qwen3"))
    with embedded(spec, environment={"DUALPATH_CONTROL_TOKEN_FILE": str(token)}) as cluster:
        complete(cluster, fresh(10, "token"), 2)
        with pytest.raises(HTTPError, match="401"):
            call(cluster.url("/control/v1/report"))
        request = Request(cluster.url("/control/v1/report"), headers={"Authorization": "Bearer secret"})
        with urlopen(request, timeout=10) as answer:
            assert len(json.load(answer)["engines"]) == 2
