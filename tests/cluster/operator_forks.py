"""Operators by fork: the imports are paid for once, so that a test may start and kill dozens of them.

A forked operator runs the same `main` with a settings file, an environment, signals and an exit code of its own.
As a program this file is the parent of them all: a JSON line in, a JSON line out.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

PR_SET_PDEATHSIG = 1


class Forks:
    """The parent process of operators; may be used from several threads."""

    def __init__(self, log: Path) -> None:
        self._lock = threading.Lock()
        with log.open("ab") as sink:
            self._popen = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", sys.executable, "-P", __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=sink,
                text=True,
            )

    def fork(self, config: Path, log: Path, env: Mapping[str, str]) -> int:
        """Start an operator; its process id."""
        return int(self._ask({"config": str(config), "log": str(log), "env": dict(env)}))

    def exit_code(self, pid: int) -> int | None:
        """None while it runs; negative for a signal."""
        code = self._ask({"pid": pid})
        return None if code is None else int(code)

    def close(self) -> None:
        """End the parent, and with it all that it has started."""
        self._popen.kill()
        self._popen.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _ask(self, question: Mapping[str, Any]) -> Any:
        with self._lock:
            assert self._popen.stdin
            assert self._popen.stdout
            self._popen.stdin.write(json.dumps(question) + "\n")
            self._popen.stdin.flush()
            return json.loads(self._popen.stdout.readline())


def serve() -> None:
    """Answer questions until stdin ends."""
    from dualpath_operator.__main__ import main

    gc.freeze()
    codes: dict[int, int] = {}
    for line in sys.stdin:
        question = json.loads(line)
        if "pid" in question:
            answer = _code(question["pid"], codes)
        elif (answer := os.fork()) == 0:
            _become(question)
            os._exit(main(["--config", question["config"]]))
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _code(pid: int, codes: dict[int, int]) -> int | None:
    if pid not in codes:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            codes[pid] = os.waitstatus_to_exitcode(status)
    return codes.get(pid)


def _become(question: Mapping[str, Any]) -> None:
    """A process of its own: it ends with its parent, logs to its file, and has its environment."""
    from kubernetes.aio.config import kube_config

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.setsid()
    log = os.open(question["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.environ.update(question["env"])
    # the client read the variable when it was imported
    kube_config.KUBE_CONFIG_DEFAULT_LOCATION = question["env"]["KUBECONFIG"]


if __name__ == "__main__":
    serve()
