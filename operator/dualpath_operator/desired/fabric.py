"""spec.fabric in Pods: each mode is a function that makes all of its own fields, and no other mode's.

NICs are dealt to the ranks in order, as GPUs are. With DRA and a device class for GPUs, each NIC is claimed
together with its GPUs from one PCIe root: a rail.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from dualpath_api.spec.fabric import Attachment, FabricMode, FabricSpec
from dualpath_operator.desired.common import digest
from dualpath_operator.model import Object

NETWORKS = "k8s.v1.cni.cncf.io/networks"
_INTERFACES = {"storage": "snic", "compute": "cnic"}
_SAME_ROOT = "resource.kubernetes.io/pcieRoot"


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """The Pod that asks for NICs: its ranks, its GPUs, and the networks that it is on."""

    namespace: str
    ranks: int = 1
    gpus: int = 0
    gpu_resource: str = ""
    networks: tuple[str, ...] = ("storage", "compute")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What a mode adds to one container: extended resources, claims, and whether its ports are the node's."""

    resources: dict[str, int] = field(default_factory=dict)
    claims: list[Object] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class PodFields:
    """What a mode adds to a Pod. `claim_specs` are the ResourceClaimTemplates that its claims come from."""

    annotations: dict[str, str] = field(default_factory=dict)
    spec: Object = field(default_factory=dict)
    parts: list[Part]
    claim_specs: dict[str, Object] = field(default_factory=dict)


def pod_fields(fabric: FabricSpec, needs: Needs) -> PodFields:
    """The fields of the spec's mode. Claims are `storage`, and `compute` or one `compute-RANK` a rank."""
    return _MODES[fabric.mode](fabric, needs)


def on_host(fabric: FabricSpec) -> bool:
    """Whether Pods share the node's ports."""
    return fabric.mode is FabricMode.HOST_NETWORK


def claim_template_name(owner: str, claim: str, spec: Object) -> str:
    """Templates cannot be changed: another content is another name. Ranks with like claims share one."""
    return f"{owner}-{claim.partition('-')[0]}-{digest(spec, 8)}"


def resource_claims(owner: str, fields: PodFields) -> Object:
    """The Pod's part of DRA: which template each claim comes from."""
    claims = [
        {"name": claim, "resourceClaimTemplateName": claim_template_name(owner, claim, spec)}
        for claim, spec in fields.claim_specs.items()
    ]
    return {"resourceClaims": claims} if claims else {}


# ---------------------------------------------------------------- the modes


def _attached(fabric: FabricSpec, needs: Needs) -> list[tuple[str, Attachment]]:
    found = {"storage": fabric.storage, "compute": fabric.compute}
    return [(name, attachment) for name in needs.networks if (attachment := found[name]) is not None]


def _gpus(needs: Needs) -> list[dict[str, int]]:
    """GPUs of each rank as an extended resource."""
    each = needs.gpus // needs.ranks
    return [{needs.gpu_resource: each} if each else {} for _ in range(needs.ranks)]


def _none(_: FabricSpec, needs: Needs) -> PodFields:
    return PodFields(parts=[Part(resources=gpus) for gpus in _gpus(needs)])


def _host_network(_: FabricSpec, needs: Needs) -> PodFields:
    # the other DNS policies would ask the node's resolver, which does not know Services
    spec = {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"}
    return PodFields(spec=spec, parts=[Part(resources=gpus) for gpus in _gpus(needs)])


def _multus(fabric: FabricSpec, needs: Needs) -> PodFields:
    wanted = [
        f"{_qualified(attachment.network or '', needs.namespace)}@{_INTERFACES[name]}{i}"
        for name, attachment in _attached(fabric, needs)
        for i in range(attachment.count)
    ]
    return PodFields(annotations={NETWORKS: ",".join(wanted)}, parts=_with_devices(fabric, needs))


def _device_plugin(fabric: FabricSpec, needs: Needs) -> PodFields:
    return PodFields(parts=_with_devices(fabric, needs))


def _dra(fabric: FabricSpec, needs: Needs) -> PodFields:
    specs = {name: _nics_claim(attachment) for name, attachment in _attached(fabric, needs)}
    if fabric.gpu_device_class is None or fabric.compute is None or "compute" not in specs or not needs.gpus:
        whole: list[Object] = [{"name": name} for name in specs]
        parts = [Part(resources=gpus, claims=whole) for gpus in _gpus(needs)]
        return PodFields(parts=parts, claim_specs=specs)
    del specs["compute"]
    others: list[Object] = [{"name": name} for name in specs]
    parts = []
    for rank, nics in enumerate(_dealt(fabric.compute.count, needs.ranks)):
        own = f"compute-{rank}"
        specs[own] = _rails_claim(fabric.gpu_device_class, fabric.compute, needs.gpus // needs.ranks, nics)
        parts.append(Part(claims=[*others, {"name": own}]))
    return PodFields(parts=parts, claim_specs=specs)


_MODES: dict[FabricMode, Callable[[FabricSpec, Needs], PodFields]] = {
    FabricMode.NONE: _none,
    FabricMode.HOST_NETWORK: _host_network,
    FabricMode.MULTUS: _multus,
    FabricMode.DEVICE_PLUGIN: _device_plugin,
    FabricMode.DRA: _dra,
}


def _qualified(network: str, namespace: str) -> str:
    return network if "/" in network else f"{namespace}/{network}"


def _with_devices(fabric: FabricSpec, needs: Needs) -> list[Part]:
    """GPUs and NICs as extended resources, dealt to the ranks."""
    found = _gpus(needs)
    for _, attachment in _attached(fabric, needs):
        if attachment.resource_name is None:
            continue
        for rank, count in enumerate(_dealt(attachment.count, needs.ranks)):
            if count:
                own = found[rank]
                own[attachment.resource_name] = own.get(attachment.resource_name, 0) + count
    return [Part(resources=own) for own in found]


def _dealt(count: int, ranks: int) -> list[int]:
    """How many of `count` each rank gets; the first ranks get what is left over."""
    return [count // ranks + (rank < count % ranks) for rank in range(ranks)]


def _request(name: str, device_class: str, count: int) -> Object:
    exactly = {"deviceClassName": device_class, "allocationMode": "ExactCount", "count": count}
    return {"name": name, "exactly": exactly}


def _nics_claim(attachment: Attachment) -> Object:
    return {"devices": {"requests": [_request("nics", attachment.device_class or "", attachment.count)]}}


def _rails_claim(gpu_class: str, compute: Attachment, gpus: int, nics: int) -> Object:
    """A rank's GPUs and NICs, in as many rails as the scarcer has, the devices of each on one PCIe root."""
    rails = min(gpus, nics)
    if not rails:
        return {"devices": {"requests": [_request("gpu", gpu_class, gpus)]}}
    requests, constraints = [], []
    for rail, (own_gpus, own_nics) in enumerate(zip(_dealt(gpus, rails), _dealt(nics, rails), strict=True)):
        together = [f"gpu-{rail}", f"nic-{rail}"]
        requests.append(_request(together[0], gpu_class, own_gpus))
        requests.append(_request(together[1], compute.device_class or "", own_nics))
        constraints.append({"requests": together, "matchAttribute": _SAME_ROOT})
    return {"devices": {"requests": requests, "constraints": constraints}}
