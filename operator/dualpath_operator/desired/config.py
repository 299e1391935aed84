"""cluster.json: the spec that processes in Pods read, as `dualpath up` gives it to them on one machine.

It holds what its readers use and nothing else, with paths as they see them. What nobody in the Pod reads,
such as replicas, is left at its default: changing it must not change the engines' revision.
"""

from __future__ import annotations

import json
from typing import Any

from dualpath_api.cluster import GROUP, VERSION, RoleSpec
from dualpath_api.spec.fabric import FabricMode
from dualpath_api.units import format_bytes
from dualpath_operator.desired import commands, weights
from dualpath_operator.model import Cluster, Object

_NICS: dict[FabricMode, list[Object]] = {
    FabricMode.MULTUS: [{"role": "storage", "match": "snic*"}, {"role": "compute", "match": "cnic*"}],
}
"""Where the names of a Pod's devices are known, a spec need not tell them."""

ETCD_MEMBERS = 3


def domain(cluster: Cluster) -> str:
    """Who shares blocks."""
    return cluster.spec.storage.domain or f"{cluster.namespace}/{cluster.name}"


def store_path(cluster: Cluster) -> str:
    """The directory of the domain, below the whole claim: engines make it.

    A `subPath` would be made by the kubelet, as root, where engines could not write. No step leads upwards.
    """
    steps = [step if step.strip(".") else step.replace(".", "%2E") for step in domain(cluster).split("/")]
    return "/".join([commands.STORE, *(step for step in steps if step)])


def etcd_endpoints(cluster: Cluster) -> list[str]:
    """host:port of the etcd of a managed store."""
    managed = cluster.spec.storage.managed
    if managed is None:
        return []
    own = f"{cluster.name}-etcd"
    host = f"{own}.{cluster.namespace}.svc:{commands.ETCD_PORT}"
    return list(managed.etcd.endpoints) or [f"{own}-{i}.{host}" for i in range(ETCD_MEMBERS)]


def nic_rules(cluster: Cluster) -> list[Object]:
    """Which devices are counted as what."""
    given = [_set(rule) for rule in cluster.spec.nics]
    return given or _NICS.get(cluster.spec.fabric.mode, [])


def engine_config(cluster: Cluster) -> Object:
    """What the engines of a revision start from."""
    spec = cluster.spec
    content: Object = {
        "model": {
            "uri": f"file://{weights.local_path(cluster)}",
            "servedName": cluster.name,  # clients talk to the gateway: engines know no other name
            "dtype": spec.model.dtype,
        },
        "prefill": _role(spec.prefill) | _given("batching", _set(spec.prefill.batching)),
        "decode": _role(spec.decode),
        "storage": _storage(cluster) | {"domain": domain(cluster)},
    }
    content |= (
        _given("kv", _set(spec.kv)) | _given("nics", nic_rules(cluster)) | _given("fabric", _set(spec.fabric))
    )
    return _cluster(cluster, content)


def gateway_config(cluster: Cluster) -> Object:
    """What the gateway starts from. It reads the path policy once, then the operator tunes it as it runs.

    The spec's rules want roles and a store, of which a gateway reads nothing: they are the same for all.
    """
    idle = {"resources": {"dramBuffer": "1Mi", "kvCache": "1Mi"}}
    model = cluster.spec.model
    return _cluster(
        cluster,
        {
            "model": {"uri": f"file://{weights.local_path(cluster)}", "servedName": model.served_name},
            "prefill": idle,
            "decode": idle,
            "storage": {"files": {"size": "1Mi"}},
            "pathPolicy": {"mode": cluster.spec.path_policy.mode.value},
        },
    )


def as_text(config: Object) -> str:
    """The content of cluster.json."""
    return json.dumps(config, indent=2, sort_keys=True) + "\n"


def _cluster(cluster: Cluster, spec: Object) -> Object:
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "DualPathCluster",
        "metadata": {"name": cluster.name, "namespace": cluster.namespace},
        "spec": spec,
    }


def _role(role: RoleSpec) -> Object:
    resources = role.resources
    sizes = {"dramBuffer": format_bytes(resources.dram_buffer), "kvCache": format_bytes(resources.kv_cache)}
    return {"resources": sizes} | _given("parallelism", _set(role.parallelism))


def _storage(cluster: Cluster) -> Object:
    tier = cluster.spec.storage.dram_tier
    size = {"size": format_bytes(tier.size)} if tier else None
    return _back_end(cluster) | _given("dramTier", size)


def _back_end(cluster: Cluster) -> Object:
    storage = cluster.spec.storage
    if storage.files is not None:
        return {"files": {"path": store_path(cluster), "size": format_bytes(storage.files.size)}}
    if storage.external is not None:
        return {"external": _set(storage.external)}
    assert storage.managed is not None
    # its size and its number of nodes are the store's own business; the rules want a size
    managed = {
        "size": "1Mi",
        "copies": storage.managed.copies,
        "etcd": {"endpoints": etcd_endpoints(cluster)},
    }
    return {"managed": managed}


def _set(section: Any) -> Object:
    """A section without defaults: a new field with a default must not restart anybody's engines."""
    found: Object = section.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
    return found


def _given(key: str, value: Any) -> Object:
    return {key: value} if value else {}
