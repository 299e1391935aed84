"""What a check says, and where it looks."""

from __future__ import annotations

import resource
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is not as the spec says; `advice` ones let an engine start all the same."""

    what: str
    cause: str
    remedy: str
    advice: bool = False

    def __str__(self) -> str:
        """Three lines for people, as all errors; remedies of several lines are indented."""
        remedy = self.remedy.replace("\n", "\n    ")
        return f"fabric: {self.what}\n  cause:  {self.cause}\n  remedy: {remedy}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Where to look: recorded directories and figures in tests."""

    sysfs: Path = Path("/sys")
    dev: Path = Path("/dev")
    status: Path = Path("/proc/self/status")
    mounts: Path = Path("/proc/self/mounts")
    memlock: int = -1  # bytes that may be locked; -1: no limit

    @classmethod
    def this(cls) -> Machine:
        """The machine, and limits, of this process."""
        return cls(memlock=resource.getrlimit(resource.RLIMIT_MEMLOCK)[0])


def text_of(path: Path) -> str:
    """A small file's text; "": the device has gone, or is down."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
