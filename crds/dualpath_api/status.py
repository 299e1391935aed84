"""status of a DualPathCluster: what the operator tells. Aggregates only; series per NIC and Pod are metrics.

Conditions follow kstatus (Ready, Reconciling, Stalled) and name their own aspects beside. Gauges are coarse
and change at most every few seconds, so that watching clusters is cheap.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from dualpath_api.spec.base import Section


class ConditionType(StrEnum):
    """What a condition is about."""

    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    PREFILL_READY = "PrefillReady"
    DECODE_READY = "DecodeReady"
    STORAGE_READY = "StorageReady"
    SCHEDULER_READY = "SchedulerReady"
    FABRIC_READY = "FabricReady"
    PATH_BALANCED = "PathBalanced"
    PATH_TUNED = "PathTuned"
    SCALING_ACTIVE = "ScalingActive"
    ROLLOUT_COMPLETE = "RolloutComplete"


class Condition(Section):
    """One aspect, as in Kubernetes' own kinds."""

    type: str = Field(max_length=316, description="What it is about.")
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it holds.")
    reason: str = Field(max_length=1024, description="Why, in one word.")
    message: str = Field("", max_length=32768, description="Why, in a sentence.")
    last_transition_time: str = Field(max_length=64, description="When the status changed last.")
    observed_generation: int = Field(0, ge=0, description="Generation of the spec that it speaks of.")


class RoleStatus(Section):
    """One engine role, in groups."""

    summary: str = Field("", max_length=64, description="ready/desired.")
    desired: int = Field(0, ge=0, description="Groups wanted.")
    ready: int = Field(0, ge=0, description="Groups whose Pods are ready.")
    admitted: int = Field(0, ge=0, description="Groups that the scheduler has admitted.")
    updated: int = Field(0, ge=0, description="Ready groups of the newest revision.")
    draining: int = Field(0, ge=0, description="Groups that finish their work and then go.")
    gpus: int = Field(0, ge=0, description="GPUs that the role's Pods hold.")


class RolesStatus(Section):
    """Both engine roles."""

    prefill: RoleStatus = Field(RoleStatus(), description="Engines that compute prompts.")
    decode: RoleStatus = Field(RoleStatus(), description="Engines that generate.")


class RevisionStatus(Section):
    """Revisions of the engines."""

    current: str = Field("", max_length=64, description="Revision that serves completely.")
    updated: str = Field("", max_length=64, description="Revision that the spec asks for.")


class ShareStatus(Section):
    """The decode side's share of the bytes read, in thousandths."""

    target: int | None = Field(None, ge=0, le=1000, description="What tuning aims at.")
    observed: int | None = Field(None, ge=0, le=1000, description="What was read lately.")
    last_tune_time: str | None = Field(None, max_length=64, description="When the target moved last.")
    reason: str = Field("", max_length=1024, description="Why the target is what it is.")


class ReadRates(Section):
    """Bytes/s from storage."""

    prefill_side: str = Field("0", max_length=32, description="Read by prefill engines.")
    decode_side: str = Field("0", max_length=32, description="Read by decode engines.")


class PathsStatus(Section):
    """How reads are shared."""

    mode: str = Field("", max_length=64, description="The mode that the scheduler applies.")
    decode_share_permille: ShareStatus = Field(ShareStatus(), description="The decode side's share.")
    read_bytes_per_second: ReadRates = Field(ReadRates(), description="Read rates.")
    kv_hit_permille: int | None = Field(None, ge=0, le=1000, description="Prompt tokens found in storage.")


class NicQuantiles(Section):
    """Utilisation of the NICs of one kind over the nodes, in thousandths."""

    p50_permille: int = Field(0, ge=0, description="Median.")
    p95_permille: int = Field(0, ge=0, description="95th percentile.")


class RoleNics(Section):
    """NICs of the nodes of one role."""

    storage: NicQuantiles | None = Field(None, description="NICs to the block store.")
    compute: NicQuantiles | None = Field(None, description="NICs between engines.")


class NicsStatus(Section):
    """NIC utilisation by role."""

    prefill: RoleNics = Field(RoleNics(), description="Nodes of prefill engines.")
    decode: RoleNics = Field(RoleNics(), description="Nodes of decode engines.")
    storage_p95: str = Field("", max_length=64, description="The busier side's storage NICs, in percent.")
    reporting_replicas: int = Field(0, ge=0, description="Engines that report.")


class BalanceStatus(Section):
    """P/D against its bottleneck-free range, in thousandths."""

    pd_permille: int | None = Field(None, ge=0, description="Prefill over decode groups.")
    lower_permille: int | None = Field(None, ge=0, description="Lowest ratio without a bottleneck.")
    upper_permille: int | None = Field(None, ge=0, description="Highest ratio without a bottleneck.")


class EndpointStatus(Section):
    """Where clients connect."""

    name: str = Field(max_length=64, description="What it serves.")
    url: str = Field(max_length=2048, description="Where.")


class Pair(Section):
    """Groups of both roles."""

    prefill: int = Field(0, ge=0, description="Prefill groups.")
    decode: int = Field(0, ge=0, description="Decode groups.")


class LastScale(Section):
    """The newest decision of mode Planner."""

    time: str = Field(max_length=64, description="When.")
    before: Pair = Field(description="Groups before.")
    after: Pair = Field(description="Groups after.")
    reason: str = Field(max_length=1024, description="Why.")


class ClusterStatus(Section):
    """status of a DualPathCluster."""

    observed_generation: int = Field(0, ge=0, description="Generation of the spec that the status speaks of.")
    conditions: tuple[Condition, ...] = Field(
        (),
        max_length=32,
        description="Aspects; `kubectl wait --for=condition=Ready`.",
        json_schema_extra={"listMapKeys": ["type"]},
    )
    revision: RevisionStatus = Field(RevisionStatus(), description="Revisions of the engines.")
    progress_time: str | None = Field(
        None, max_length=64, description="When the rollout made progress last; absent when it is complete."
    )
    roles: RolesStatus = Field(RolesStatus(), description="Both engine roles.")
    paths: PathsStatus = Field(PathsStatus(), description="How reads are shared.")
    nics: NicsStatus = Field(NicsStatus(), description="NIC utilisation by role.")
    balance: BalanceStatus = Field(BalanceStatus(), description="P/D against its bottleneck-free range.")
    endpoints: tuple[EndpointStatus, ...] = Field(
        (), max_length=8, description="Where clients connect.", json_schema_extra={"listMapKeys": ["name"]}
    )
    planned: Pair | None = Field(None, description="What mode Planner wants.")
    last_scale: LastScale | None = Field(None, description="The newest decision of mode Planner.")


class GroupSpec(Section):
    """spec of a DualPathEngineGroup. Only `replicas` is for others, through /scale."""

    cluster: str = Field(max_length=40, description="The DualPathCluster that it belongs to.")
    role: Literal["prefill", "decode"] = Field(description="The engines' role.")
    replicas: int = Field(
        1, ge=0, le=64, description="Groups wanted; with scaling.mode External, set through /scale."
    )


class GroupStatus(Section):
    """status of a DualPathEngineGroup."""

    observed_generation: int = Field(0, ge=0, description="Generation that the status speaks of.")
    replicas: int = Field(0, ge=0, description="Groups that exist.")
    ready_replicas: int = Field(0, ge=0, description="Groups that are ready and admitted.")
    selector: str = Field("", max_length=512, description="Selects one Pod of each group, for autoscalers.")
