"""The containers of an engine Pod: one a rank, alike but for number and share of the devices."""

from __future__ import annotations

from dualpath_operator.desired import commands, fabric, processes, weights
from dualpath_operator.desired.common import cpu_millis, cpu_quantity, filled, memory_shares, shares
from dualpath_operator.desired.place import Place
from dualpath_operator.model import Cluster, Object


def port_name(rank: int) -> str:
    """Metrics port of a local rank."""
    return f"metrics-{rank}" if rank else "metrics"


def container(place: Place, rank: int, part: fabric.Part) -> Object:
    """One rank. `rank` counts on this node; engines count over all nodes of their replica."""
    spec = place.cluster.spec
    on_host = fabric.on_host(spec.fabric)
    port = commands.METRICS_PORT + rank
    if on_host:
        port = commands.host_port(place.role, place.revision, place.index, rank)
    group_rank = place.node * place.ranks + rank
    return filled(
        {
            "name": f"engine-{rank}" if rank else "engine",
            "image": place.image,
            "imagePullPolicy": spec.image_pull_policy,
            "command": commands.engine(place.cluster, place.role, place.index, group_rank, port),
            "env": _environment(place, group_rank),
            "ports": [processes.port(port_name(rank), port, on_host=on_host)],
            "resources": _resources(place, rank, part),
            "securityContext": processes.security(lock_memory=spec.fabric.rdma),
            "volumeMounts": _mounts(place.cluster),
            "terminationMessagePolicy": "FallbackToLogsOnError",
            **processes.probes(port_name(rank), ready="/readyz"),
        }
    )


def _environment(place: Place, group_rank: int) -> list[Object]:
    cluster = place.cluster
    found = processes.env_of_pod(
        DUALPATH_POD_NAME="metadata.name",
        DUALPATH_POD_UID="metadata.uid",
        DUALPATH_POD_IP="status.podIP",
        DUALPATH_NODE_NAME="spec.nodeName",
    )
    found += processes.env(
        DUALPATH_REVISION=place.revision,
        DUALPATH_RANK=str(group_rank),
        DUALPATH_SCHEDULER=commands.scheduler(cluster),
        DUALPATH_CONTROL_TOKEN_FILE=commands.TOKEN,
        HOME="/tmp",
        THP_MEM_ALLOC_ENABLE="1",  # torch then asks for huge pages, which decoding on a CPU needs
    )
    if place.nodes > 1:
        found += processes.env(
            DUALPATH_LEADER_ADDRESS=f"{place.pod_name(0)}.{place.group}.{cluster.namespace}.svc",
            DUALPATH_NODE_INDEX=str(place.node),
            DUALPATH_NODES=str(place.nodes),
        )
    return found


def _resources(place: Place, rank: int, part: fabric.Part) -> Object:
    """A rank's share. Without `memory` the Pod requests what its buffers take, and has no limit."""
    wanted, ranks = place.own.resources, place.ranks
    devices = {name: str(count) for name, count in part.resources.items()}
    requests, limits = dict(devices), dict(devices)
    if wanted.cpu is not None:
        requests["cpu"] = cpu_quantity(shares(cpu_millis(wanted.cpu), ranks)[rank])
    if wanted.memory is not None:
        requests["memory"] = limits["memory"] = memory_shares(wanted.memory, ranks)[rank]
    else:
        tier = place.cluster.spec.storage.dram_tier
        buffers = wanted.dram_buffer + (0 if wanted.gpus else wanted.kv_cache) + (tier.size if tier else 0)
        requests["memory"] = memory_shares(buffers, ranks)[rank]
    return filled({"requests": requests, "limits": limits, "claims": part.claims})


def _mounts(cluster: Cluster) -> list[Object]:
    found: list[Object] = [
        processes.CONFIG_MOUNT,
        processes.CONTROL_MOUNT,
        processes.SCRATCH,
        {"name": "shm", "mountPath": "/dev/shm"},
        *weights.mounts(cluster),
    ]
    if cluster.spec.storage.files is not None:
        found.append({"name": "store", "mountPath": commands.STORE})
    return found
