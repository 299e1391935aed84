"""spec.prefill, spec.decode and spec.gateway: the processes, how many, and what each one gets."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, StringConstraints

from dualpath_api.spec.base import MEBIBYTE, Rule, Section
from dualpath_api.units import Bytes, Cpu, Duration

LabelMap = dict[
    Annotated[str, StringConstraints(max_length=317)], Annotated[str, StringConstraints(max_length=4096)]
]
"""Labels or annotations."""


class ScalingMode(StrEnum):
    """Who says how many engine groups there are."""

    STATIC = "Static"
    EXTERNAL = "External"
    PLANNER = "Planner"


class Scaling(Section):
    """Where the number of engine groups comes from."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self.mode == 'Planner' || (!has(self.minReplicas) && !has(self.maxReplicas))",
            message="minReplicas and maxReplicas are for mode Planner; remove them or set mode: Planner",
            holds=lambda s: (
                s.mode == ScalingMode.PLANNER or (s.min_replicas is None and s.max_replicas is None)
            ),
        ),
        Rule(
            cel="self.mode != 'Planner' || has(self.maxReplicas)",
            message="mode Planner needs maxReplicas; add it",
            holds=lambda s: s.mode != ScalingMode.PLANNER or s.max_replicas is not None,
        ),
        Rule(
            cel="!has(self.minReplicas) || !has(self.maxReplicas) || self.minReplicas <= self.maxReplicas",
            message="minReplicas is larger than maxReplicas; swap them",
            holds=lambda s: (
                (s.min_replicas or 0) <= (s.max_replicas if s.max_replicas is not None else 1 << 30)
            ),
        ),
    )

    mode: ScalingMode = Field(
        ScalingMode.STATIC,
        description=(
            "Static: `replicas` says it. External: the /scale of DualPathEngineGroup NAME-ROLE says it, for "
            "a HorizontalPodAutoscaler, KEDA or `kubectl scale`. Planner: the operator sizes both roles "
            "together from their load. `dualpath up` knows Static only."
        ),
    )
    replicas: int = Field(
        1, ge=0, le=64, strict=True, description="Engine groups of this role with mode Static; 0 is idle."
    )
    min_replicas: int | None = Field(
        None, ge=0, le=64, strict=True, description="Fewest groups with mode Planner; default 1."
    )
    max_replicas: int | None = Field(
        None, ge=1, le=64, strict=True, description="Most groups with mode Planner."
    )


class Parallelism(Section):
    """Ranks and nodes of a group."""

    data: int = Field(
        1,
        ge=1,
        le=8,
        strict=True,
        description="Data-parallel ranks of a group on one node; each is one process.",
    )
    nodes: int = Field(
        1,
        ge=1,
        le=16,
        strict=True,
        description="Kubernetes: nodes of a group; one Pod each, which start, drain and restart together.",
    )


class Resources(Section):
    """Memory and devices of one group on one node, shared equally by its ranks."""

    dram_buffer: Bytes = Field(ge=MEBIBYTE, description="Block buffers in host memory, at least 1Mi.")
    kv_cache: Bytes = Field(
        ge=MEBIBYTE, description="KV pages, at least 1Mi: GPU memory, on a CPU a second pool of host memory."
    )
    gpus: int = Field(
        0,
        ge=0,
        le=16,
        strict=True,
        description="Kubernetes: GPUs of a Pod, a multiple of parallelism.data; 0 serves on the CPU.",
    )
    gpu_resource: str = Field(
        "nvidia.com/gpu",
        max_length=253,
        pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$",
        description="Kubernetes: the extended resource that a GPU is.",
    )
    cpu: Cpu | None = Field(None, description="Kubernetes: CPUs that a Pod requests.")
    memory: Bytes | None = Field(
        None,
        ge=MEBIBYTE,
        description="Kubernetes: memory of a Pod, request and limit; the block buffers are part of it.",
    )


class PodMetadata(Section):
    """Labels and annotations that are added to Pods; the operator's own win."""

    labels: LabelMap = Field(default={}, max_length=64, description="Further labels.")
    annotations: LabelMap = Field(default={}, max_length=64, description="Further annotations.")


class PodTemplate(Section):
    """What is merged into the Pods that the operator renders."""

    metadata: PodMetadata = Field(PodMetadata(), description="Further labels and annotations.")
    spec: dict[str, Any] = Field(
        default={},
        description=(
            "Part of a PodSpec, merged as `kubectl patch` would: containers, volumes and env by name; the "
            "engine's container is `engine`, the gateway's `gateway`. Keys that the operator owns (command, "
            "readinessGates, terminationGracePeriodSeconds, serviceAccountName, ...) are refused."
        ),
    )


class RoleSpec(Section):
    """One role's engine groups."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self.resources.gpus % self.parallelism.data == 0",
            message="resources.gpus is no multiple of parallelism.data; every rank gets as many GPUs",
            holds=lambda role: role.resources.gpus % role.parallelism.data == 0,
        ),
    )

    scaling: Scaling = Field(Scaling(), description="How many groups.")
    parallelism: Parallelism = Field(Parallelism(), description="How many ranks and nodes a group has.")
    resources: Resources = Field(description="Memory and devices of one group.")
    pod_template: PodTemplate = Field(
        PodTemplate(), description="Kubernetes: what is merged into the role's Pods."
    )


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


class ServiceSpec(Section):
    """The Service in front of the gateway."""

    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = Field(
        "ClusterIP", description="Type of the Service."
    )
    annotations: LabelMap = Field(default={}, max_length=64, description="Annotations of the Service.")


class GatewaySpec(Section):
    """The process that takes requests and schedules them. One is active at a time."""

    cpu: Cpu | None = Field(None, description="CPUs that the Pod requests.")
    memory: Bytes | None = Field(None, ge=MEBIBYTE, description="Memory of the Pod, request and limit.")
    image: str | None = Field(
        None,
        min_length=1,
        max_length=512,
        description="Image of the gateway; default: the operator's setting.",
    )
    service: ServiceSpec = Field(ServiceSpec(), description="The Service in front of it.")
    pod_template: PodTemplate = Field(PodTemplate(), description="What is merged into the Pod.")
