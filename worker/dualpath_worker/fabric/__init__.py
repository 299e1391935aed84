"""The networks of an engine: are they as the spec says, and is its traffic marked as the spec says?

`check` looks at the NICs that the rules name, `preflight` at the way to storage and to peers, `classes` maps
the spec's traffic classes to UCX, NCCL and lines for switches, `queues` marks and shapes TCP by nftables and
HTB, `marks` reads back, `probe` measures what each class gets. `command` is the command line of it.
"""

from dualpath_worker.fabric.check import check_fabric, fall_back
from dualpath_worker.fabric.command import main
from dualpath_worker.fabric.findings import Finding, Machine

__all__ = ["Finding", "Machine", "check_fabric", "fall_back", "main"]
