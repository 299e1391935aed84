"""Command line and environment of an engine process: read once, at the edge."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dualpath_api.cluster import ClusterSpec, RoleSpec
from dualpath_api.errors import SpecError
from dualpath_api.loading import load_cluster
from dualpath_api.token import control_token
from dualpath_api.wire import Role

METRICS_PORT = "DUALPATH_METRICS_PORT"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where Kubernetes runs the engine; empty outside of it."""

    revision: str = ""
    pod: str = ""
    pod_uid: str = ""
    pod_ip: str = ""
    node: str = ""

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Place:
        """From the DUALPATH_* variables that the operator sets."""
        return cls(
            revision=environ.get("DUALPATH_REVISION", ""),
            pod=environ.get("DUALPATH_POD_NAME", ""),
            pod_uid=environ.get("DUALPATH_POD_UID", ""),
            pod_ip=environ.get("DUALPATH_POD_IP", ""),
            node=environ.get("DUALPATH_NODE_NAME", ""),
        )


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
    host: str
    metrics_port: int
    log_format: str
    place: Place

    @property
    def engine(self) -> str:
        """The engine's id: prefill-0-0; in a pod POD-0, as there may be several revisions."""
        return f"{self.group_id}-{self.rank}"

    @property
    def group_id(self) -> str:
        """The ranks that share a node, and its NICs: prefill-0, or the pod."""
        return self.place.pod or f"{self.role}-{self.group}"

    @property
    def first_of_group(self) -> bool:
        """Whether this rank reports the NICs; ranks count over all nodes of a replica."""
        return self.rank % self.own.parallelism.data == 0

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


def read_settings(
    arguments: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ
) -> Settings:
    """Parse the command line. Raises SpecError for a bad cluster file, port or token."""
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
    parser.add_argument("--host", default="127.0.0.1", help="address that metrics and probes listen on")
    parser.add_argument(
        "--metrics-port",
        type=int,
        help=f"port of metrics and probes; default: {METRICS_PORT}, else a free one",
    )
    parser.add_argument("--log", choices=["text", "json"], default="text")
    given = parser.parse_args(arguments)
    return Settings(
        spec=load_cluster(given.config, ()).spec,
        role=Role(given.role),
        group=given.group,
        rank=given.rank,
        scheduler=given.scheduler,
        token=control_token(environ),
        ready_file=given.ready_file,
        host=given.host,
        metrics_port=_port(environ) if given.metrics_port is None else given.metrics_port,
        log_format=given.log,
        place=Place.of(environ),
    )


def _port(environ: Mapping[str, str]) -> int:
    text = environ.get(METRICS_PORT) or "0"
    if not text.isascii() or not text.isdecimal() or int(text) > 65535:
        raise SpecError(
            f"{METRICS_PORT}={text}",
            cause="it is not a port number",
            remedy="set it to 0 to 65535, or unset it",
        )
    return int(text)
