"""Small JSON files by which processes say that they are ready: complete or absent, never half written."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Replace the file in one step."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_text(json.dumps(content, indent=2) + "\n")
    scratch.replace(path)


def read(path: Path) -> dict[str, Any] | None:
    """The content; None while there is no file."""
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    return dict(content)
