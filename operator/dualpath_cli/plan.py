"""What `dualpath up` is going to start; what can be refused is refused here, before any process runs."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dualpath_api.cluster import DualPathCluster
from dualpath_api.wire import Role
from dualpath_cli import checks
from dualpath_cli.defaults import cluster_for
from dualpath_cli.process import Command

ENGINE_ENVIRONMENT = {
    # torch then asks for huge pages: decoding reads all weights a step, and on a CPU the TLB limits that
    "THP_MEM_ALLOC_ENABLE": "1",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Flags of `dualpath up` that are not part of the spec."""

    host: str = "127.0.0.1"
    port: int = 0
    ready_file: Path | None = None
    as_json: bool = False
    log_form: str = "text"
    drain_seconds: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineName:
    """One engine process."""

    role: Role
    group: int
    rank: int

    def __str__(self) -> str:
        """Its process name, as in the ready file: prefill-0-0."""
        return f"{self.role.value}-{self.group}-{self.rank}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The processes of one cluster. `folder` holds the resolved spec and the processes' ready files."""

    cluster: DualPathCluster
    options: Options
    folder: Path
    services: tuple[tuple[Command, ...], ...] = ()  # what has to serve before the engines, stage by stage
    told: Mapping[str, str] = field(default_factory=dict)  # further content of the ready file
    gateway_module: str = "dualpath_gateway"
    engine_module: str = "dualpath_worker"

    @property
    def engines(self) -> tuple[EngineName, ...]:
        """All engines, prefill first."""
        roles = ((Role.PREFILL, self.cluster.spec.prefill), (Role.DECODE, self.cluster.spec.decode))
        return tuple(
            EngineName(role=role, group=group, rank=rank)
            for role, spec in roles
            for group in range(spec.scaling.replicas)
            for rank in range(spec.parallelism.data)
        )

    def gateway(self, port: int) -> Command:
        """The command of the gateway."""
        options = self.options
        return Command(
            name="gateway",
            arguments=self._arguments(
                self.gateway_module, "gateway", "--host", options.host, "--port", str(port)
            ),
            ready_file=self._ready_file("gateway"),
            environment={"DUALPATH_GATEWAY_STOP_S": str(options.drain_seconds)},
        )

    def engine(self, name: EngineName, port: int) -> Command:
        """The command of an engine that finds its scheduler at `port`."""
        place = ("--role", name.role.value, "--group", str(name.group), "--rank", str(name.rank))
        scheduler = ("--scheduler", f"ws://{checks.reachable(self.options.host)}:{port}/engines")
        return Command(
            name=str(name),
            arguments=self._arguments(self.engine_module, str(name), *place, *scheduler),
            ready_file=self._ready_file(str(name)),
            environment={k: v for k, v in ENGINE_ENVIRONMENT.items() if k not in os.environ},
        )

    def url(self, port: int) -> str:
        """Where clients find the OpenAI API."""
        return f"http://{checks.reachable(self.options.host)}:{port}/v1"

    def _ready_file(self, name: str) -> Path:
        return self.folder / f"{name}.ready.json"

    def _config(self, name: str) -> Path:
        """The resolved spec that the process reads."""
        return self.folder / "cluster.json"

    def _arguments(self, module: str, name: str, *rest: str) -> tuple[str, ...]:
        """-P: a file of the current directory must not hide a package."""
        common = ("--config", str(self._config(name)), "--log", self.options.log_form)
        return ("-P", "-m", module, *common, "--ready-file", str(self._ready_file(name)), *rest)


@contextmanager
def make_plan(
    file: Path | None, model: str | None, overrides: Sequence[str], options: Options
) -> Iterator[Plan]:
    """A checked plan; its folder is removed in the end. Raises SpecError or UnsupportedError."""
    cluster = cluster_for(file, model, overrides)
    checks.check_machine(cluster, options.host, options.port, options.ready_file)
    cluster = checks.with_local_model(cluster)
    if cluster.spec.storage.files is not None:
        cluster = _replaced(cluster, ("spec", "storage", "files", "path"), str(checks.store_path(cluster)))
    with tempfile.TemporaryDirectory(prefix="dualpath-") as folder:
        plan = Plan(cluster=cluster, options=options, folder=Path(folder))
        write_cluster(cluster, plan.folder / "cluster.json")
        yield plan


def write_cluster(cluster: DualPathCluster, file: Path) -> None:
    """A resolved spec for processes to read."""
    file.write_text(json.dumps(cluster.model_dump(mode="json", by_alias=True), indent=2))


def _replaced(cluster: DualPathCluster, path: tuple[str, ...], value: str) -> DualPathCluster:
    data: dict[str, Any] = cluster.model_dump(mode="json", by_alias=True)
    target = data
    for step in path[:-1]:
        target = target[step]
    target[path[-1]] = value
    return DualPathCluster.model_validate(data)
