"""Removes networks: its own by their owner, and those whose owner was killed by whoever comes next.

Only what a network's folder names is removed, and a namespace only while it is the one that was made: by
now the name may be somebody else's. Processes are recognised by the namespace they are in, never by name or
number.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from dualpath_cli.emulation import iproute, places
from dualpath_cli.emulation.iproute import NETNS, NetworkError
from dualpath_cli.emulation.places import State

ENDING_S = 10.0
"""Killed processes are gone within this time, unless the kernel holds them."""


def remove_all() -> list[str]:
    """Remove all networks whose owner is dead; returns their names. The caller holds `places.alone`."""
    removed = []
    for name in places.names():
        handle = places.lock(name)
        if handle is None:
            continue
        try:
            state = places.read(name)
            if state is not None:
                remove(state)
                removed.append(name)
            else:  # killed before anything was made
                places.forget(name)
        finally:
            os.close(handle)
    return removed


def remove(state: State) -> None:
    """End the network's processes, then remove its namespaces, its cable to this machine, and its folder.

    Raises NetworkError if a process does not end; all else is gone then.
    """
    spaces = [name for name in state.namespaces.values() if _ours(state, name)]
    with _held(spaces) as inodes:
        _end_processes(inodes)
        if state.host_link and Path("/sys/class/net", state.host_link).exists():
            with contextlib.suppress(NetworkError):  # its other end has taken it along
                iproute.batch("ip", [["link", "del", state.host_link]])
        iproute.batch("ip", [["netns", "del", name] for name in spaces])
        alive = _end_processes(inodes)  # who entered meanwhile; without the name, nobody does any more
    places.forget(state.name)
    if alive:
        raise NetworkError(
            f"processes {alive} of network {state.name} do not end",
            cause="they were killed, and the kernel still holds them",
            remedy="look at /proc/PID/stack; their namespaces go with them",
        )


def processes(inodes: set[int]) -> list[int]:
    """All processes in these network namespaces."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # it has ended
                if (entry / "ns/net").stat().st_ino in inodes and int(entry.name) != os.getpid():
                    found.append(int(entry.name))
    return found


@contextlib.contextmanager
def _held(spaces: Sequence[str]) -> Iterator[set[int]]:
    """The numbers of the namespaces, which mean nothing else as long as we hold them."""
    with contextlib.ExitStack() as stack:
        handles = [stack.enter_context((NETNS / name).open("rb")) for name in spaces]
        yield {os.fstat(handle.fileno()).st_ino for handle in handles}


def _ours(state: State, name: str) -> bool:
    """Whether the namespace of that name is the one this network has made."""
    path = NETNS / name
    if not path.exists():
        return False
    known = state.inodes.get(name)
    return known is None or path.stat().st_ino == known


def _end_processes(inodes: set[int]) -> list[int]:
    """Kill until none is left; returns those that stay. A dead one is in no namespace, even unreaped."""
    deadline = time.monotonic() + ENDING_S
    while (alive := processes(inodes)) and time.monotonic() < deadline:
        for pid in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
    return alive
