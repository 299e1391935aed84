"""spec.fabric and spec.nics: how Pods get their networks, and which devices are counted as what."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any, ClassVar, Literal

from pydantic import Field

from dualpath_api.spec.base import Rule, Section


class FabricMode(StrEnum):
    """How Pods reach the storage and compute networks."""

    NONE = "None"
    HOST_NETWORK = "HostNetwork"
    MULTUS = "Multus"
    DEVICE_PLUGIN = "DevicePlugin"
    DRA = "DRA"


class Attachment(Section):
    """One network of the engines. Each mode reads its own field."""

    network: str | None = Field(
        None,
        max_length=253,
        pattern=r"^([a-z0-9-]+/)?[a-z0-9-]+$",
        description="Multus: NetworkAttachmentDefinition, [NAMESPACE/]NAME.",
    )
    resource_name: str | None = Field(
        None,
        max_length=253,
        pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$",
        description="DevicePlugin and Multus: the extended resource that a NIC is.",
    )
    device_class: str | None = Field(
        None, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", description="DRA: the DeviceClass."
    )
    count: int = Field(1, ge=1, le=16, strict=True, description="NICs of a Pod.")


_NEEDS = {
    FabricMode.MULTUS: "network",
    FabricMode.DEVICE_PLUGIN: "resourceName",
    FabricMode.DRA: "deviceClass",
}


def _needed(mode: FabricMode, attribute: str) -> Callable[[Any], bool]:
    """Whether both attachments of a fabric name what its mode needs."""

    def holds(fabric: Any) -> bool:
        both = (fabric.compute, fabric.storage)
        return fabric.mode != mode or all(a is not None and getattr(a, attribute) is not None for a in both)

    return holds


class KvClass(Section):
    """Marks of KV: transfers between engines, and reads and writes of the block store."""

    service_level: int = Field(
        1, ge=0, le=15, strict=True, description="InfiniBand service level, on RoCE the priority."
    )
    dscp: int = Field(8, ge=0, le=63, strict=True, description="DSCP of RoCE and TCP.")


class InferenceClass(Section):
    """Marks of what the model's own collectives send."""

    service_level: int = Field(
        4, ge=0, le=15, strict=True, description="InfiniBand service level, on RoCE the priority."
    )
    dscp: int = Field(32, ge=0, le=63, strict=True, description="DSCP of RoCE and TCP.")


class TrafficClasses(Section):
    """Two classes, so that switches and NICs can put the model's collectives ahead of KV."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self.kv.serviceLevel != self.inference.serviceLevel && self.kv.dscp != self.inference.dscp",
            message="kv and inference have the same mark; give each its own serviceLevel and dscp",
            holds=lambda c: c.kv.service_level != c.inference.service_level and c.kv.dscp != c.inference.dscp,
        ),
    )

    kv: KvClass = Field(KvClass(), description="KV, low priority.")
    inference: InferenceClass = Field(InferenceClass(), description="The model's collectives, high priority.")


class FabricSpec(Section):
    """How Pods get their storage and compute NICs."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        *(
            Rule(
                cel=(
                    f"self.mode != '{mode}' || (has(self.compute) && has(self.compute.{needed})"
                    f" && has(self.storage) && has(self.storage.{needed}))"
                ),
                message=f"mode {mode} needs {needed} in both compute and storage; add it",
                holds=_needed(mode, attribute),
            )
            for (mode, needed), attribute in zip(
                _NEEDS.items(), ("network", "resource_name", "device_class"), strict=True
            )
        ),
        Rule(
            cel="!(self.mode in ['None', 'HostNetwork']) || (!has(self.compute) && !has(self.storage))",
            message="compute and storage are for modes Multus, DevicePlugin and DRA; remove them",
            holds=lambda f: (
                f.mode not in {FabricMode.NONE, FabricMode.HOST_NETWORK} or (f.compute is f.storage is None)
            ),
        ),
        Rule(
            cel="!self.rdma || self.mode != 'None'",
            message="rdma needs NICs; set mode to HostNetwork, Multus, DevicePlugin or DRA",
            holds=lambda f: not f.rdma or f.mode != FabricMode.NONE,
        ),
        Rule(
            cel="!has(self.gpuDeviceClass) || self.mode == 'DRA'",
            message="gpuDeviceClass is for mode DRA; remove it",
            holds=lambda f: f.gpu_device_class is None or f.mode == FabricMode.DRA,
        ),
    )

    mode: FabricMode = Field(
        FabricMode.NONE,
        description=(
            "None: the Pod network carries all. HostNetwork: Pods use the node's NICs. Multus, DevicePlugin, "
            "DRA: NICs are added to the Pods."
        ),
    )
    compute: Attachment | None = Field(None, description="NICs between engines.")
    storage: Attachment | None = Field(None, description="NICs to the block store.")
    gpu_device_class: str | None = Field(
        None,
        max_length=253,
        pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$",
        description=(
            "DRA: the DeviceClass of GPUs. They are then claimed with the compute NICs, each NIC with GPUs "
            "of its PCIe root, and not as resources.gpuResource."
        ),
    )
    rdma: bool = Field(False, strict=True, description="Transfers use RDMA: Pods may lock memory (IPC_LOCK).")
    preflight: bool = Field(
        True, strict=True, description="Check the NICs before an engine starts (`dualpath fabric check`)."
    )
    traffic_classes: TrafficClasses | None = Field(
        None,
        description=(
            "Marks KV and the model's collectives; `{}` for the marks below. Without it nothing is marked. "
            "What NICs and switches do with marks is set there: `dualpath fabric check` says how."
        ),
    )
    local_copies: Literal["Direct", "Nic"] = Field(
        "Direct",
        description=(
            "How a prompt's KV gets from the block buffer into a decode engine's cache: by the device's own "
            "copies, or through the compute NIC, where it has the class of KV."
        ),
    )
    least_bandwidth_permille: int | None = Field(
        None,
        ge=1,
        le=1000,
        strict=True,
        description=(
            "The check also sends to each peer that it is told of, which must take so much of the NIC's "
            "speed. Default: it does not."
        ),
    )
    on_mismatch: Literal["Fail", "Degrade"] = Field(
        "Fail",
        description="What a failed check does: the Pod does not start, or starts over TCP and says so.",
    )


class NicRule(Section):
    """Says which network devices are counted as what. First matching rule wins; others are not counted."""

    role: Literal["storage", "compute"] = Field(description="What the device carries.")
    match: str = Field(
        min_length=1, max_length=64, description="Shell pattern on the device name, for example eth*."
    )
    link_bps: int | None = Field(
        None, gt=0, strict=True, description="Link speed in bit/s, where the kernel does not know it."
    )


class HardwareSpec(Section):
    """A node's links, for the bottleneck-free range of P/D. Bytes are per second and direction."""

    compute_nics: int = Field(ge=1, le=64, strict=True, description="Compute NICs of a node, one per GPU.")
    compute_nic_bytes: int = Field(gt=0, strict=True, description="Bytes/s of one compute NIC.")
    storage_bytes: int = Field(gt=0, strict=True, description="Bytes/s of a node's storage NICs together.")
    dram_bytes: int = Field(gt=0, strict=True, description="Bytes/s of a node's memory.")
