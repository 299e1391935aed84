"""Command line of an engine process: read once, at the edge."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dualpath_api.cluster import ClusterSpec, RoleSpec
from dualpath_api.loading import load_cluster
from dualpath_api.token import control_token
from dualpath_api.wire import Role


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One engine process."""

    spec: ClusterSpec
    role: Role
    group: int
    rank: int
    scheduler: str  # ws://host:port/engines
    token: str | None
    ready_file: Path | None
    metrics_host: str
    log_format: str

    @property
    def engine(self) -> str:
        """Process name: prefill-0-0."""
        return f"{self.role}-{self.group}-{self.rank}"

    @property
    def group_id(self) -> str:
        """prefill-0."""
        return f"{self.role}-{self.group}"

    @property
    def own(self) -> RoleSpec:
        """This role's part of the spec."""
        return self.spec.prefill if self.role is Role.PREFILL else self.spec.decode

    @property
    def buffer_bytes(self) -> int:
        """This rank's part of its group's block buffer."""
        return self.own.resources.dram_buffer // self.own.parallelism.data

    @property
    def cache_bytes(self) -> int:
        """This rank's part of its group's KV pages."""
        return self.own.resources.kv_cache // self.own.parallelism.data


def read_settings(arguments: Sequence[str] | None = None) -> Settings:
    """Parse the command line. Raises SpecError for a bad cluster file or an unreadable token."""
    parser = argparse.ArgumentParser(
        prog="python -m dualpath_worker",
        description="One DualPath engine process.",
        epilog="Example: python -m dualpath_worker --config cluster.yaml --role decode --group 0 --rank 0 "
        "--scheduler ws://127.0.0.1:8000/engines",
    )
    parser.add_argument("--config", required=True, help="DualPathCluster, as YAML or JSON")
    parser.add_argument("--role", required=True, choices=[role.value for role in Role])
    parser.add_argument("--group", type=int, default=0)
    parser.add_argument("--rank", type=int, default=0)
    parser.add_argument("--scheduler", required=True, help="ws://HOST:PORT/engines of the gateway")
    parser.add_argument("--ready-file", type=Path, help="written when registered")
    parser.add_argument("--metrics-host", default="127.0.0.1", help="address that /metrics listens on")
    parser.add_argument("--log", choices=["text", "json"], default="text")
    given = parser.parse_args(arguments)
    return Settings(
        spec=load_cluster(given.config, ()).spec,
        role=Role(given.role),
        group=given.group,
        rank=given.rank,
        scheduler=given.scheduler,
        token=control_token(os.environ),
        ready_file=given.ready_file,
        metrics_host=given.metrics_host,
        log_format=given.log,
    )
