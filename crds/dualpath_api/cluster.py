"""The `DualPathCluster` spec: one model for `dualpath up` and for the custom resource.

Field descriptions are the reference text (docs/reference and the CRD). Quantities are Kubernetes quantities
("256Mi"), kept as integers of bytes; durations are strings ("30s"), kept as seconds.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from dualpath_api.units import Bytes


class Section(BaseModel):
    """Base of all sections: camelCase in YAML, unknown keys refused, immutable."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)


class PathMode(StrEnum):
    """How hit blocks are read from storage."""

    PREFILL_ONLY = "PrefillOnly"
    DECODE_ONLY = "DecodeOnly"
    SPLIT = "Split"
    AUTO = "Auto"


class ModelSpec(Section):
    """Which model is served."""

    uri: str = Field(description="file:///path of a Hugging Face checkpoint directory, or hf://org/name.")
    revision: str | None = Field(None, description="Revision of a hub model.")
    served_name: str = Field(description="The model name that clients send.")
    dtype: Literal["float32", "bfloat16"] = Field("bfloat16", description="Data type of weights and KV.")


class KvSpec(Section):
    """The KV-cache layout. Part of every block key."""

    block_tokens: int = Field(64, description="Tokens of a block.")


class Scaling(Section):
    """Where the number of replicas comes from."""

    mode: Literal["Static"] = "Static"
    replicas: int = Field(1, ge=1, le=64)


class Parallelism(Section):
    """Ranks of a group."""

    data: int = Field(1, ge=1, le=8, description="Data-parallel ranks (processes) of a group.")


class Resources(Section):
    """Memory of one group, shared equally by its ranks."""

    dram_buffer: Bytes = Field(description="Block buffers in host memory.")
    kv_cache: Bytes = Field(description="KV pages (GPU memory; on a CPU a second pool).")


class RoleSpec(Section):
    """One role's engine groups."""

    scaling: Scaling = Scaling()
    parallelism: Parallelism = Parallelism()
    resources: Resources


class FilesSpec(Section):
    """A directory as the block store."""

    path: str
    size: Bytes


class StorageSpec(Section):
    """Where Full Blocks live."""

    files: FilesSpec


class PathPolicySpec(Section):
    """How reads are shared between the two sides."""

    mode: PathMode = PathMode.AUTO


class NicRule(Section):
    """First matching rule wins; unmatched NICs are not counted."""

    role: Literal["storage", "compute"]
    match: str = Field(description="Shell pattern on the device name.")
    link_bps: int | None = Field(None, gt=0, description="Link speed in bit/s where the kernel does not know it.")


class ClusterSpec(Section):
    """spec of a DualPathCluster."""

    model: ModelSpec
    kv: KvSpec = KvSpec()
    prefill: RoleSpec
    decode: RoleSpec
    storage: StorageSpec
    path_policy: PathPolicySpec = PathPolicySpec()
    nics: tuple[NicRule, ...] = ()


class Metadata(Section):
    """Name of the cluster."""

    name: str


class DualPathCluster(Section):
    """A cluster, as in YAML."""

    api_version: Literal["dualpath.io/v1alpha1"]
    kind: Literal["DualPathCluster"]
    metadata: Metadata
    spec: ClusterSpec
