"""Every fault in turn, on the emulated network, under a load whose tokens are compared with transformers'.

For each fault: some seconds of calm, the fault, how long until the load runs as before, then a pause in which all
blocks must be given back. Prints a table; exit code 1 where a token was wrong, a request hung or was lost,
the load did not recover, or blocks leaked. Run by `make test-faults`.
"""

from __future__ import annotations

import argparse
import itertools
import os
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from subprocess import PIPE

from checkpoints import cached_checkpoint
from client import BLOCK, blocks_used, call, fresh, metric
from fault_load import WINDOW_S, Load, Outcome, Prompt, prompts
from rich.console import Console
from rich.table import Table
from transformers_side import TransformersSide

from dualpath_api.keys import all_keys
from dualpath_cli.emulation.embedded import Emulated, emulated
from dualpath_cli.emulation.store import ETCD_PORT
from dualpath_worker.models import load_model
from dualpath_worker.storage.blockfile import BlockFormat
from dualpath_worker.storage.factory import DEFAULT_DOMAIN

FILE = """\
apiVersion: dualpath.io/v1alpha1
kind: DualPathEmulation
metadata: {name: never-used}
spec:
  prefill: {nodes: 2, snic: 100mbit, cnic: 800mbit}
  decode: {nodes: 2, snic: 100mbit, cnic: 800mbit}
  storage: {kind: mooncake, nodes: 3, copies: 2, masters: 2, etcd: 3, size: 64Mi}
  cluster:
    apiVersion: dualpath.io/v1alpha1
    kind: DualPathCluster
    metadata: {name: faults}
    spec:
      model: {uri: "file:///given/by/flag", servedName: tiny, dtype: float32}
      prefill: {resources: {dramBuffer: 64Mi, kvCache: 1Mi}}
      decode: {resources: {dramBuffer: 64Mi, kvCache: 64Mi}}
"""
LASTS_S = 20.0
RECOVERY_S = 60.0
WANTED_S = 15.0
SAME = 0.7
"""Part of the calm rate at which the load counts as running as before."""
console = Console(stderr=True)


@dataclass(frozen=True, slots=True)
class Fault:
    """`inject` begins it; what it returns ends it, after `lasts_s`."""

    name: str
    inject: Callable[[Emulated], Callable[[], None]]
    lasts_s: float = 0.0
    may_lose: bool = False  # requests that nothing could have served


def killed(process: str) -> Callable[[Emulated], Callable[[], None]]:
    """kill -9."""

    def inject(cluster: Emulated) -> Callable[[], None]:
        os.kill(cluster.pids[process], signal.SIGKILL)
        return lambda: None

    return inject


def stopped(process: str) -> Callable[[Emulated], Callable[[], None]]:
    """SIGSTOP, then SIGCONT."""

    def inject(cluster: Emulated) -> Callable[[], None]:
        pid = cluster.pids[process]
        os.kill(pid, signal.SIGSTOP)

        def go_on() -> None:
            with suppress(ProcessLookupError):  # it was given up and replaced
                os.kill(pid, signal.SIGCONT)

        return go_on

    return inject


def cut(nic: str) -> Callable[[Emulated], Callable[[], None]]:
    """The cable is pulled."""

    def inject(cluster: Emulated) -> Callable[[], None]:
        cluster.network.cut(nic)
        return lambda: cluster.network.restore(nic)

    return inject


def slowed(nic: str, rate: str) -> Callable[[Emulated], Callable[[], None]]:
    """A NIC at another rate."""

    def inject(cluster: Emulated) -> Callable[[], None]:
        before = cluster.network.links()[nic].bits_per_s
        cluster.network.set_rate(nic, rate)
        return lambda: cluster.network.set_rate(nic, "unlimited" if before is None else before)

    return inject


def corrupted(cluster: Emulated) -> Callable[[], None]:
    """Other bytes in one block of a hundred, at least in four."""
    model = load_model(cached_checkpoint("qwen3"), "float32", "cpu")
    layout = model.layout(BLOCK)
    keys = sorted({key for prompt in known() for key in all_keys(layout, prompt.tokens)})
    names = "\n".join(f"{DEFAULT_DOMAIN}/{key.hex()}" for key in keys[:: min(100, len(keys) // 4)])
    ends = [f"{cluster.network.address(f's{n}', 'snic0')}:{ETCD_PORT}" for n in range(3)]
    size = BlockFormat(layout).file_bytes
    command = [
        sys.executable,
        str(Path(__file__).with_name("corrupt_blocks.py")),
        ",".join(ends),
        "2",
        str(size),
    ]
    process = cluster.network.run("s0", command, stdin=PIPE, stdout=PIPE, text=True)
    told, _ = process.communicate(names, timeout=60)
    if not told.strip() or int(told) == 0:
        raise RuntimeError(f"no block was corrupted (exit code {process.returncode})")
    console.print(f"{told.strip()} of {len(keys)} blocks were corrupted")

    def end() -> None:
        engines = [name for name in cluster.pids if name.startswith(("prefill", "decode"))]
        seen = sum(metric(cluster, e, "dualpath_storage_errors_total", kind="corrupt") for e in engines)
        if not seen:
            raise RuntimeError("nobody has read a corrupt block")

    return end


def filled(cluster: Emulated) -> Callable[[], None]:
    """More new contexts than the store has room for: their own blocks, or those of others, have to go."""
    stop = threading.Event()

    def write(number: int) -> None:
        for turn in itertools.count():
            if stop.is_set():
                return
            body = {"model": "tiny", "prompt": fresh(3000, (number, turn)), "max_tokens": 1}
            with suppress(OSError):
                call(f"{cluster.openai}/completions", body)

    writers = [threading.Thread(target=write, args=(number,), daemon=True) for number in range(2)]
    for writer in writers:
        writer.start()

    def end() -> None:
        stop.set()
        for writer in writers:
            writer.join(120)

    return end


def storm(cluster: Emulated) -> Callable[[], None]:
    """Every engine once within a minute."""
    engines = [name for name in cluster.pids if name.startswith(("prefill", "decode"))]
    for engine in engines:
        os.kill(cluster.pids[engine], signal.SIGKILL)
        time.sleep(60.0 / len(engines))
    return lambda: None


FAULTS = (
    Fault("kill prefill engine", killed("prefill-0-0")),
    Fault("kill decode engine", killed("decode-0-0")),
    Fault("stop prefill engine", stopped("prefill-1-0"), LASTS_S),
    Fault("stop decode engine", stopped("decode-1-0"), LASTS_S),
    Fault("kill store node", killed("store-1")),
    Fault("stop store node", stopped("store-2"), LASTS_S),
    Fault("slow store node", slowed("s2.snic0", "10mbit"), LASTS_S),
    Fault("kill master", killed("store-master-0")),
    Fault("kill member of etcd", killed("store-etcd-0")),
    Fault("kill gateway", killed("gateway"), may_lose=True),
    *(Fault(f"cut {nic}", cut(nic), LASTS_S) for nic in (
        "p0.snic0", "p0.cnic0", "d0.snic0", "d0.cnic0", "s1.snic0",
    )),
    Fault("corrupt 1 % of blocks", corrupted, LASTS_S),
    Fault("store full", filled, 3 * LASTS_S),
    Fault("restart storm", storm),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What one fault did."""

    fault: Fault
    outcomes: Counter[Outcome]
    told: tuple[str, ...]  # of what went wrong
    calm_per_s: float
    recovered_s: float | None
    leaked: float  # blocks

    @property
    def held(self) -> bool:
        """Whether it is as it should be."""
        bad = self.outcomes[Outcome.WRONG] + self.outcomes[Outcome.HUNG]
        lost = 0 if self.fault.may_lose else self.outcomes[Outcome.LOST]
        quick = self.recovered_s is not None and self.recovered_s <= WANTED_S
        served = self.calm_per_s > 0 and self.outcomes[Outcome.RIGHT] > 0
        return served and not bad and not lost and quick and not self.leaked


def main() -> int:
    """0 if every fault was survived as it should be."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="only faults with this in their name")
    options = parser.parse_args()
    known()
    with running() as cluster:
        rows = [suffer(cluster, fault) for fault in FAULTS if options.only in fault.name]
    table = Table(
        "fault", "right", "wrong", "hung", "lost", "refused", "per s before", "recovered", "leaked", ""
    )
    for row in rows:
        counts = [row.outcomes[o] for o in (Outcome.RIGHT, Outcome.WRONG, Outcome.HUNG, Outcome.LOST)]
        recovered = "never" if row.recovered_s is None else f"{row.recovered_s:.1f} s"
        table.add_row(
            row.fault.name, *map(str, counts), str(row.outcomes[Outcome.REFUSED]), f"{row.calm_per_s:.1f}",
            recovered, f"{row.leaked:.0f}", "" if row.held else "SHORT",
        )  # fmt: skip
    Console().print(table)
    return 0 if all(row.held for row in rows) else 1


@cache
def known() -> list[Prompt]:
    """The prompts of the load, with what transformers says."""
    return prompts(TransformersSide(cached_checkpoint("qwen3")).greedy, 40)


@contextmanager
def running() -> Iterator[Emulated]:
    """The whole system."""
    model = cached_checkpoint("qwen3")
    with tempfile.TemporaryDirectory(prefix="dualpath-faults-") as folder:
        file = Path(folder) / "emulation.yaml"
        file.write_text(FILE)
        with emulated(file, model=model, name=f"faults-{os.getpid()}") as cluster:
            yield cluster


def suffer(cluster: Emulated, fault: Fault) -> Row:
    """One fault under load."""
    with Load(lambda: cluster.openai, known()) as load:
        began = time.monotonic()
        time.sleep(3 * WINDOW_S)  # the first window fills stores and pipelines
        now = time.monotonic()
        calm = load.rate(now - 2 * WINDOW_S, now)
        end = fault.inject(cluster)
        time.sleep(fault.lasts_s)
        end()
        recovered = load.recovered_s(time.monotonic(), SAME * calm, RECOVERY_S)
    outcomes = Counter(done.outcome for done in load.done if done.began >= began)
    told = tuple({f"{d.outcome}: {d.told}" for d in load.done if d.outcome is not Outcome.RIGHT})
    row = Row(
        fault=fault,
        outcomes=outcomes,
        told=told,
        calm_per_s=calm,
        recovered_s=recovered,
        leaked=leaked(cluster, RECOVERY_S),
    )
    console.print(fault.name, dict(outcomes), "recovered:", recovered, "leaked:", row.leaked, *told[:6])
    return row


def leaked(cluster: Emulated, within_s: float) -> float:
    """Blocks that are held though nothing runs, after so long."""
    end, used = time.monotonic() + within_s, float("inf")
    while used and time.monotonic() < end:
        with suppress(OSError):  # an engine starts
            used = blocks_used(cluster)
        time.sleep(0.5)
    return used


if __name__ == "__main__":
    sys.exit(main())
