"""Layouts for the tests."""

from __future__ import annotations

import itertools
import os

from dualpath_cli.emulation.layout import Layout, Node, engine_node, storage_node

MBIT = 10**6
_numbers = itertools.count()


def layout(*nodes: Node) -> Layout:
    """A network of these nodes, with a name of its own; default: p0 and d0 with 100 Mbit/s to s0, which has 400."""
    chosen = nodes or (
        engine_node("p0", snic=100 * MBIT, cnic=400 * MBIT),
        engine_node("d0", snic=100 * MBIT, cnic=400 * MBIT),
        storage_node("s0", snic=400 * MBIT),
    )
    return Layout(name=f"test-{os.getpid()}-{next(_numbers)}", nodes=chosen)
