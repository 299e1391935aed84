"""Probes of traffic classes, over loopback: whoever sends nonsense or nothing is not waited for."""

from __future__ import annotations

import socket
import struct

import pytest

from dualpath_api.spec.fabric import TrafficClasses
from dualpath_worker.fabric.classes import kv_class
from dualpath_worker.fabric.probe import port_of, serving

CLASSES = TrafficClasses()
ADDRESS = "127.0.0.9"  # apart from other tests' servers of probes


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"1234",
        *(struct.pack("=d", seconds) for seconds in (-1.0, 1e300, float("nan"), float("inf"), 0.1)),
    ],
    ids=["nothing", "half", "negative", "for ever", "nan", "infinite", "silent later"],
)
def test_a_sender_that_falls_silent_is_left(sent):
    with (
        serving(CLASSES, ADDRESS),
        socket.create_connection((ADDRESS, port_of(kv_class(CLASSES))), timeout=60) as connection,
    ):
        connection.sendall(sent)
        assert connection.recv(1) == b""
