"""A device's own copies through its NIC: the right bytes, both ways, and an end that is known."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

COPIER = Path(__file__).with_name("local_copier.py")


@pytest.mark.parametrize("transports", ["tcp", "tcp,cma,self"])
def test_blocks_go_into_pages_and_back_and_nothing_else_is_touched(transports):
    done = subprocess.run(
        [sys.executable, "-P", str(COPIER)],
        env={**os.environ, "UCX_TLS": transports},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    told = done.stdout.splitlines()
    assert told[:3] == [
        "refused caches of another shape",
        "filled True others untouched True",
        "spilt True others untouched True",
    ]
    if transports == "tcp":  # cma has copied when it returns: nothing is ever overdue
        assert told[3:] == [
            "overdue True a copy through the NIC has not ended in -1 s",
            "overdue True an earlier copy through the NIC has not ended",
        ]
