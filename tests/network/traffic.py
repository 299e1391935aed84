"""Bytes between two nodes, and how fast they arrived. Run as a script, it is one end; imported, it starts both."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from dualpath_cli.emulation.wires import Wires

PORT = 9000
SCRIPT = (sys.executable, "-I", "-S", __file__)
AT_ONCE = 128 << 10
"""Bytes that come out of a full bucket, and are not timed."""


@dataclass
class Transfer:
    """A running transfer; `sender` and `receiver` are processes in their nodes."""

    sender: subprocess.Popen[str]
    receiver: subprocess.Popen[str]

    def bits_per_s(self) -> float:
        """Wait for the end; the rate from the first byte sent to the receiver's word that it has all.

        A busy machine makes it smaller, never larger.
        """
        self.receiver.communicate(timeout=120)
        told, _ = self.sender.communicate(timeout=60)
        assert (self.receiver.returncode, self.sender.returncode) == (0, 0)
        return float(told)

    def __enter__(self) -> Self:
        """For transfers that are not waited for."""
        return self

    def __exit__(self, *_: object) -> None:
        """End both sides."""
        for process in (self.sender, self.receiver):
            process.kill()
            process.communicate()

    def arrived(self) -> int:
        """Bytes that the receiver has, each time it says so. Waits for the next time."""
        assert self.receiver.stdout is not None
        return int(json.loads(self.receiver.stdout.readline())["arrived"])


def send(
    net: Wires, source: str, target: str, nic: str, size: int, *, port: int = PORT, tell: int = 0
) -> Transfer:
    """Start sending `size` bytes to the target's address on `nic`. `tell`: report after every so many bytes."""
    receiving = _listen(net, target, nic, size, port, tell)
    told = [*SCRIPT, "send", net.address(target, nic), str(port), str(size)]
    sending = net.run(source, told, stdout=subprocess.PIPE, text=True)
    return Transfer(sending, receiving)


@contextmanager
def receiver(
    net: Wires, node: str, nic: str, *, size: int, port: int = PORT
) -> Iterator[tuple[tuple[str, int], subprocess.Popen[str]]]:
    """A process in a node that waits for `size` bytes: (where, the process)."""
    process = _listen(net, node, nic, size, port, 0)
    try:
        yield (net.address(node, nic), port), process
    finally:
        process.kill()
        process.communicate()


def _listen(net: Wires, node: str, nic: str, size: int, port: int, tell: int) -> subprocess.Popen[str]:
    told = ["receive", net.address(node, nic), str(port), str(size), str(tell)]
    process = net.run(node, [*SCRIPT, *told], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "listening\n"
    return process


def _send(address: str, port: int, size: int) -> None:
    piece = bytes(1 << 18)
    with socket.create_connection((address, port)) as connection:
        began, left = time.monotonic(), size
        while left:
            left -= connection.send(piece[: min(left, len(piece))])
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)
        print(max(size - AT_ONCE, 0) * 8 / (time.monotonic() - began), flush=True)


def _receive(address: str, port: int, size: int, tell: int) -> None:
    with socket.create_server((address, port)) as server:
        print("listening", flush=True)
        connection, _ = server.accept()
    buffer = memoryview(bytearray(1 << 18))
    arrived, told = 0, 0
    while count := connection.recv_into(buffer):
        arrived += count
        if tell and arrived - told >= tell:
            told = arrived
            print(json.dumps({"arrived": arrived}), flush=True)
    assert arrived == size, arrived


if __name__ == "__main__":
    if sys.argv[1] == "send":
        _send(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        _receive(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
