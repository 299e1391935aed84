"""`dualpath emulate` as a context manager: for benchmarks, fault tests and notebooks.

with emulated(Path("emulated.yaml"), model=checkpoint) as cluster:
    cluster.network.set_rate("p0.snic0", "50mbit")
    cluster.ask("/control/v1/tuning", {"pathPolicy": "Split"}, "PUT")
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dualpath_cli.asking import TIMEOUT_S
from dualpath_cli.embedded import Embedded, running
from dualpath_cli.emulation.wires import Wires


@dataclass(frozen=True, slots=True)
class Emulated(Embedded):
    """A running `dualpath emulate`."""

    @property
    def network(self) -> Wires:
        """Its nodes and NICs."""
        return Wires.of(str(self._ready()["network"]))

    @property
    def token(self) -> str:
        """Bearer token of its control paths."""
        return Path(self._ready()["controlTokenFile"]).read_text()

    def ask(self, path: str, body: object | None = None, method: str | None = None) -> Any:
        """JSON of the gateway, control paths included. Raises urllib.error.HTTPError."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url(path), data=data, method=method)
        request.add_header("Content-Type", "application/json")
        request.add_header("Authorization", f"Bearer {self.token}")
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            return json.load(answer)


@contextmanager
def emulated(
    file: Path,
    *,
    model: Path | str | None = None,
    name: str | None = None,
    overrides: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Iterator[Emulated]:
    """Run the emulation of FILE until the block ends. Raises DualPathError with its log if that fails."""
    arguments = ["emulate", "-f", str(file)]
    arguments += [] if model is None else ["--model", str(model)]
    arguments += [] if name is None else ["--name", name]
    with running(arguments, Emulated, overrides, environment) as cluster:
        yield cluster
