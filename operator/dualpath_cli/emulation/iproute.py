"""iproute2's commands `ip` and `tc`, in batches, with errors that say what this machine lacks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from dualpath_api.errors import DualPathError, UnsupportedError

NETNS = Path("/run/netns")

Line = Sequence[str]
"""One command of a batch, without `ip` or `tc`."""


class NetworkError(DualPathError):
    """The kernel or iproute2 refused what it normally does."""


def check() -> None:
    """Raise UnsupportedError where networks cannot be made: not root, no iproute2."""
    if os.geteuid() != 0:
        raise UnsupportedError(
            "an emulated network cannot be made",
            cause="network namespaces need root, and this process is not",
            remedy="run it with sudo, or in a container with --privileged",
        )
    for tool in ("ip", "tc"):
        program(tool)


def program(tool: str) -> str:
    """The path of `ip` or `tc`. Raises UnsupportedError."""
    found = shutil.which(tool) or shutil.which(tool, path="/usr/sbin:/sbin")
    if found is None:
        raise UnsupportedError(
            "an emulated network cannot be made",
            cause=f"the command {tool} is missing",
            remedy="install the package iproute2",
        )
    return found


def batch(tool: str, lines: Iterable[Line], namespace: str | None = None) -> None:
    """Run the lines in order until one fails. Raises NetworkError or UnsupportedError."""
    text = "".join(" ".join(line) + "\n" for line in lines)
    if text:
        _run([program(tool), *_within(namespace), "-batch", "-"], text)


def query(tool: str, *arguments: str, namespace: str | None = None) -> list[dict[str, Any]]:
    """What the command prints as JSON. Raises NetworkError."""
    output = _run([program(tool), *_within(namespace), "-j", *arguments], "")
    return list(json.loads(output or "[]"))


def _within(namespace: str | None) -> list[str]:
    return [] if namespace is None else ["-n", namespace]


def _run(command: list[str], text: str) -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return done.stdout
    told = " ".join(done.stderr.split())
    if "qdisc kind is unknown" in told or "qdisc not found" in told.lower():
        raise UnsupportedError(
            "rates cannot be set", cause="this kernel has no tbf queue", remedy="load it: modprobe sch_tbf"
        )
    if "Operation not permitted" in told:
        raise UnsupportedError(
            "an emulated network cannot be made",
            cause=f"the kernel forbids it: {told}",
            remedy="give the container CAP_NET_ADMIN and CAP_SYS_ADMIN, for example with --privileged",
        )
    raise NetworkError(
        f"`{' '.join(command)}` failed",
        cause=told or "it gave no reason",
        remedy="look at its input: " + text,
    )
