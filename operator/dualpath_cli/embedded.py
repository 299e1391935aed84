"""`dualpath up` as a context manager: for notebooks, benchmarks, the demo and the tests.

with embedded(Path("cluster.yaml")) as cluster:
    client = OpenAI(base_url=cluster.openai, api_key="none")
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from dualpath_api.errors import DualPathError

STOP_S = 60.0


@dataclass(frozen=True, slots=True)
class Embedded:
    """A running `dualpath up`."""

    process: subprocess.Popen[str]
    ready_file: Path
    log: Path

    @property
    def openai(self) -> str:
        """Base URL of the OpenAI API."""
        return str(self._ready()["openai"])

    @property
    def metrics(self) -> dict[str, str]:
        """URL of /metrics by process name, as of now (a replaced process has another)."""
        return dict(self._ready()["metrics"])

    @property
    def pids(self) -> dict[str, int]:
        """Process id by process name, as of now."""
        return {name: int(pid) for name, pid in self._ready()["pids"].items()}

    def url(self, path: str) -> str:
        """Another path of the gateway, for example "/control/v1/report", as a URL."""
        return self.openai.removesuffix("/v1") + path

    def stop(self) -> int:
        """SIGTERM, as a service manager would; returns the exit code."""
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=STOP_S)

    def _ready(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.ready_file.read_text())
        return found


@contextmanager
def embedded(
    *arguments: str | Path, overrides: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> Iterator[Embedded]:
    """Run `dualpath up ARGUMENTS` until the block ends. Raises DualPathError with its log if that fails."""
    command = ["up", "--port", "0", *map(str, arguments)]
    with running(command, Embedded, overrides, environment) as cluster:
        yield cluster


Running = TypeVar("Running", bound=Embedded)


@contextmanager
def running(
    arguments: Sequence[str],
    kind: type[Running],
    overrides: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Iterator[Running]:
    """Run a command of `dualpath` that says `ready` and writes a ready file. Raises DualPathError."""
    with tempfile.TemporaryDirectory(prefix="dualpath-up-") as scratch:
        ready, log = Path(scratch) / "ready.json", Path(scratch) / "up.log"
        command = [sys.executable, "-m", "dualpath_cli", *arguments, "--ready-file", str(ready)]
        for override in overrides:
            command += ["--set", override]
        with log.open("wb") as sink:
            process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=sink,
                text=True,
                env={**os.environ, **(environment or {})},
            )
        cluster = kind(process, ready, log)
        try:
            assert process.stdout is not None
            if not process.stdout.readline().startswith("ready "):
                code = process.wait(timeout=STOP_S)
                raise DualPathError(
                    f"dualpath {arguments[0]} ended with exit code {code}",
                    cause=log.read_text(),
                    remedy="see its log above",
                )
            yield cluster
        finally:
            if process.poll() is None:
                cluster.stop()
            if process.stdout:
                process.stdout.close()
