"""The `DualPathCluster`: one model for `dualpath up` and for the custom resource.

Field descriptions are the reference text (docs/reference and the CRD). Quantities are Kubernetes quantities
("256Mi"), kept as integers of bytes. `dualpath_api.loading` reads YAML into these models, `dualpath_api.crd`
makes the CustomResourceDefinition from them.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from dualpath_api.spec.access import IngressSpec, ObservabilitySpec, SecuritySpec
from dualpath_api.spec.base import NAME_PATTERN, Rule, Section
from dualpath_api.spec.fabric import FabricSpec, HardwareSpec, NicRule
from dualpath_api.spec.lifecycle import (
    DisruptionSpec,
    DrainSpec,
    PlacementSpec,
    RestartSpec,
    RolloutSpec,
)
from dualpath_api.spec.model import KvSpec, ModelSpec
from dualpath_api.spec.paths import PathMode, PathPolicySpec
from dualpath_api.spec.roles import GatewaySpec, PrefillSpec, RoleSpec, ScalingMode
from dualpath_api.spec.storage import StorageSpec

__all__ = [
    "GROUP",
    "MAX_NAME",
    "VERSION",
    "ClusterSpec",
    "DualPathCluster",
    "LocalRef",
    "Metadata",
    "NicRule",
    "PathMode",
    "RoleSpec",
    "StorageSpec",
]

GROUP = "dualpath.io"
VERSION = "v1alpha1"

MAX_NAME = 40
"""Longest cluster name: NAME-prefill-REVISION-INDEX-NODE is a host name, of 63 characters at most."""


class LocalRef(Section):
    """An object in the cluster's namespace."""

    name: str = Field(max_length=253, pattern=NAME_PATTERN, description="Its name.")


def _planned_together(spec: Any) -> bool:
    modes = {spec.prefill.scaling.mode, spec.decode.scaling.mode}
    return ScalingMode.PLANNER not in modes or len(modes) == 1


def _both_or_neither(spec: Any) -> bool:
    roles = (spec.prefill.scaling, spec.decode.scaling)
    static = all(scaling.mode == ScalingMode.STATIC for scaling in roles)
    return not static or len({scaling.replicas > 0 for scaling in roles}) == 1


class ClusterSpec(Section):
    """spec of a DualPathCluster."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="(self.prefill.scaling.mode == 'Planner') == (self.decode.scaling.mode == 'Planner')",
            message="mode Planner sizes prefill and decode together; set it for both roles or for neither",
            holds=_planned_together,
        ),
        Rule(
            cel=(
                "self.prefill.scaling.mode != 'Static' || self.decode.scaling.mode != 'Static'"
                " || (self.prefill.scaling.replicas > 0) == (self.decode.scaling.replicas > 0)"
            ),
            message="prefill and decode serve together; set both replicas to 0 or neither",
            holds=_both_or_neither,
        ),
        Rule(
            cel=(
                "(has(self.fabric) && self.fabric.mode != 'None') || (self.prefill.parallelism.nodes == 1"
                " && self.decode.parallelism.nodes == 1)"
            ),
            message="groups of several nodes need a compute network; set fabric.mode",
            holds=lambda spec: (
                spec.fabric.mode != "None"
                or spec.prefill.parallelism.nodes == spec.decode.parallelism.nodes == 1
            ),
        ),
    )

    model: ModelSpec = Field(description="Which model is served.")
    image: str | None = Field(
        None,
        min_length=1,
        max_length=512,
        description="Kubernetes: image of the engines; default: the operator's setting.",
    )
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field(
        "IfNotPresent", description="Kubernetes: when images are pulled."
    )
    image_pull_secrets: tuple[LocalRef, ...] = Field(
        (),
        max_length=16,
        description="Kubernetes: Secrets for pulling images.",
        json_schema_extra={"listMapKeys": ["name"]},
    )
    kv: KvSpec = Field(KvSpec(), description="The KV-cache layout.")
    prefill: PrefillSpec = Field(description="Engines that compute prompts.")
    decode: RoleSpec = Field(description="Engines that generate.")
    gateway: GatewaySpec = Field(GatewaySpec(), description="Kubernetes: the process that takes requests.")
    storage: StorageSpec = Field(description="Where Full Blocks live.")
    path_policy: PathPolicySpec = Field(
        PathPolicySpec(), description="How reads are shared between the two sides."
    )
    fabric: FabricSpec = Field(FabricSpec(), description="Kubernetes: how Pods get their NICs.")
    nics: tuple[NicRule, ...] = Field(
        (), max_length=32, description="Network devices to report; without rules none is."
    )
    hardware: HardwareSpec | None = Field(
        None, description="A node's links; with them the status tells whether P/D is free of bottlenecks."
    )
    gpu_budget: int | None = Field(
        None, ge=1, le=65536, strict=True, description="Kubernetes: most GPUs that all engines hold together."
    )
    rollout: RolloutSpec = Field(RolloutSpec(), description="Kubernetes: how changes reach the engines.")
    drain: DrainSpec = Field(DrainSpec(), description="Kubernetes: how engines stop.")
    disruption: DisruptionSpec = Field(DisruptionSpec(), description="Kubernetes: what evictions may take.")
    placement: PlacementSpec = Field(PlacementSpec(), description="Kubernetes: where engine Pods go.")
    security: SecuritySpec = Field(SecuritySpec(), description="Kubernetes: who may connect.")
    ingress: IngressSpec = Field(IngressSpec(), description="Kubernetes: how requests come in from outside.")
    observability: ObservabilitySpec = Field(ObservabilitySpec(), description="Kubernetes: metrics and logs.")
    restart: RestartSpec = Field(RestartSpec(), description="Kubernetes: a restart on request.")
    suspend: bool = Field(
        False, strict=True, description="Kubernetes: no engines and no gateway; everything else stays."
    )
    paused: bool = Field(
        False, strict=True, description="Kubernetes: the operator changes nothing, and still reports."
    )


class Metadata(Section):
    """What the cluster is called."""

    name: str = Field(
        max_length=MAX_NAME,
        pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$",
        description=(
            f"Lower-case letters, digits and '-', a letter first, at most {MAX_NAME}; the resource's name."
        ),
    )
    namespace: str | None = Field(
        None,
        max_length=63,
        pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        description="Kubernetes: the namespace; `dualpath up` has none.",
    )
    labels: dict[str, str] = Field(default={}, description="Kubernetes: labels of the resource.")
    annotations: dict[str, str] = Field(default={}, description="Kubernetes: annotations of the resource.")


class DualPathCluster(Section):
    """A cluster, as in YAML."""

    api_version: Literal["dualpath.io/v1alpha1"] = Field(description="Version of this format.")
    kind: Literal["DualPathCluster"] = Field(description="Always DualPathCluster.")
    metadata: Metadata = Field(description="Name of the cluster.")
    spec: ClusterSpec = Field(description="What is wanted.")
