"""Sends to a peer and measures what arrives and what was lost, for each traffic class, alone and together.

The peer runs `probe serve`. Every class has a port of its own in its range, and its sockets carry the class's
DSCP, so both ways of telling classes apart see it. Rates are bytes/s as the receiver counts them.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from dualpath_api.errors import DualPathError, UnsupportedError
from dualpath_api.spec.fabric import TrafficClasses
from dualpath_worker.fabric.classes import Class, both

CONNECT_S = 3.0
LONGEST_S = 3600.0
"""Flows that announce more are not of ours."""

_PIECE = 256 << 10
_SKIPPED_S = 0.3
"""From the begin of a flow, while windows grow, the receiver does not time it."""

_TOTAL_RETRANS, _SEGS_OUT = 100, 136
"""Places in struct tcp_info (linux/tcp.h)."""


class ProbeError(DualPathError):
    """A peer cannot be measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """What became of one flow."""

    traffic: str  # the class
    bytes_per_s: float
    segments: int  # sent, repetitions included
    repeated: int  # segments that were sent again

    @property
    def loss(self) -> float:
        """Part of the segments that had to be sent again."""
        return self.repeated / self.segments if self.segments else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Classes of one peer: each alone, and all at once."""

    alone: tuple[Flow, ...]
    together: tuple[Flow, ...]

    def as_json(self) -> dict[str, object]:
        """For people and scripts."""
        return {
            when: {flow.traffic: {**asdict(flow), "loss": round(flow.loss, 6)} for flow in flows}
            for when, flows in (("alone", self.alone), ("together", self.together))
        }


def port_of(each: Class) -> int:
    """The last of the class's range: agents take theirs from anywhere in it, so it is mostly free."""
    return each.ports[1]


@contextmanager
def serving(classes: TrafficClasses, address: str) -> Iterator[None]:
    """Receive probes on an address of this machine. Raises UnsupportedError if a port is taken."""
    servers = []
    try:
        for each in both(classes):
            try:
                server = socket.create_server((address, port_of(each)), family=_family(address))
            except OSError as error:
                raise UnsupportedError(
                    f"cannot receive probes on {address}",
                    cause=f"port {port_of(each)}: {error}",
                    remedy="give an address of this machine, and run one server of probes on it",
                ) from None
            servers.append(server)
            _mark(server, each)  # inherited
            threading.Thread(target=_accept, args=(server,), name=f"probe-{each.name}", daemon=True).start()
        yield
    finally:
        for server in servers:
            server.shutdown(socket.SHUT_RDWR)  # wakes who accepts, who would keep the port
            server.close()


def _accept(server: socket.socket) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:  # closed
            return
        threading.Thread(target=_receive, args=(connection,), name="probe-flow", daemon=True).start()


def _receive(connection: socket.socket) -> None:
    """Count for as long as the sender sends, then tell it; who is silent for longer than a flow is left.

    What arrives later comes out of buffers, when other flows have ended; it would flatter this one.
    """
    buffer, began, timed = memoryview(bytearray(_PIECE)), time.monotonic(), 0
    with connection:
        try:
            connection.settimeout(CONNECT_S)
            (seconds,) = struct.unpack("=d", connection.recv(8))  # one segment: it is the first
            if not 0 < seconds <= LONGEST_S:
                return
            connection.settimeout(seconds + CONNECT_S)
            first, last = began + _SKIPPED_S, began + seconds
            while count := connection.recv_into(buffer):
                if first <= time.monotonic() < last:
                    timed += count
            connection.sendall(json.dumps({"bytes_per_s": timed / max(last - first, 1e-3)}).encode())
        except (OSError, struct.error):  # the sender is gone, or none of ours
            return


def measure(
    classes: TrafficClasses,
    address: str,
    seconds: float = 2.0,
    *,
    source: str = "",
    names: Sequence[str] = (),
    kv_flows: int = 1,
) -> Measured:
    """Send to a peer's address, from our address `source` if given; `names`: only these classes.

    KV is sent in so many flows at once, as by several engines. Takes `seconds` for each class, and once more
    for all together, at least a second, at most an hour. Raises ProbeError.
    """
    wanted = [each for each in both(classes) if not names or each.name in names]
    seconds = min(max(1.0, seconds), LONGEST_S)
    flows = {each.name: kv_flows if each.name == "kv" else 1 for each in wanted}
    with ThreadPoolExecutor(sum(flows.values())) as pool:

        def run(some: Sequence[Class]) -> tuple[Flow, ...]:
            running = {
                each.name: [
                    pool.submit(_send, each, address, seconds, source) for _ in range(flows[each.name])
                ]
                for each in some
            }
            return tuple(_added(name, [flow.result() for flow in of]) for name, of in running.items())

        alone = tuple(run([each])[0] for each in wanted)
        return Measured(alone=alone, together=run(wanted) if len(wanted) > 1 else ())


def _added(traffic: str, flows: Sequence[Flow]) -> Flow:
    """All flows of a class as one."""
    return Flow(
        traffic=traffic,
        bytes_per_s=sum(flow.bytes_per_s for flow in flows),
        segments=sum(flow.segments for flow in flows),
        repeated=sum(flow.repeated for flow in flows),
    )


def _send(each: Class, address: str, seconds: float, source: str) -> Flow:
    piece = bytes(_PIECE)
    try:
        with socket.socket(_family(address), socket.SOCK_STREAM) as connection:
            connection.settimeout(CONNECT_S)
            _mark(connection, each)
            if source:
                connection.bind((source, 0))
            connection.connect((address, port_of(each)))
            connection.settimeout(seconds + CONNECT_S)
            connection.sendall(struct.pack("=d", seconds))
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                connection.sendall(piece)
            connection.shutdown(socket.SHUT_WR)
            told = json.loads(connection.recv(4096))
            repeated, segments = _segments(connection)
    except (OSError, ValueError) as error:
        raise ProbeError(
            f"{address} cannot be measured",
            cause=f"port {port_of(each)}: {error}",
            remedy="run `python -P -m dualpath_worker.fabric probe serve` there, and let the port through",
        ) from None
    return Flow(traffic=each.name, bytes_per_s=told["bytes_per_s"], segments=segments, repeated=repeated)


def _segments(connection: socket.socket) -> tuple[int, int]:
    """(sent again, sent) of a TCP connection."""
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    (repeated,) = struct.unpack_from("=I", info, _TOTAL_RETRANS)
    (segments,) = struct.unpack_from("=I", info, _SEGS_OUT)
    return repeated, segments


def _mark(connection: socket.socket, each: Class) -> None:
    """Give its packets the DSCP of the class."""
    if connection.family == socket.AF_INET6:
        connection.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, each.traffic_class)
    else:
        connection.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, each.traffic_class)


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET
