"""Starts DualPath in an emulated network: each process in its node, all traffic over the node's NICs.

Engines reach scheduler and gateway over `mnic0`, each other over `cnic0`, the store over `snic0`. This
machine is plugged into the management network, so the API and all metrics can be asked from here.
"""

from __future__ import annotations

import contextlib
import secrets
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any

from dualpath_api.cluster import DualPathCluster
from dualpath_api.errors import SpecError
from dualpath_api.token import TOKEN_FILE
from dualpath_api.wire import Role
from dualpath_cli import checks
from dualpath_cli.defaults import default_spec, model_uri
from dualpath_cli.emulation.layout import Node
from dualpath_cli.emulation.network import Network
from dualpath_cli.emulation.store import check_programs, storage_spec, store_stages
from dualpath_cli.emulation.topology import (
    DualPathEmulation,
    cluster_data,
    cluster_of,
    load_emulation,
    nic_rules,
)
from dualpath_cli.emulation.wires import Wires
from dualpath_cli.plan import EngineName, Options, Plan, write_cluster
from dualpath_cli.process import Command

API_PORT = 8000
GATEWAY_NODE = "g0"
TOKEN = "token"

_ENDINGS = (signal.SIGINT, signal.SIGTERM)

OVER_THE_NICS = {
    # cma and shared memory would pass KV between namespaces of one machine without any network
    "UCX_TLS": "tcp,self",
}

FILES_WARNING = (
    "storage.kind is files: blocks are read from a directory of this machine and cross no emulated NIC; "
    "only transfers between engines do"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatedPlan(Plan):
    """The processes of one emulation; `dualpath_cli.supervisor` runs them."""

    network: Network
    token: str
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def api(self) -> str:
        """URL of the gateway."""
        return self.url(self.options.port).removesuffix("/v1")

    def gateway(self, port: int) -> Command:
        """The gateway, in its node."""
        command = Plan.gateway(self, port)
        return self._inside(
            GATEWAY_NODE, replace(command, environment={**command.environment, **self.environment})
        )

    def engine(self, name: EngineName, port: int) -> Command:
        """An engine, in its node."""
        node = node_of(name)
        command = Plan.engine(self, name, port)
        return self._inside(
            node,
            replace(
                command,
                arguments=(*command.arguments, "--host", self.network.address(node)),
                environment={**command.environment, **OVER_THE_NICS, **self.environment},
            ),
        )

    def _config(self, name: str) -> Path:
        role, _, rest = name.partition("-")
        return self.folder / f"{role[0]}{rest.split('-')[0]}.json" if rest else self.folder / "cluster.json"

    def _inside(self, node: str, command: Command) -> Command:
        return replace(command, prefix=tuple(self.network.command(node, ())))


def api_of(network: Wires) -> str:
    """URL of the OpenAI API of a running emulation; "": it is a network only."""
    return f"http://{network.address(GATEWAY_NODE)}:{API_PORT}/v1" if GATEWAY_NODE in network.nodes else ""


def wait(seconds: float) -> None:
    """Sleep; a signal that unwinds ends it."""
    threading.Event().wait(seconds)


def node_of(engine: EngineName) -> str:
    """The node of an engine's group."""
    return f"{'p' if engine.role is Role.PREFILL else 'd'}{engine.group}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Emulation:
    """A checked file: nothing has been started."""

    spec: DualPathEmulation
    cluster: DualPathCluster
    warnings: tuple[str, ...]


def read_emulation(
    file: Path, model: str | None = None, overrides: Sequence[str] = (), name: str | None = None
) -> Emulation:
    """The emulation of FILE; `model`, `overrides` and `name` as the flags. Raises DualPathError."""
    spec = load_emulation(file, name)
    data = cluster_data(spec, file)
    if data is None:
        if model is None:
            raise SpecError(
                f"{file}: nothing to serve",
                cause="it has no spec.cluster, and --model was not given",
                remedy="add spec.cluster, or give --model DIR_OR_HF_ID",
            )
        data = default_spec()
    flags = [] if model is None else [f"spec.model.uri={model_uri(model)!r}"]
    cluster = cluster_of(spec, data, [*flags, *overrides], storage=storage_spec(spec), source=str(file))
    checks.check_cluster(cluster)
    check_programs(spec.spec.storage)
    warnings = (FILES_WARNING,) if spec.spec.storage.kind == "files" else ()
    if cluster.spec.storage.files is not None:
        checks.check_store(checks.store_path(cluster))
    return Emulation(spec=spec, cluster=checks.with_local_model(cluster), warnings=warnings)


@contextlib.contextmanager
def network_plan(emulation: Emulation, options: Options) -> Iterator[EmulatedPlan]:
    """The network, with a plan of what runs in it; everything is removed in the end."""
    with stoppable(), Network(emulation.spec.layout) as network:
        token = secrets.token_hex(16)
        plan = EmulatedPlan(
            cluster=emulation.cluster,
            options=replace(options, host=network.address(GATEWAY_NODE), port=API_PORT),
            folder=network.folder,
            services=store_stages(emulation.spec, network, options.log_form),
            network=network,
            token=token,
            environment={TOKEN_FILE: str(network.folder / TOKEN)},
            told={"network": network.name, "controlTokenFile": str(network.folder / TOKEN)},
        )
        _write_secret(network.folder / TOKEN, token)
        write_cluster(emulation.cluster, plan.folder / "cluster.json")
        for node in emulation.spec.layout.nodes:
            write_cluster(_on(emulation.cluster, node), plan.folder / f"{node.name}.json")
        try:
            yield plan
        finally:
            if threading.current_thread() is threading.main_thread():
                for number in _ENDINGS:  # removing takes a moment, and half of it would be left
                    signal.signal(number, signal.SIG_IGN)


def _write_secret(file: Path, text: str) -> None:
    """The control token: off loopback, the scheduler talks to nobody without one."""
    file.touch(mode=0o600)
    file.write_text(text)


def _on(cluster: DualPathCluster, node: Node) -> DualPathCluster:
    """The cluster as the processes of one node see it."""
    data: dict[str, Any] = cluster.model_dump(mode="json", by_alias=True)
    data["spec"]["nics"] = nic_rules(node)
    if cluster.spec.storage.files is not None:
        data["spec"]["storage"]["files"]["path"] = str(checks.store_path(cluster))
    return DualPathCluster.model_validate(data)


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """SIGTERM, too, unwinds: it would else end the process between making something and removing it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, _: FrameType | None) -> None:
        sys.exit(128 + number)

    before = {number: signal.getsignal(number) for number in _ENDINGS}
    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
