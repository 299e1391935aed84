"""The control groups of a real node: a subtree of its own, in the first or the second version of the hierarchy."""

from __future__ import annotations

import contextlib
from functools import partial
from pathlib import Path

from waiting import until

ROOT = Path("/sys/fs/cgroup")
UNIFIED = (ROOT / "cgroup.controllers").exists()


def create(name: str) -> None:
    """Make the node's groups, with all processors and memory in reach and every controller for its children."""
    for hierarchy in _hierarchies():
        (hierarchy / name).mkdir(exist_ok=True)
        for file in ("cpuset.cpus", "cpuset.mems"):
            if not UNIFIED and (hierarchy / file).exists():
                (hierarchy / name / file).write_text((hierarchy / file).read_text())
    if UNIFIED:
        controllers = " ".join(f"+{one}" for one in (ROOT / "cgroup.controllers").read_text().split())
        for group in (ROOT, ROOT / name):
            (group / "cgroup.subtree_control").write_text(controllers)


def remove(name: str) -> None:
    """Remove the node's groups; waits until its killed processes have left them."""
    for hierarchy in _hierarchies():
        if (hierarchy / name).exists():
            until(
                partial(_removed, hierarchy / name), 30, what=f"the control groups {hierarchy / name} to go"
            )


def exists(name: str) -> bool:
    """Whether any group of the node is left."""
    return any((hierarchy / name).exists() for hierarchy in _hierarchies())


def _hierarchies() -> list[Path]:
    return (
        [ROOT]
        if UNIFIED
        else [path for path in sorted(ROOT.iterdir()) if path.is_dir() and not path.is_symlink()]
    )


def _removed(top: Path) -> bool:
    groups = [path for path in top.rglob("*") if path.is_dir()]
    for group in [*sorted(groups, reverse=True), top]:
        with contextlib.suppress(OSError):  # still busy: looked at again
            group.rmdir()
    return not top.exists()
