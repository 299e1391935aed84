"""Owns a network until it is killed; a process of its own, to be killed. Arguments: the network's name."""

from __future__ import annotations

import signal
import sys

from dualpath_cli.emulation.layout import Layout, engine_node
from dualpath_cli.emulation.network import Network

with Network(Layout(name=sys.argv[1], nodes=(engine_node("p0", snic=10**8, cnic=10**8),))) as net:
    print(net.run("p0", ["sleep", "1000"]).pid, flush=True)
    signal.pause()
