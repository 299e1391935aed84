"""What the model's collectives keep of a compute NIC that KV fills, with and without traffic classes.

Usage: python benchmarks/traffic_classes.py [--rounds 5] [--rate 400mbit] [--kv-flows 4] [--write]

One flow of the class of inference and several of KV share p0's emulated cnic0 towards d0 (root, iproute2).
Each round measures both ways, in turns; a figure is the median of the rounds. Marks are the senders' DSCP,
the classes HTB queues that give inference 99 % of what both want. `--write` keeps the result.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dualpath_api.spec.fabric import TrafficClasses
from dualpath_cli.emulation.layout import Layout, engine_node
from dualpath_cli.emulation.network import Network
from dualpath_cli.emulation.rates import parse_rate
from dualpath_worker.fabric.marks import LINK_PART
from dualpath_worker.fabric.queues import tc_lines

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "traffic_classes.json"
FABRIC = (sys.executable, "-P", "-m", "dualpath_worker.fabric")
Figures = dict[str, dict[str, dict[str, float]]]


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rate", default="400mbit", help="of the NIC (default: 400mbit)")
    parser.add_argument("--kv-flows", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=4.0, help="of one measurement (default: 4)")
    parser.add_argument("--write", action="store_true", help=f"write {RESULT.relative_to(ROOT)}")
    given = parser.parse_args()
    bits = parse_rate(given.rate)
    nodes = (engine_node("p0", snic=bits, cnic=bits), engine_node("d0", snic=bits, cnic=bits))
    rounds: dict[str, list[Figures]] = {"without": [], "with": []}
    with Network(Layout(name=f"classes-{os.getpid()}", nodes=nodes)) as net, _serving(net) as address:
        for number in range(given.rounds):
            for way in sorted(rounds, reverse=number % 2 == 0):
                _set(net, bits, classes=way == "with")
                rounds[way].append(_measured(net, address, given))
                _say(f"round {number + 1} {way:>7}: {_line(rounds[way][-1])}")
    table = {way: _medians(figures) for way, figures in rounds.items()}
    for way, row in table.items():
        _say(f"{way:>7} classes: " + ", ".join(f"{name} {value}" for name, value in row.items()))
    if given.write:
        RESULT.write_text(json.dumps(_result(given, table, rounds), indent=2) + "\n")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


@contextmanager
def _serving(net: Network) -> Iterator[str]:
    address = net.address("d0", "cnic0")
    command = [*FABRIC, "probe", "serve", "--address", address]
    process = net.run("d0", command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "serving\n"
    try:
        yield address
    finally:
        process.terminate()
        process.communicate()


def _set(net: Network, bits: int, *, classes: bool) -> None:
    """The NIC's queue: a token bucket, or HTB with classes within the same rate."""
    net.set_rate("p0.cnic0", bits)
    if classes:
        lines = "\n".join(tc_lines(TrafficClasses(), "cnic0", int(LINK_PART * bits)))
        subprocess.run(net.command("p0", ["tc", "-batch", "-"]), input=lines, text=True, check=True)


def _measured(net: Network, address: str, given: argparse.Namespace) -> Figures:
    words = ["--to", address, "--seconds", str(given.seconds), "--kv-flows", str(given.kv_flows)]
    done = subprocess.run(
        net.command("p0", [*FABRIC, "probe", "send", *words]), stdout=subprocess.PIPE, text=True, check=True
    )
    found: Figures = json.loads(done.stdout)
    return found


def _line(figures: Figures) -> str:
    together = figures["together"]
    return ", ".join(f"{name} {flow['bytes_per_s'] / 1e6:.1f} MB/s" for name, flow in together.items())


def _medians(rounds: list[Figures]) -> dict[str, float]:
    def median(when: str, name: str, figure: str, unit: float, digits: int) -> float:
        return round(statistics.median(r[when][name][figure] for r in rounds) / unit, digits)

    return {
        "inference_alone_mb_per_s": median("alone", "inference", "bytes_per_s", 1e6, 1),
        "inference_under_kv_mb_per_s": median("together", "inference", "bytes_per_s", 1e6, 1),
        "kv_alone_mb_per_s": median("alone", "kv", "bytes_per_s", 1e6, 1),
        "kv_under_inference_mb_per_s": median("together", "kv", "bytes_per_s", 1e6, 1),
        "inference_loss_under_kv": median("together", "inference", "loss", 1, 5),
        "kv_loss_under_inference": median("together", "kv", "loss", 1, 5),
    }


def _result(
    given: argparse.Namespace, table: dict[str, dict[str, float]], rounds: dict[str, list[Figures]]
) -> dict[str, object]:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    words = (
        f"--rounds {given.rounds} --rate {given.rate} --kv-flows {given.kv_flows} --seconds {given.seconds:g}"
    )
    return {
        "commit": commit.stdout.strip(),
        "command": f"python benchmarks/traffic_classes.py {words} --write",
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "median": table,
        "rounds": rounds,
    }


if __name__ == "__main__":
    main()
