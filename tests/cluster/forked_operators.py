"""One operator of a test, forked from a process that has imported it already."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Self

import urllib3
import yaml
from kube_api import Object
from operator_forks import Forks
from operator_process import merged
from processes import free_ports
from waiting import until


class Operator:
    """A forked operator. Its identity outlives it, as that of a container that restarts in its Pod."""

    def __init__(self, forks: Forks, folder: Path, kubeconfig: Path, settings: Object, name: str) -> None:
        (self.http_port,) = free_ports(1)
        http = {"host": "127.0.0.1", "port": self.http_port}
        self.file, self.log = folder / f"{name}.yaml", folder / f"{name}.log"
        self.file.write_text(yaml.safe_dump(merged({"http": http}, settings)))
        self.name, self.pid = name, 0
        self._forks = forks
        self._env = {"KUBECONFIG": str(kubeconfig), "POD_NAME": name}

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative for a signal."""
        return self._forks.exit_code(self.pid) if self.pid else 0

    def start(self) -> Self:
        """Start it, or start it again; it goes on in the same log."""
        self.pid = self._forks.fork(self.file, self.log, self._env)
        return self

    def running(self) -> bool:
        """Raise, with the end of its log, when it has gone."""
        if (code := self.exit_code) is not None:
            raise RuntimeError(f"{self.name} ended with {code}:\n{self.log.read_text()[-4000:]}")
        return True

    @property
    def leads(self) -> bool:
        """Whether it says that it acts."""
        try:
            answer = urllib3.request(
                "GET", f"http://127.0.0.1:{self.http_port}/metrics", timeout=5, retries=False
            )
        except urllib3.exceptions.HTTPError:
            return False
        return b"\ndualpath_operator_leader 1.0\n" in answer.data

    def send(self, number: int) -> None:
        """Send it a signal if it still runs."""
        if self.exit_code is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def ended(self, within: float = 30.0) -> int:
        """Wait for its end; the exit code."""
        until(lambda: self.exit_code is not None, within, what=f"the end of {self.name}")
        code = self.exit_code
        assert code is not None
        return code

    def stop(self) -> int:
        """SIGTERM, and its exit code."""
        self.send(signal.SIGTERM)
        return self.ended()

    def kill(self) -> None:
        """SIGKILL: what a crash looks like."""
        self.send(signal.SIGKILL)
        self.ended()
