"""spec.storage: where Full Blocks live. Exactly one of a directory, a managed store, an external store."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from dualpath_api.spec.base import MEBIBYTE, NAME_PATTERN, Rule, Section
from dualpath_api.units import Bytes

_KINDS = ("files", "managed", "external")

Endpoint = Annotated[str, StringConstraints(max_length=253, pattern=r"^[a-zA-Z0-9.\-\[\]:]+:[0-9]{1,5}$")]
"""host:port."""

_PORTS = Rule(
    cel=(
        "!has(self.endpoints) || self.endpoints.map(e, int('0' + e.find('[0-9]{0,5}$')))"
        ".all(port, 0 < port && port <= 65535)"
    ),
    message="the port of an endpoint is from 1 to 65535; correct it",
    holds=lambda section: all(0 < int(e.rpartition(":")[2]) <= 65535 for e in section.endpoints),
)


class FilesSpec(Section):
    """A directory as the block store; it may be shared by all nodes."""

    path: str = Field(
        "/var/lib/dualpath/store",
        min_length=1,
        max_length=512,
        description=(
            "Directory, made if missing. A relative path is relative to the current directory. In Kubernetes "
            "the claim is mounted elsewhere and this is not used."
        ),
    )
    size: Bytes = Field(ge=MEBIBYTE, description="Bytes that the blocks may take, at least 1Mi.")
    claim_name: str | None = Field(
        None,
        max_length=253,
        pattern=NAME_PATTERN,
        description="Kubernetes: an existing ReadWriteMany claim; without one the operator makes NAME-store.",
    )
    storage_class_name: str | None = Field(
        None,
        max_length=253,
        pattern=NAME_PATTERN,
        description="Kubernetes: storage class of the claim it makes.",
    )


class EtcdSpec(Section):
    """The etcd that keeps the store's metadata and elects its master."""

    RULES: ClassVar[tuple[Rule, ...]] = (_PORTS,)

    endpoints: tuple[Endpoint, ...] = Field(
        (),
        max_length=9,
        description="host:port of an existing etcd; without any the operator runs one of three members.",
    )


class ManagedSpec(Section):
    """A Mooncake Store that the operator runs: masters, store nodes and their etcd."""

    replicas: int = Field(3, ge=1, le=64, strict=True, description="Store nodes.")
    masters: int = Field(2, ge=1, le=3, strict=True, description="Masters; one is active.")
    size: Bytes = Field(ge=MEBIBYTE, description="Bytes that a store node holds.")
    medium: Literal["DRAM", "NVMe"] = Field(
        "DRAM", description="Where a store node keeps blocks: memory, or a volume of its own."
    )
    copies: int = Field(2, ge=1, le=3, strict=True, description="Store nodes that hold a block.")
    storage_class_name: str | None = Field(
        None, max_length=253, pattern=NAME_PATTERN, description="Storage class of NVMe volumes."
    )
    etcd: EtcdSpec = Field(EtcdSpec(), description="Its etcd.")

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self.copies <= self.replicas",
            message="copies is larger than replicas; a store node holds a block at most once",
            holds=lambda managed: managed.copies <= managed.replicas,
        ),
        Rule(
            cel="!has(self.storageClassName) || self.medium == 'NVMe'",
            message="storageClassName is for medium NVMe; remove it or set medium: NVMe",
            holds=lambda managed: managed.storage_class_name is None or managed.medium == "NVMe",
        ),
    )


class ExternalSpec(Section):
    """A Mooncake Store that somebody else runs."""

    RULES: ClassVar[tuple[Rule, ...]] = (_PORTS,)

    endpoints: tuple[Endpoint, ...] = Field(
        min_length=1, max_length=9, description="host:port of its masters, or of the etcd that elects them."
    )


class DramTierSpec(Section):
    """Memory of the engines in front of the store."""

    size: Bytes = Field(
        ge=MEBIBYTE,
        description="Bytes for an engine group, divided among its ranks: each keeps blocks of its own.",
    )


class StorageSpec(Section):
    """Where Full Blocks live."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="[has(self.files), has(self.managed), has(self.external)].filter(x, x).size() == 1",
            message="storage is exactly one of files, managed and external; keep one of them",
            holds=lambda storage: sum(getattr(storage, kind) is not None for kind in _KINDS) == 1,
        ),
        Rule(
            cel=(
                "has(self.files) == has(oldSelf.files) && has(self.managed) == has(oldSelf.managed)"
                " && has(self.external) == has(oldSelf.external)"
            ),
            message="the kind of storage cannot be changed; make another DualPathCluster",
        ),
    )

    files: FilesSpec | None = Field(None, description="A directory as the block store.")
    managed: ManagedSpec | None = Field(None, description="Kubernetes: a store that the operator runs.")
    external: ExternalSpec | None = Field(None, description="A store that somebody else runs.")
    dram_tier: DramTierSpec | None = Field(
        None, description="Memory for blocks that were read or written lately. Without it there is none."
    )
    domain: str | None = Field(
        None,
        min_length=1,
        max_length=128,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$",
        description=(
            "Who shares blocks: clusters of one domain, model and layout on one store do. "
            "Default in Kubernetes: NAMESPACE/NAME."
        ),
    )
    retention: Literal["Delete", "Retain"] = Field(
        "Retain", description="Kubernetes: what becomes of the store's claims when the cluster is deleted."
    )
