"""The file of `dualpath emulate`: nodes of each kind, their rates, and the cluster that runs on them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from dualpath_api.cluster import DualPathCluster
from dualpath_api.errors import SpecError
from dualpath_api.loading import build_cluster, read_yaml
from dualpath_api.spec.base import Section
from dualpath_api.units import Bytes
from dualpath_cli.emulation.layout import Layout, Node, engine_node, gateway_node, storage_node
from dualpath_cli.emulation.rates import UNLIMITED, parse_rate

MOST = 32
"""Nodes of a role: each is a process with a model."""


def _rate(value: object) -> int:
    try:
        return parse_rate(value if isinstance(value, int) else str(value))
    except SpecError as error:  # to pydantic, only a ValueError is a bad value
        raise ValueError(f"{error.cause}; {error.remedy}") from None


Rate = Annotated[int, BeforeValidator(_rate)]
"""Bit/s; in YAML 50mbit, 1.6gbit or unlimited."""


class EngineNodes(Section):
    """The nodes of one role; each runs one engine group."""

    nodes: int = Field(1, ge=1, le=MOST, strict=True, description="How many.")
    snic: Rate = Field(200_000_000, description="Rate of a storage NIC.")
    cnic: Rate = Field(1_600_000_000, description="Rate of a compute NIC.")


class StorageNodes(Section):
    """The block store."""

    kind: Literal["mooncake", "files"] = Field(
        "mooncake",
        description="mooncake: a store in nodes of its own. files: the cluster's directory, past all NICs.",
    )
    nodes: int = Field(1, ge=1, le=MOST, strict=True, description="Storage nodes.")
    snic: Rate = Field(UNLIMITED, description="Rate of a storage node's NIC.")
    size: Bytes = Field(1 << 30, ge=1 << 24, description="Bytes that a storage node holds, in memory.")
    copies: int = Field(1, ge=1, le=3, strict=True, description="Storage nodes that hold a block.")
    masters: int = Field(1, ge=1, le=3, strict=True, description="Masters; one is active.")
    etcd: int = Field(
        0, ge=0, le=5, strict=True, description="Members of the etcd that elects the master; 0: none."
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.kind == "files" and self.model_fields_set - {"kind"}:
            raise ValueError("all but kind is for kind mooncake")
        if self.masters > 1 and not self.etcd:
            raise ValueError("several masters need an etcd that elects one of them; set etcd")
        if self.copies > self.nodes:
            raise ValueError("copies is larger than nodes; a storage node holds a block at most once")
        return self


class NodeRates(Section):
    """Rates of one node that differ from its role's."""

    snic: Rate | None = Field(None, description="Rate of its storage NIC.")
    cnic: Rate | None = Field(None, description="Rate of its compute NIC.")


class EmulationSpec(Section):
    """spec of a DualPathEmulation."""

    prefill: EngineNodes = Field(EngineNodes(), description="Nodes p0, p1, ...")
    decode: EngineNodes = Field(EngineNodes(), description="Nodes d0, d1, ...")
    storage: StorageNodes = Field(StorageNodes(), description="The block store: nodes s0, s1, ...")
    overrides: dict[str, NodeRates] = Field(default={}, description="Rates by node, for example p0.")
    cluster: str | dict[str, Any] | None = Field(
        None,
        description="A DualPathCluster: a path, relative to this file, or the object. The emulation sets "
        "its replicas, nics and, with kind mooncake, its storage.",
    )


class EmulationMetadata(Section):
    """What the emulation is called."""

    name: str = Field(
        max_length=32,
        pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        description="Name of the network, for `dualpath emulate --name`.",
    )


class DualPathEmulation(Section):
    """An emulation, as in YAML."""

    api_version: Literal["dualpath.io/v1alpha1"] = Field(description="Version of this format.")
    kind: Literal["DualPathEmulation"] = Field(description="Always DualPathEmulation.")
    metadata: EmulationMetadata = Field(description="Name of the emulation.")
    spec: EmulationSpec = Field(EmulationSpec(), description="What is wanted.")

    @property
    def layout(self) -> Layout:
        """The network that it describes."""
        return Layout(name=self.metadata.name, nodes=tuple(_nodes(self.spec)))


def load_emulation(path: Path, name: str | None = None) -> DualPathEmulation:
    """The emulation that a file describes; `name` replaces its own. Raises SpecError."""
    data = read_yaml(path)
    if not isinstance(data, dict):
        raise SpecError(
            f"{path}: the document is no mapping",
            cause="a DualPathEmulation starts with apiVersion, kind, metadata and spec",
            remedy="see examples/emulated.yaml for a complete one",
        )
    if name is not None:
        data["metadata"] = {"name": name}
    try:
        emulation = DualPathEmulation.model_validate(data, by_alias=True, by_name=False)
    except ValidationError as error:
        what, *more = [_described(details) for details in error.errors()]
        others = "".join(f"\n  also:   {one}: {why}" for one, why in more)
        remedy = "see examples/emulated.yaml for a complete one" + others
        raise SpecError(f"{path}: {what[0]}", cause=what[1], remedy=remedy) from None
    names = [node.name for node in emulation.layout.nodes]
    if unknown := sorted(emulation.spec.overrides.keys() - set(names)):
        raise SpecError(
            f"{path}: spec.overrides.{unknown[0]} is for a node that is not there",
            cause=f"the nodes are {', '.join(names)}",
            remedy="name one of them",
        )
    return emulation


def cluster_data(emulation: DualPathEmulation, file: Path) -> dict[str, Any] | None:
    """The DualPathCluster of the file as parsed YAML; None: it has none. Raises SpecError."""
    given = emulation.spec.cluster
    if given is None:
        return None
    data = read_yaml(file.parent / given) if isinstance(given, str) else copy.deepcopy(given)
    if not isinstance(data, dict):
        raise SpecError(
            f"{file}: spec.cluster is no DualPathCluster",
            cause="it is not a mapping",
            remedy="see examples/local.yaml for one",
        )
    return data


def cluster_of(
    emulation: DualPathEmulation,
    data: dict[str, Any],
    overrides: Sequence[str],
    *,
    storage: dict[str, Any] | None,
    source: str,
) -> DualPathCluster:
    """The cluster on the emulation's nodes. `storage` None: the cluster's own. Raises SpecError."""
    spec = data.get("spec")
    if isinstance(spec, dict):
        for role in ("prefill", "decode"):
            if isinstance(spec.get(role), dict):
                spec[role]["scaling"] = {"mode": "Static", "replicas": getattr(emulation.spec, role).nodes}
        spec.pop("nics", None)  # each node has its own, see `nic_rules`
        if storage is not None:
            spec["storage"] = storage
    return build_cluster(data, overrides, source=source)


def nic_rules(node: Node) -> list[dict[str, Any]]:
    """spec.nics on a node: veth tells 10 Gbit/s, whatever its rate."""
    return [
        {"role": nic.fabric, "match": nic.name, "linkBps": nic.bits_per_s}
        for nic in node.nics
        if nic.bits_per_s is not None
    ]


def _nodes(spec: EmulationSpec) -> Iterator[Node]:
    yield gateway_node()
    for letter, role in (("p", spec.prefill), ("d", spec.decode)):
        for number in range(role.nodes):
            own = spec.overrides.get(f"{letter}{number}", NodeRates())
            yield engine_node(f"{letter}{number}", snic=own.snic or role.snic, cnic=own.cnic or role.cnic)
    if spec.storage.kind == "mooncake":
        for number in range(spec.storage.nodes):
            own = spec.overrides.get(f"s{number}", NodeRates())
            yield storage_node(f"s{number}", snic=own.snic or spec.storage.snic)


def _described(details: ErrorDetails) -> tuple[str, str]:
    """(what, cause) of one problem."""
    field = ".".join(str(step) for step in details["loc"]) or "the document"
    if details["type"] == "extra_forbidden":
        return f"{field} is not known", "there is no such key"
    if details["type"] == "missing":
        return f"{field} is missing", "it is required"
    message = details["msg"].removeprefix("Value error, ")
    return f"{field} is {details['input']!r}", message[:1].lower() + message[1:]
