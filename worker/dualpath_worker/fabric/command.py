"""`python -P -m dualpath_worker.fabric --config FILE`: are the networks as the spec promises?

Runs before an engine, in a container of its own, so that KV never silently takes a slower network. Exit
code 0: all is well, or `--on-mismatch Degrade`; 1: it is not; 2: the spec cannot be read. `probe` measures
traffic classes between two machines, `classes` shows, sets and takes back those of TCP.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from dualpath_api.cluster import ClusterSpec
from dualpath_api.errors import DualPathError, SpecError
from dualpath_api.loading import load_cluster
from dualpath_api.spec.fabric import TrafficClasses
from dualpath_worker.fabric import queues
from dualpath_worker.fabric.findings import Finding, Machine
from dualpath_worker.fabric.marks import LINK_PART, check_classes
from dualpath_worker.fabric.preflight import PEERS, parse_peers, preflight
from dualpath_worker.fabric.probe import ProbeError, measure, serving
from dualpath_worker.nics import discover

_PROGRAM = "python -P -m dualpath_worker.fabric"


def main(arguments: Sequence[str] | None = None) -> int:
    """One of the commands."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    command = {"probe": probe, "classes": classes}.get(words[0] if words else "")
    try:
        return command(words[1:]) if command else check(words)
    except ProbeError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except DualPathError as error:
        sys.stderr.write(f"{error}\n")
        return 2


def check(arguments: Sequence[str]) -> int:
    """Check this machine."""
    parser = argparse.ArgumentParser(
        prog=_PROGRAM, description="Check a machine's networks against the spec."
    )
    parser.add_argument("--config", required=True, type=Path, help="DualPathCluster, as YAML or JSON")
    parser.add_argument("--on-mismatch", choices=["Fail", "Degrade"], help="default: what the spec says")
    parser.add_argument(
        "--peer",
        action="append",
        default=[],
        metavar="NIC=ADDRESS",
        help=f"must answer through the NIC; also {PEERS}, separated by commas",
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    given = parser.parse_args(arguments)
    spec, machine = load_cluster(given.config, ()).spec, Machine.this()
    peers = parse_peers(",".join([*given.peer, os.environ.get(PEERS, "")]))
    found = preflight(spec, peers, machine) + check_classes(spec, os.environ, machine)
    degrade = (given.on_mismatch or spec.fabric.on_mismatch) == "Degrade"
    return _tell(found, degrade=degrade, as_json=given.json)


def _tell(found: Sequence[Finding], *, degrade: bool, as_json: bool) -> int:
    wrong = [finding for finding in found if not finding.advice]
    if as_json:
        findings = [asdict(finding) for finding in found]
        told = {"ok": not wrong, "degraded": bool(wrong) and degrade, "findings": findings}
        sys.stdout.write(json.dumps(told) + "\n")
    else:
        sys.stderr.writelines(f"{finding}\n" for finding in found)
        if wrong and degrade:
            sys.stderr.write("warning: going on over a slower network, as fabric.onMismatch is Degrade\n")
    return 1 if wrong and not degrade else 0


def probe(arguments: Sequence[str]) -> int:
    """Measure what each class gets between two machines."""
    parser = argparse.ArgumentParser(
        prog=f"{_PROGRAM} probe", description="Measure traffic classes between two machines."
    )
    parser.add_argument(
        "--config", type=Path, help="DualPathCluster with fabric.trafficClasses; else defaults"
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    serve = verbs.add_parser("serve", help="receive, until it is ended")
    serve.add_argument("--address", required=True, help="address of the NIC to receive on")
    send = verbs.add_parser("send", help="send, and print what arrived and was lost as JSON")
    send.add_argument("--to", required=True, metavar="ADDRESS", help="address of a peer that serves")
    send.add_argument("--source", default="", metavar="ADDRESS", help="address of the NIC to send from")
    send.add_argument("--seconds", type=float, default=2.0, help="for each class, and for all (default: 2)")
    send.add_argument("--class", action="append", default=[], choices=["kv", "inference"], dest="names")
    send.add_argument("--kv-flows", type=int, default=1, help="flows of KV at once (default: 1)")
    given = parser.parse_args(arguments)
    marks = _classes_of(given.config)
    if given.verb == "serve":
        ends = {signal.SIGINT, signal.SIGTERM}
        signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # for all threads that come
        with serving(marks, given.address):
            sys.stdout.write("serving\n")
            sys.stdout.flush()
            signal.sigwait(ends)
        return 0
    measured = measure(
        marks,
        given.to,
        given.seconds,
        source=given.source,
        names=given.names,
        kv_flows=max(1, given.kv_flows),
    )
    sys.stdout.write(json.dumps(measured.as_json(), indent=2) + "\n")
    return 0


def classes(arguments: Sequence[str]) -> int:
    """Show, set or take back the traffic classes of TCP in this network namespace."""
    parser = argparse.ArgumentParser(
        prog=f"{_PROGRAM} classes", description="Traffic classes of TCP, by nftables and HTB."
    )
    parser.add_argument("verb", choices=["lines", "show", "apply", "remove"])
    parser.add_argument("--config", required=True, type=Path, help="DualPathCluster, as YAML or JSON")
    given = parser.parse_args(arguments)
    spec, marks = load_cluster(given.config, ()).spec, _classes_of(given.config)
    rates = _rates(spec)
    if given.verb == "lines":
        sys.stdout.write(queues.nft_lines(marks) + "\n")
        for device, rate in rates.items():
            sys.stdout.writelines(f"tc {line}\n" for line in queues.tc_lines(marks, device, rate))
    elif given.verb == "apply":
        queues.apply_marks(marks)
        for device, rate in rates.items():
            queues.apply_queues(marks, device, rate)
    elif given.verb == "remove":
        queues.remove(*rates)
    else:
        shaped = {device: _sent(device) for device in rates}
        sys.stdout.write(json.dumps({"marked": queues.marks(), "queues": shaped}, indent=2) + "\n")
    return 0


def _sent(device: str) -> dict[str, object]:
    return {name: asdict(sent) for name, sent in queues.queues(device).items()}


def _rates(spec: ClusterSpec) -> dict[str, int]:
    """Bit/s that the queues of each compute NIC give out. Raises SpecError where a speed is unknown."""
    found = {}
    for device in discover(spec.nics):
        if device.role == "compute" and not device.infiniband:
            if not device.link_bytes_per_s:
                raise SpecError(
                    f"the speed of {device.name} is not known",
                    cause="the kernel does not tell it",
                    remedy="give linkBps in its rule in spec.nics",
                )
            found[device.name] = int(LINK_PART * 8 * device.link_bytes_per_s)
    return found


def _classes_of(config: Path | None) -> TrafficClasses:
    """Those of the spec, else the defaults. Raises SpecError."""
    given = load_cluster(config, ()).spec.fabric.traffic_classes if config is not None else None
    return given or TrafficClasses()
