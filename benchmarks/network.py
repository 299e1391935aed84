"""Network benchmark: real bytes over rate-limited NICs, from a Mooncake store, on one and on both paths.

Prefill, decode and storage nodes are network namespaces (`dualpath emulate`). Agents re-send contexts that
are in the store, so that reading is all that takes time. Rounds of the ways to read (bed.py) take turns in
one run. Needs root. Run by `make bench-network`; --write keeps the result.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
from agents import BLOCK, Fleet
from bed import KV_PER_TOKEN, LOADED, NAME, RESULTS, Bed, bed, provenance
from rich.console import Console
from rich.table import Table

RESULT = RESULTS / "network.json"
CONTEXT = 512
BARS = {"1P1D": 0.95 * 2, "1P2D": 0.95 * 3, "2P1D": 0.95 * 1.5}
console = Console(stderr=True)


@contextmanager
def loaded(prefills: int, decodes: int, snic: int, agents: int, context: int) -> Iterator[tuple[Bed, Fleet]]:
    """A bed, and agents whose contexts are stored."""
    with bed(prefills, decodes, snic) as made:
        fleet = Fleet.of(made.cluster.openai, NAME, agents, context)
        made.use("oracle")  # nothing is measured yet
        fleet.store()
        yield made, fleet


def main() -> int:
    """0 if all bars hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--snic", type=int, default=100, help="Mbit/s of a storage NIC")
    parser.add_argument("--rounds", type=int, default=3, help="of each policy")
    parser.add_argument(
        "--only", choices=[*BARS, "idle", "online"], action="append", help="measure just this"
    )
    parser.add_argument("--write", action="store_true", help=f"put what was measured into {RESULT.name}")
    options = parser.parse_args()
    wanted = options.only or [*BARS, "idle", "online"]
    figures: dict[str, Any] = {}
    for name in BARS:
        if name in wanted:
            figures[name] = throughput(name, options.snic * 10**6, options.rounds)
            console.print(name, figures[name])
    if "idle" in wanted:
        figures["idle"] = idle(2 * options.snic * 10**6, options.rounds)
        console.print("idle", figures["idle"])
    if "online" in wanted:
        figures["online"] = online(options.snic * 10**6, options.turns)
        console.print("online", figures["online"])
    return report(figures, options)


# ---------------------------------------------------------------- what is measured


def throughput(name: str, snic: int, rounds: int) -> dict[str, Any]:
    """Turns per second of agents that wait for nothing but reads; ratios are to prefill-only."""
    prefills, decodes = int(name[0]), int(name[2])
    per_s: dict[str, list[float]] = {way: [] for way in LOADED}
    agents = 4 * prefills + 2 * decodes
    turns = 8 * agents
    with loaded(prefills, decodes, snic, agents=agents, context=CONTEXT) as (made, fleet):
        for _ in range(rounds):
            for way, found in per_s.items():
                made.use(way)
                before = counted(made)
                found.append(fleet.closed_loop(turns, skip=agents))
                console.print(f"{name} {way}: {found[-1]:.2f} turns/s, {fleet.recomputed} recomputed so far")
                if way == "split":
                    shares = overhead(made, before, counted(made), turns * CONTEXT * KV_PER_TOKEN)
    mean = {way: statistics.fmean(found) for way, found in per_s.items()}
    return {
        "turns_per_s": {way: round(value, 3) for way, value in mean.items()},
        "rounds": {way: [round(value, 3) for value in found] for way, found in per_s.items()},
        "ratio": {way: round(value / mean["prefill-only"], 3) for way, value in mean.items()},
        "turns_recomputed": fleet.recomputed,
        **shares,
    }


def idle(snic: int, rounds: int) -> dict[str, Any]:
    """Time to first token of one hit of 64 MiB, by who reads it."""
    took: dict[str, list[float]] = {way: [] for way in ("prefill-only", "decode-only", "split", "oracle")}
    tokens = (64 << 20) // KV_PER_TOKEN
    with loaded(1, 1, snic, agents=1, context=tokens) as (made, fleet):
        for _ in range(rounds):
            for way, found in took.items():
                made.use(way)
                found.append(fleet.turn(0).ttft_s)
    mean = {way: statistics.fmean(found) for way, found in took.items()}
    best = min(mean["prefill-only"], mean["decode-only"])
    return {
        "ttft_s": {way: round(value, 3) for way, value in mean.items()},
        "split_over_best": round(mean["split"] / best, 3),
    }


def online(snic: int, turns: int) -> dict[str, Any]:
    """Time to first token of turns that arrive at random, by load and policy."""
    found: dict[str, Any] = {}
    with loaded(1, 1, snic, agents=12, context=CONTEXT) as (made, fleet):
        capacity = 2 * snic / 8 / (CONTEXT * KV_PER_TOKEN)
        for load in (0.2, 0.5, 0.7):
            source = random.Random(7)
            gaps = [source.expovariate(load * capacity) for _ in range(turns)]
            row = found[f"{load:.0%}"] = {}
            for way in ("split", "paper", "prefill-only"):
                made.use(way)
                took = sorted(turn.ttft_s for turn in fleet.arrivals(gaps))
                p99 = took[min(len(took) - 1, round(0.99 * len(took)))]
                row[way] = {"mean_s": round(statistics.fmean(took), 3), "p99_s": round(p99, 3)}
                console.print(f"online {load:.0%} {way}: {row[way]}")
            row["split_over_paper"] = round(row["split"]["mean_s"] / row["paper"]["mean_s"], 3)
    return {"loads": found, "turns": turns}


def counted(made: Bed) -> dict[str, float]:
    """Bytes received by all engines' NICs of a kind, and CPU seconds by process."""
    nics = made.cluster.network.all_counters()
    found: dict[str, float] = {"snic": 0, "cnic": 0}
    for name, counters in nics.items():
        node, _, nic = name.partition(".")
        if node[0] in "pd":
            found[nic[:4]] += counters.rx_bytes
    for name, pid in made.cluster.pids.items():
        times = psutil.Process(pid).cpu_times()
        found[f"cpu {name}"] = times.user + times.system
    return found


def overhead(made: Bed, before: dict[str, float], after: dict[str, float], hit: int) -> dict[str, Any]:
    """What went over the NICs for the bytes of the hit.

    Each block of the prompt crosses the compute network once: what the decode side has read to the prefill
    engine, other hits and the one new block to the decode engine.
    """
    need = hit * (CONTEXT // BLOCK + 1) / (CONTEXT // BLOCK)
    delta = {key: after[key] - before.get(key, 0.0) for key in after}
    return {
        "storage_bytes_over_hit": round(delta["snic"] / hit, 3),
        "compute_bytes_over_need": round(delta["cnic"] / need, 3),
        "cpu_s_per_gb": {key[4:]: round(v / (hit / 1e9), 2) for key, v in delta.items() if key[:4] == "cpu "},
    }


# ---------------------------------------------------------------- what is told


def judged(figures: dict[str, Any]) -> Iterator[tuple[str, float, str, bool]]:
    """(figure, measured, wanted, held)."""
    for name, bar in BARS.items():
        if row := figures.get(name):
            ratio = row["ratio"]["split"]
            yield f"{name}: split over prefill-only", ratio, f">= {bar:.2f}", ratio >= bar
            lost = row["turns_recomputed"]
            yield f"{name}: turns that were partly recomputed", lost, "0", not lost
            for key in ("storage_bytes_over_hit", "compute_bytes_over_need"):
                yield f"{name}: {key.replace('_', ' ')}", row[key], "<= 1.05", row[key] <= 1.05
    if row := figures.get("idle"):
        value = row["split_over_best"]
        yield "64 MiB, idle: split over the best single path", value, "<= 0.55", value <= 0.55
    for load, row in figures.get("online", {}).get("loads", {}).items():
        value = row["split_over_paper"]
        yield f"online at {load}: mean TTFT of split over the paper's rule", value, "<= 0.9", value <= 0.9


def report(figures: dict[str, Any], options: argparse.Namespace) -> int:
    """Print the table, write the result."""
    table = Table("figure", "measured", "wanted")
    rows = list(judged(figures))
    for what, measured, wanted, held in rows:
        table.add_row(what, str(measured), wanted if held else f"{wanted}  MISSED")
    Console().print(table)
    if options.write:
        from_here = provenance("bench-network", sys.argv[1:])
        kept = json.loads(RESULT.read_text()) if RESULT.exists() else {}
        kept |= {name: {**from_here, **found} for name, found in figures.items()}
        RESULT.write_text(json.dumps(kept, indent=2) + "\n")
    return 0 if all(held for *_, held in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
