"""The operator as users run it: a process of its own, with a settings file and the rights of its kubeconfig."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import urllib3
import yaml
from processes import Process, free_ports
from waiting import until

Settings = dict[str, Any]

# Short enough that a test of a takeover takes seconds, long enough for a busy machine.
LEASE = {"leaseDuration": "6s", "renewDeadline": "4s", "retryPeriod": "500ms"}


class OperatorProcess:
    """One replica. `settings` are merged over the test's defaults, key by key."""

    def __init__(
        self,
        folder: Path,
        kubeconfig: Path,
        settings: Mapping[str, Any] | None = None,
        *,
        name: str = "operator",
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.kubeconfig = kubeconfig
        self.http_port, self.webhook_port = free_ports(2)
        defaults: Settings = {
            "leaderElection": {"namespace": "default", **LEASE},
            "http": {"host": "127.0.0.1", "port": self.http_port},
            "webhook": {"enabled": False, "host": "127.0.0.1", "port": self.webhook_port},
        }
        self.settings = merged(defaults, settings or {})
        self.file = folder / f"{name}.yaml"
        self.log = folder / f"{name}.log"
        self._env = {**os.environ, "KUBECONFIG": str(kubeconfig), **(env or {})}
        self._process: Process | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def process(self) -> Process:
        """The running, or last, process."""
        if self._process is None:
            raise RuntimeError(f"{self.name} was never started")
        return self._process

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def spawn(self) -> Self:
        """Start it, or start it again after a crash, without waiting; the log goes on in the same file."""
        self.file.write_text(yaml.safe_dump(self.settings))
        command = [sys.executable, "-P", "-m", "dualpath_operator", "--config", str(self.file)]
        self._process = Process(self.name, command, self.log, env=self._env)
        return self

    def start(self, within: float = 60.0) -> Self:
        """Start it and wait until /readyz says yes."""
        self.spawn()
        until(lambda: self.process.running() and self.says("/readyz"), within, what=f"/readyz of {self.name}")
        return self

    def says(self, path: str) -> bool:
        """Whether a GET of its HTTP port is answered with 200."""
        try:
            return self._get(path).status == 200
        except urllib3.exceptions.HTTPError:
            return False

    def metrics(self) -> str:
        """Its metrics, as Prometheus reads them."""
        return self._get("/metrics").data.decode()

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()

    def stop(self, within: float = 30.0) -> int:
        """SIGTERM and wait; the exit code."""
        return self.process.stop(within)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def _get(self, path: str) -> urllib3.BaseHTTPResponse:
        url = f"http://127.0.0.1:{self.http_port}{path}"
        return urllib3.request("GET", url, timeout=5, retries=False)


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> Settings:
    """Mappings are merged, everything else is replaced."""
    both = dict(below)
    for key, value in above.items():
        old = both.get(key)
        both[key] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return both
