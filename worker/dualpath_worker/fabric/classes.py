"""The spec's traffic classes, as each layer below wants to be told of them.

RDMA: UCX marks what an agent sends by service level and by traffic class (the byte whose upper six bits are
the DSCP). Both sides of a pair have the same spec, and must: the answer to a READ carries the mark of whoever
answers. NCCL is marked alike by its environment. What a mark is worth is decided by subnet manager, switches
and NICs, with the weights of the DualPath paper (arXiv 2602.21548, section 5): 99 to 1.

TCP: UCX cannot mark it. KV agents listen on a range of ports of their own, by which `queues` marks packets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dualpath_api.spec.fabric import TrafficClasses

INFERENCE_PERCENT = 99
"""Of a link that both classes would fill."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Class:
    """One class on the wire."""

    name: str
    service_level: int
    dscp: int
    ports: tuple[int, int]  # first and last TCP port
    percent: int

    @property
    def traffic_class(self) -> int:
        """The byte in the IP header."""
        return self.dscp << 2

    @property
    def priority(self) -> int:
        """The Ethernet priority that DSCP means where nobody has said otherwise."""
        return self.dscp >> 3


def kv_class(spec: TrafficClasses) -> Class:
    """KV: what is left."""
    mark = spec.kv
    return Class(
        name="kv",
        service_level=mark.service_level,
        dscp=mark.dscp,
        ports=(20480, 21503),
        percent=100 - INFERENCE_PERCENT,
    )


def inference_class(spec: TrafficClasses) -> Class:
    """The model's collectives: first. Over TCP also all that is not KV."""
    mark = spec.inference
    return Class(
        name="inference",
        service_level=mark.service_level,
        dscp=mark.dscp,
        ports=(21504, 22527),
        percent=INFERENCE_PERCENT,
    )


def both(spec: TrafficClasses) -> tuple[Class, Class]:
    """Inference and KV."""
    return inference_class(spec), kv_class(spec)


def transfer_options(spec: TrafficClasses | None) -> dict[str, str]:
    """What the agents of KV transfers are made with; empty: nothing is marked."""
    if spec is None:
        return {}
    kv = kv_class(spec)
    return {
        "IB_SL": str(kv.service_level),
        "IB_TRAFFIC_CLASS": str(kv.traffic_class),
        "TCP_PORT_RANGE": f"{kv.ports[0]}-{kv.ports[1]}",
    }


def environment(spec: TrafficClasses | None) -> dict[str, str]:
    """For libraries that read their mark from the environment: NCCL, and the client of Mooncake Store."""
    if spec is None:
        return {}
    inference, kv = both(spec)
    return {
        "NCCL_IB_SL": str(inference.service_level),
        "NCCL_IB_TC": str(inference.traffic_class),
        "MC_IB_SL": str(kv.service_level),
        "MC_IB_TC": str(kv.traffic_class),
    }


def overridden(spec: TrafficClasses, environ: Mapping[str, str]) -> dict[str, str]:
    """Variables that say something else than the spec, and win."""
    wanted = {f"UCX_{key}": value for key, value in transfer_options(spec).items()} | environment(spec)
    return {name: environ[name] for name, value in wanted.items() if environ.get(name, value) != value}


# ---------------------------------------------------------------- lines for people


def subnet_manager_lines(spec: TrafficClasses) -> str:
    """For opensm.conf: the paper's virtual lanes and weights; KV is on lane 2, which has no high share."""
    inference, kv = both(spec)
    lanes = ["1"] * 16
    lanes[inference.service_level], lanes[kv.service_level] = "0", "2"
    return "\n".join(
        (
            "qos TRUE",
            "qos_max_vls 4",
            "qos_high_limit 240",
            "qos_vlarb_high 0:192,1:192,2:0,3:192",
            "qos_vlarb_low 0:192,1:192,2:64,3:192",
            f"qos_sl2vl {','.join(lanes)}",
        )
    )


def ethernet_lines(spec: TrafficClasses, interface: str) -> str:
    """mlnx_qos for a RoCE port; switches want the same map and the same weights."""
    inference, kv = both(spec)
    weights, lossless = ["0"] * 8, ["0"] * 8
    for each in (inference, kv):
        weights[each.priority], lossless[each.priority] = str(each.percent), "1"
    return "\n".join(
        (
            f"mlnx_qos -i {interface} --trust dscp",
            *(f"mlnx_qos -i {interface} --dscp2prio set,{c.dscp},{c.priority}" for c in (inference, kv)),
            f"mlnx_qos -i {interface} --prio_tc 0,1,2,3,4,5,6,7",
            f"mlnx_qos -i {interface} --tsa {','.join(['ets'] * 8)} --tcbw {','.join(weights)}",
            f"mlnx_qos -i {interface} --pfc {','.join(lossless)}",
        )
    )
