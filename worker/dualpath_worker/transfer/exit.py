"""How a process ends that has used UCX: never through the interpreter's own exit.

Unloading UCX runs destructors of libraries that crash on some hosts (rc 139), which a supervisor would
count as a crash of the engine. So a worker cleans up what is its own, and then leaves without running
destructors.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import NoReturn


def leave(code: int) -> NoReturn:
    """Flush logs and standard streams, then end the process with `code`; atexit handlers do not run."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # the reader is gone, or the stream is closed
            continue
    os._exit(code)
