"""Becomes a child process that cannot outlive its supervisor.

Run as a script, with the supervisor's pid and the command:  python -I -S child.py PID COMMAND...
Linux keeps the death signal over execv; asking for it here instead of in a preexec_fn means that no Python
code runs between fork and exec of the supervisor, which may have threads. No imports of ours: quick to start.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Ask for SIGKILL at the supervisor's death, then become the command."""
    supervisor, *command = sys.argv[1:]
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(supervisor):  # it died before the signal was armed
        sys.exit(1)
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
