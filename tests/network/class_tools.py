"""The fabric commands in a node, as people run them, and what they need on this machine."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dualpath_cli.emulation.network import Network

FABRIC = (sys.executable, "-P", "-m", "dualpath_worker.fabric")
ALL_OVER_TCP = {"UCX_TLS": "tcp,self"}  # cma would pass bytes between namespaces without any network


def cluster(folder: Path, net: Network, node: str, **more: Any) -> str:
    """A cluster file for a node, with the rates of its NICs; `more` goes into the spec."""
    role = {"resources": {"dramBuffer": "1Mi", "kvCache": "1Mi"}}
    rates = {
        name.partition(".")[2]: link for name, link in net.links().items() if name.startswith(f"{node}.")
    }
    roles = {"s": "storage", "c": "compute"}
    spec = {
        "model": {"uri": "file:///none", "servedName": "tiny"},
        "prefill": role,
        "decode": role,
        "storage": {"files": {"path": "/none", "size": "1Gi"}},
        "nics": [
            {"role": roles[nic[0]], "match": nic, "linkBps": link.bits_per_s} for nic, link in rates.items()
        ],
        "fabric": {"mode": "HostNetwork", "trafficClasses": {}},
    } | more
    head = {"apiVersion": "dualpath.io/v1alpha1", "kind": "DualPathCluster", "metadata": {"name": "t"}}
    file = folder / f"{node}.json"
    file.write_text(json.dumps({**head, "spec": spec}))
    return str(file)


def fabric(net: Network, node: str, *arguments: str) -> tuple[int, Any]:
    """Exit code, and what it printed as JSON; else its errors."""
    done = subprocess.run(
        net.command(node, [*FABRIC, *arguments]), capture_output=True, text=True, check=False, timeout=120
    )
    return done.returncode, json.loads(done.stdout) if done.stdout else done.stderr


def found(net: Network, node: str, config: str, *arguments: str) -> tuple[int, list[str], list[str]]:
    """Exit code of a check, what is wrong, and what is advice."""
    code, told = fabric(net, node, "--config", config, "--json", *arguments)
    wrong = [finding["what"] for finding in told["findings"] if not finding["advice"]]
    return code, wrong, [finding["what"] for finding in told["findings"] if finding["advice"]]


@contextmanager
def serving_probes(net: Network, node: str, nic: str) -> Iterator[str]:
    """A node that receives probes; its address."""
    address = net.address(node, nic)
    command = [*FABRIC, "probe", "serve", "--address", address]
    process = net.run(node, command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "serving\n"
        yield address
    finally:
        process.terminate()
        process.communicate(timeout=30)
        assert process.returncode == 0
