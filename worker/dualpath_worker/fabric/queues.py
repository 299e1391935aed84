"""Traffic classes of TCP on one machine: nftables marks packets by port, HTB gives each mark its share.

Rendered as lines that a person can read and apply; applied by us only when asked to, as it needs root (or
CAP_NET_ADMIN) and replaces the device's root queue. Everything that is not KV is in the class of inference.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from typing import Any

from dualpath_api.errors import UnsupportedError
from dualpath_api.spec.fabric import TrafficClasses
from dualpath_worker.fabric.classes import Class, both

TABLE = "dualpath"
HANDLE = "d0a:"
"""Of our root queue: it tells ours from those that somebody else has made, which mostly are 1:."""

_MINOR = {"inference": "10", "kv": "20"}
_BURST_S, _LEAST_BURST = 0.01, 128 << 10
_QUEUE_S, _LEAST_QUEUE = 0.02, 256 << 10
_QUANTUM = 60_000  # bytes that a class sends at a turn; by default it grows with the rate, beyond reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What a class of a device has sent since its queue was made."""

    bytes: int
    packets: int
    dropped: int


def nft_lines(spec: TrafficClasses) -> str:
    """A table that marks each class by its ports, in either direction, and counts it."""
    rules = [f"    {rule}" for each in both(spec) for rule in _rules(each)]
    counters = [f"  counter {each.name} {{ }}" for each in both(spec)]
    return "\n".join(
        (
            f"table inet {TABLE} {{",
            *counters,
            "  chain output {",
            "    type filter hook output priority mangle; policy accept;",
            *rules,
            "  }",
            "}",
        )
    )


def _rules(each: Class) -> list[str]:
    ports = f"{each.ports[0]}-{each.ports[1]}"
    return [
        f"tcp {side} {ports} {family} dscp set {each.dscp} counter name {each.name} accept"
        for family in ("ip", "ip6")
        for side in ("sport", "dport")
    ]


def tc_lines(spec: TrafficClasses, device: str, rate_bps: int) -> list[str]:
    """HTB on a device: each class is sure of its part, and may take all that the other leaves.

    `rate_bps` should be a little less than the link's, so that packets wait here and not in the device.
    """
    burst = max(int(rate_bps / 8 * _BURST_S), _LEAST_BURST)
    inference, kv = both(spec)

    def rate(percent: int) -> str:
        return (
            f"rate {max(8, rate_bps * percent // 100)}bit ceil {rate_bps}bit burst {burst}b cburst {burst}b"
        )

    lines = [
        f"qdisc replace dev {device} root handle {HANDLE} htb default {_MINOR['inference']}",
        f"class replace dev {device} parent {HANDLE} classid {HANDLE}1 htb {rate(100)} quantum {_QUANTUM}",
    ]
    for each, order in ((inference, 0), (kv, 7)):
        minor = _MINOR[each.name]
        limit = max(int(rate_bps / 8 * _QUEUE_S), _LEAST_QUEUE)
        mark = f"0x{each.traffic_class:02x} 0xfc flowid {HANDLE}{minor}"
        lines += [
            f"class replace dev {device} parent {HANDLE}1 classid {HANDLE}{minor} htb {rate(each.percent)}"
            f" prio {order} quantum {_QUANTUM}",
            f"qdisc replace dev {device} parent {HANDLE}{minor} handle {minor}: bfifo limit {limit}",
            f"filter replace dev {device} parent {HANDLE} protocol ip prio {order + 1} u32"
            f" match ip dsfield {mark}",
            f"filter replace dev {device} parent {HANDLE} protocol ipv6 prio {order + 2} u32"
            f" match ip6 priority {mark}",
        ]
    return lines


def apply_marks(spec: TrafficClasses) -> None:
    """Mark TCP in this network namespace; replaces an older table of ours. Raises UnsupportedError."""
    _run(["nft", "-f", "-"], f"table inet {TABLE} {{ }}\ndelete table inet {TABLE}\n{nft_lines(spec)}\n")


def apply_queues(spec: TrafficClasses, device: str, rate_bps: int) -> None:
    """Shape a device of this network namespace, in place of what is there. Raises UnsupportedError."""
    if _root(device).get("handle") == HANDLE:  # ours, maybe half made; all else is replaced by the handle
        _run(["tc", "qdisc", "del", "dev", device, "root"], "")
    _run(["tc", "-batch", "-"], "\n".join(tc_lines(spec, device, rate_bps)) + "\n")


def remove(*devices: str) -> None:
    """Take the marks back, and our queues of devices; what is not there is not missed.

    Raises UnsupportedError for a device that somebody else shapes by HTB, once all of ours is gone.
    """
    if _program("nft"):
        _run(["nft", "-f", "-"], f"table inet {TABLE} {{ }}\ndelete table inet {TABLE}\n")
    foreign = {}
    for device in devices:
        root = _root(device)
        if root.get("handle") == HANDLE:
            _run(["tc", "qdisc", "del", "dev", device, "root"], "")
        elif root.get("kind") == "htb":
            foreign[device] = root["handle"]
    for device, handle in foreign.items():
        raise UnsupportedError(
            f"the queues of {device} are left as they are",
            cause=f"somebody else has made them: HTB with the handle {handle}, where ours is {HANDLE}",
            remedy=f"if nobody needs them: tc qdisc del dev {device} root",
        )


def marks() -> dict[str, int]:
    """Bytes that were marked, by class; empty: there is no table of ours. Raises UnsupportedError."""
    found = json.loads(_run(["nft", "-j", "list", "tables"], ""))["nftables"]
    if not any(item.get("table", {}).get("name") == TABLE for item in found):
        return {}
    listed = json.loads(_run(["nft", "-j", "list", "table", "inet", TABLE], ""))["nftables"]
    counters = (item["counter"] for item in listed if "counter" in item)
    return {counter["name"]: int(counter["bytes"]) for counter in counters}


def queues(device: str) -> dict[str, Sent]:
    """What each class of a device has sent; empty: it is not shaped by us. Raises UnsupportedError."""
    names = {f"{HANDLE}{minor}": name for name, minor in _MINOR.items()}
    return {
        names[one["parent"]]: Sent(bytes=one["bytes"], packets=one["packets"], dropped=one["drops"])
        for one in _queues_of(device)
        if one.get("parent") in names
    }


def _root(device: str) -> dict[str, Any]:
    """Its root queue as tc tells it; empty: none."""
    return next((one for one in _queues_of(device) if one.get("root")), {})


def _queues_of(device: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(
        _run(["tc", "-s", "-j", "qdisc", "show", "dev", device], "") or "[]"
    )
    return found


def _program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")


def _run(command: list[str], text: str) -> str:
    program = _program(command[0])
    if program is None:
        package = {"nft": "nftables", "tc": "iproute2"}[command[0]]
        raise UnsupportedError(
            "traffic classes of TCP cannot be read or set",
            cause=f"the command {command[0]} is missing",
            remedy=f"install the package {package}",
        )
    done = subprocess.run([program, *command[1:]], input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        told = " ".join(done.stderr.split())
        raise UnsupportedError(
            "traffic classes of TCP cannot be read or set",
            cause=f"`{' '.join(command)}`: {told or 'it gave no reason'}",
            remedy="run it as root, in the network namespace of the device",
        )
    return done.stdout
