"""Run in a node: puts other bytes under the names of some blocks of a Mooncake store, past all of DualPath.

python corrupt_blocks.py MASTERS COPIES SIZE < names; prints how many were changed. SIZE is of an object, in bytes.
"""

from __future__ import annotations

import sys

import numpy as np

from dualpath_worker.storage.mooncake_client import TCP
from dualpath_worker.storage.mooncake_link import StoreLink
from dualpath_worker.transfer.exit import leave


def main() -> int:
    """Exit code 0, or 1 without a store."""
    masters, copies, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    link = StoreLink(tuple(masters.split(",")), TCP, copies=copies)
    if not link.wait(30) or (client := link.client) is None:
        return 1
    data = np.zeros(size, np.uint8)
    client.register(data.ctypes.data, size)
    changed = 0
    for name in sys.stdin.read().split():
        if client.get(name, data.ctypes.data, size) != size:
            continue  # not there, or gone
        data[size // 2] ^= 1
        changed += client.remove(name) == 0 and client.put(name, data.ctypes.data, size) == 0
    sys.stdout.write(f"{changed}\n")
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    leave(main())
