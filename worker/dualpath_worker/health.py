"""When an engine is beyond help, so that Kubernetes should start it anew.

Both ways on which KV comes in are covered: reads from storage and pulls from other engines. Each has a
deadline, after which the request goes on without it; one that hangs long after that holds its buffers, and a
thread, for good. A process that only waits for a slow peer or a busy store is never called stuck.
"""

from __future__ import annotations

from dualpath_worker.storage.io import ReadQueue
from dualpath_worker.transfer.agent import TransferAgent

STUCK_S = 60.0
"""Longer than UCX and the kernel need to give up a peer or a disk by themselves."""


def problems(reads: ReadQueue, agent: TransferAgent, *, stuck_s: float = STUCK_S) -> list[str]:
    """Why the process should be restarted; empty: it should not."""
    found = []
    if (hung := reads.stuck_s()) > stuck_s:
        found.append(f"a read from storage hangs {hung:.0f} s beyond its deadline")
    if (hung := agent.stuck_s()) > stuck_s:
        found.append(f"a transfer from another engine hangs {hung:.0f} s beyond its deadline")
    return found
