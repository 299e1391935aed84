"""The `DualPathCluster` spec: one model for `dualpath up` and for the custom resource.

Field descriptions are the reference text (docs/reference and the CRD). Quantities are Kubernetes quantities
("256Mi"), kept as integers of bytes. `dualpath_api.loading` reads YAML into these models.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import PurePosixPath
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic.alias_generators import to_camel

from dualpath_api.units import Bytes, Duration

BLOCK_TOKENS = (16, 32, 64, 128, 256)
"""Allowed sizes of a block: powers of two, so that a block is a whole number of kernel tiles."""

_MEBIBYTE = 1 << 20


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

    uri: str = Field(
        description="file:///path of a Hugging Face checkpoint directory, or hf://org/name of a hub model."
    )
    revision: str | None = Field(
        None, min_length=1, description="Branch, tag or commit of a hub model; only with hf://."
    )
    served_name: str = Field(
        min_length=1,
        max_length=128,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]*$",
        description="The model name that clients send.",
    )
    dtype: Literal["float32", "bfloat16"] = Field("bfloat16", description="Data type of weights and KV.")

    @field_validator("uri")
    @classmethod
    def _known_scheme(cls, uri: str) -> str:
        scheme, _, rest = uri.partition("://")
        if scheme == "file" and rest.startswith("/") and PurePosixPath(rest) != PurePosixPath("/"):
            return uri
        if scheme == "hf" and rest.count("/") == 1 and all(rest.split("/")):
            return uri
        raise ValueError("it must be file:///absolute/path or hf://org/name")

    @model_validator(mode="after")
    def _revision_of_a_hub_model(self) -> ModelSpec:
        if self.revision is not None and not self.uri.startswith("hf://"):
            raise ValueError("revision is for hf:// models, a directory has none; remove revision")
        return self


class KvSpec(Section):
    """The KV-cache layout. Part of every block key."""

    block_tokens: int = Field(
        64, strict=True, description=f"Tokens of a block: one of {', '.join(map(str, BLOCK_TOKENS))}."
    )

    @field_validator("block_tokens")
    @classmethod
    def _power_of_two(cls, value: int) -> int:
        if value not in BLOCK_TOKENS:
            raise ValueError(f"it must be one of {', '.join(map(str, BLOCK_TOKENS))}")
        return value


class Scaling(Section):
    """Where the number of engine groups comes from."""

    mode: Literal["Static"] = Field("Static", description="Static: `replicas` says it.")
    replicas: int = Field(1, ge=1, le=64, strict=True, description="Engine groups of this role.")


class Parallelism(Section):
    """Ranks of a group."""

    data: int = Field(
        1, ge=1, le=8, strict=True, description="Data-parallel ranks of a group; each is one process."
    )


class Resources(Section):
    """Memory of one group, shared equally by its ranks."""

    dram_buffer: Bytes = Field(ge=_MEBIBYTE, description="Block buffers in host memory, at least 1Mi.")
    kv_cache: Bytes = Field(
        ge=_MEBIBYTE, description="KV pages, at least 1Mi: GPU memory, on a CPU a second pool of host memory."
    )


class RoleSpec(Section):
    """One role's engine groups."""

    scaling: Scaling = Field(Scaling(), description="How many groups.")
    parallelism: Parallelism = Field(Parallelism(), description="How many ranks a group has.")
    resources: Resources = Field(description="Memory of one group.")


class Batching(Section):
    """How much a prefill engine computes at once."""

    compute_quota: Duration = Field(
        0.3,
        validate_default=True,
        description="Longest predicted attention time of one batch; a longer prompt is computed in chunks.",
    )
    max_tokens: int = Field(4096, ge=1, le=1 << 20, strict=True, description="Most new tokens of one batch.")


class PrefillSpec(RoleSpec):
    """The engine groups that compute prompts."""

    batching: Batching = Field(Batching(), description="How prompts are cut into batches.")


class FilesSpec(Section):
    """A directory as the block store; it may be shared by all nodes."""

    path: str = Field(
        min_length=1,
        description="Directory, made if missing. A relative path is relative to the current directory.",
    )
    size: Bytes = Field(ge=_MEBIBYTE, description="Bytes that the blocks may take, at least 1Mi.")


class StorageSpec(Section):
    """Where Full Blocks live."""

    files: FilesSpec = Field(description="A directory as the block store.")


class PathPolicySpec(Section):
    """How reads are shared between the two sides."""

    mode: PathMode = Field(
        PathMode.AUTO,
        description=(
            "PrefillOnly and DecodeOnly: that side reads every hit. Split: both read a part of every hit "
            "at once. Auto: large hits are split, small ones go to the shorter read queue."
        ),
    )


class NicRule(Section):
    """Says which network devices are counted as what. First matching rule wins; others are not counted."""

    role: Literal["storage", "compute"] = Field(description="What the device carries.")
    match: str = Field(min_length=1, description="Shell pattern on the device name, for example eth*.")
    link_bps: int | None = Field(
        None, gt=0, strict=True, description="Link speed in bit/s, where the kernel does not know it."
    )


class ClusterSpec(Section):
    """spec of a DualPathCluster."""

    model: ModelSpec = Field(description="Which model is served.")
    kv: KvSpec = Field(KvSpec(), description="The KV-cache layout.")
    prefill: PrefillSpec = Field(description="Engines that compute prompts.")
    decode: RoleSpec = Field(description="Engines that generate.")
    storage: StorageSpec = Field(description="Where Full Blocks live.")
    path_policy: PathPolicySpec = Field(
        PathPolicySpec(), description="How reads are shared between the two sides."
    )
    nics: tuple[NicRule, ...] = Field(
        (), max_length=32, description="Network devices to report; without rules none is."
    )


class Metadata(Section):
    """What the cluster is called."""

    name: str = Field(
        max_length=63,
        pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        description="Lower-case letters, digits and '-', at most 63; the name of the custom resource.",
    )


class DualPathCluster(Section):
    """A cluster, as in YAML."""

    api_version: Literal["dualpath.io/v1alpha1"] = Field(description="Version of this format.")
    kind: Literal["DualPathCluster"] = Field(description="Always DualPathCluster.")
    metadata: Metadata = Field(description="Name of the cluster.")
    spec: ClusterSpec = Field(description="What is wanted.")
