"""Where networks are written down: one folder a network under /run, locked while its owner lives.

The kernel gives a lock back when a process dies, however it dies. So a folder that nobody has locked is
what a killed owner has left, and everything it names may be removed; what is not named is never touched.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dualpath_api.errors import SpecError

ROOT = Path("/run/dualpath-emulation")
STATE, LOCK = "state.json", "lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """One NIC as it was made."""

    node: str
    nic: str
    fabric: str
    address: str
    port: str  # its other end, in the namespace of the fabrics
    limited: bool

    @property
    def name(self) -> str:
        """As people say: p0.snic0."""
        return f"{self.node}.{self.nic}"


@dataclass(slots=True, kw_only=True)
class State:
    """One network as it was made. Namespaces: node name -> name below /run/netns; "" holds the fabrics."""

    name: str
    pid: int
    slot: int
    host_link: str
    host_address: str
    namespaces: dict[str, str]
    wires: list[Wire]
    inodes: dict[str, int] = field(default_factory=dict)  # of the namespaces, once they are there

    @property
    def folder(self) -> Path:
        """Its folder; whoever runs the network may keep files there, which are removed with it."""
        return ROOT / self.name

    def write(self) -> None:
        """Write it down, in one step."""
        scratch = self.folder / f".{STATE}"
        scratch.write_text(json.dumps(asdict(self), indent=1))
        scratch.replace(self.folder / STATE)


def read(name: str) -> State | None:
    """The network of that name; None: there is none."""
    try:
        data: dict[str, Any] = json.loads((ROOT / name / STATE).read_text())
        return State(**{**data, "wires": [Wire(**wire) for wire in data["wires"]]})
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise SpecError(
            f"{ROOT / name / STATE} cannot be read",
            cause=f"another version wrote it: {error}",
            remedy="remove its namespaces (`ip netns list` shows dpe.*) and the folder by hand",
        ) from None


def names() -> list[str]:
    """All networks that have a folder."""
    return sorted(path.name for path in ROOT.glob("[a-z0-9]*") if path.is_dir())


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """One process at a time makes or removes networks."""
    ROOT.mkdir(mode=0o755, exist_ok=True)
    with (ROOT / ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def lock(name: str) -> int | None:
    """Become the owner of the name until the descriptor is closed; None: somebody else is."""
    folder = ROOT / name
    folder.mkdir(mode=0o755, exist_ok=True)
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    for _ in range(10):  # somebody who only looks holds it for a moment
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return handle
        except BlockingIOError:
            time.sleep(0.02)
    os.close(handle)
    return None


def running(name: str) -> bool:
    """Whether its owner lives."""
    try:
        handle = os.open(ROOT / name / LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def forget(name: str) -> None:
    """Remove its folder."""
    shutil.rmtree(ROOT / name, ignore_errors=True)


def all_running() -> list[State]:
    """Those whose owner lives, without any that is not written down yet."""
    return [state for name in names() if running(name) and (state := read(name)) is not None]


def find(name: str | None) -> State:
    """The running network of that name; without a name the only one. Raises SpecError."""
    found = [one for one in names() if running(one)]
    if name is None and len(found) > 1:
        raise SpecError(
            "several emulated networks are running", cause=", ".join(found), remedy="choose one with --name"
        )
    chosen = name or (found[0] if found else None)
    state = read(chosen) if chosen in found and chosen is not None else None
    if state is None:
        raise SpecError(
            f"no emulated network {name!r} is running" if name else "no emulated network is running",
            cause=f"running: {', '.join(found)}" if found else "none was started, or it has ended",
            remedy="start one: dualpath emulate -f FILE",
        )
    return state
