"""Operator benchmark: many clusters of 4 prefill and 6 decode Pods on fake nodes, against a real API server.

Steps: create all and wait until each is Ready; stand idle; kill -9 and start again; roll some to a new
revision. What is counted are the operator's own writes (from the API server's audit log), its CPU time and
memory. The Pods are kwok's: they become ready, readiness gates included, as soon as they are scheduled. No
gateway answers, as no container runs: nothing is tuned, and drains end at once. Run by `make bench-operator`;
--write keeps the result.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import urllib3
import yaml
from controlplane import ControlPlane
from fake_nodes import FakeNodes, add_volumes
from operator_process import OperatorProcess
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "operator.json"
PEER_READY_S = 296.0
"""LWS 0.9.0 DisaggregatedSet, 500 resources of the same size on a like machine (2 cores, API server 1.34)."""

CLUSTERS = "dualpathclusters.dualpath.io"
CLUSTER = """
apiVersion: dualpath.io/v1alpha1
kind: DualPathCluster
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  model: {{uri: "hf://example/model", servedName: model}}
  prefill: {{scaling: {{replicas: 4}}, resources: {{dramBuffer: 1Gi, kvCache: 1Gi}}}}
  decode: {{scaling: {{replicas: 6}}, resources: {{dramBuffer: 1Gi, kvCache: 1Gi}}}}
  storage: {{files: {{size: 1Ti, claimName: shared}}}}
"""
TEAMS = 10
"""Namespaces that the clusters are spread over."""
console = Console(stderr=True)


class Bench:
    """One control plane with its operator."""

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        self.plane = plane
        self.kube = plane.kube
        settings = {
            "gatewayUrl": "http://127.0.0.1:9",
            "leaderElection": {"leaseDuration": "15s", "renewDeadline": "10s", "retryPeriod": "2s"},
        }
        self.operator = OperatorProcess(folder, plane.admin, settings, env={"POD_NAME": "bench-operator"})
        self._audited = 0
        self._clusters: dict[str, Any] = {}

    def prepare(self) -> None:
        """Kinds, nodes, and namespaces with the claim that their clusters share."""
        for file in sorted((ROOT / "crds").glob("*.yaml")):
            self.kube.apply_yaml(file.read_text())
        FakeNodes(self.kube).add(50, pods=250)
        add_volumes(self.kube, TEAMS)
        claim = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Ti"}}}
        for team in range(TEAMS):
            name = f"team-{team}"
            self.kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
            meta = {"name": "shared", "namespace": name}
            self.kube.create(
                {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": claim}
            )
        wait(lambda: self.kube.resource(CLUSTERS) is not None, 30, "the kinds")
        threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self) -> None:
        """Keep the newest state of all clusters: lists of all of them would load the API server."""
        path, version = "/apis/dualpath.io/v1alpha1/dualpathclusters", "0"
        while True:
            query = {"watch": "true", "resourceVersion": version, "timeoutSeconds": "600"}
            answer = self.kube.stream(path, timeout=660, **query)
            with contextlib.suppress(urllib3.exceptions.HTTPError):  # the end of the API server
                while line := answer.readline():
                    cluster = json.loads(line).get("object")
                    if cluster is None:  # the kind is not served yet
                        break
                    version = cluster["metadata"]["resourceVersion"]
                    self._clusters[cluster["metadata"]["name"]] = cluster
            time.sleep(0.1)

    def writes(self) -> Counter[str]:
        """The operator's writes since the last call, by verb and kind; the Lease apart."""
        found: Counter[str] = Counter()
        with self.plane.audit_log.open() as log:
            log.seek(self._audited)
            for line in log:
                if not line.endswith("\n"):
                    break
                self._audited += len(line.encode())
                call = json.loads(line)
                if call["verb"] not in {"create", "patch", "update", "delete"}:
                    continue
                if "aiohttp" not in call.get("userAgent", "") or call["responseStatus"]["code"] >= 500:
                    continue
                ref = call["objectRef"]
                if ref["resource"] == "leases":
                    continue
                kind = ref["resource"] + (f"/{ref['subresource']}" if ref.get("subresource") else "")
                found[f"{call['verb']} {kind}"] += 1
        return found

    def cpu_s(self) -> float:
        """CPU time of the operator."""
        fields = Path(f"/proc/{self.operator.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_mb(self) -> float:
        """Peak of its resident memory."""
        status = Path(f"/proc/{self.operator.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024

    def metric(self, name: str, **labels: str) -> float:
        """A sample of /metrics; 0 when it is not there."""
        url = f"http://127.0.0.1:{self.operator.http_port}/metrics"
        text = urllib3.request("GET", url).data.decode()
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def pass_quantile_s(self, quantile: float) -> float:
        """Upper bound of the bucket that holds a quantile of the passes."""
        total = self.metric("dualpath_operator_reconcile_duration_seconds_count")
        name = "dualpath_operator_reconcile_duration_seconds_bucket"
        bounds = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
        return next((b for b in bounds if self.metric(name, le=str(b)) >= quantile * total), float("inf"))

    def settled(self, names: set[str], revision_not: str = "") -> int:
        """How many of the clusters are Ready for their newest spec."""
        count = 0
        for item in list(self._clusters.values()):
            status = item.get("status", {})
            ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", ()))
            current = status.get("observedGeneration") == item["metadata"]["generation"]
            rolled = status.get("revision", {}).get("current") != revision_not
            count += item["metadata"]["name"] in names and ready and current and rolled
        return count


def team(cluster: str) -> str:
    """The namespace of a cluster, cN."""
    return f"team-{int(cluster[1:]) % TEAMS}"


def main() -> int:
    """0 if all bars hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clusters", type=int, default=500, help="how many")
    parser.add_argument("--rolled", type=int, default=50, help="how many are rolled to a new revision")
    parser.add_argument("--idle", type=float, default=300.0, help="seconds to stand idle")
    parser.add_argument("--write", action="store_true", help=f"write {RESULT.relative_to(ROOT)}")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="dualpath-bench-") as folder,
        ControlPlane(Path(folder), plain=True) as plane,
    ):
        bench = Bench(plane, Path(folder))
        bench.prepare()
        bench.operator.start()
        try:
            figures = measure(bench, options.clusters, options.rolled, options.idle)
        except BaseException:
            console.print(bench.operator.log.read_text()[-3000:], markup=False)
            raise
        finally:
            bench.operator.stop()
    return report(figures, options)


def measure(bench: Bench, clusters: int, rolled: int, idle_s: float) -> dict[str, Any]:
    """All figures."""
    names = [f"c{number}" for number in range(clusters)]
    figures: dict[str, Any] = {"clusters": clusters}
    bench.writes()
    started = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(
                lambda n: bench.kube.apply(yaml.safe_load(CLUSTER.format(name=n, namespace=team(n)))), names
            )
        )
    ready_at = {}
    for share in sorted({50, 200, clusters} & set(range(clusters + 1))):
        wait(lambda n=share: bench.settled(set(names)) >= n, 900, f"{share} clusters Ready")
        ready_at[str(share)] = round(time.monotonic() - started, 1)
        console.print(f"{share} Ready after {ready_at[str(share)]} s")
    figures["ready_s"] = ready_at
    figures["cpu_s"] = round(bench.cpu_s(), 1)
    quiet(bench, 60)
    writes = bench.writes()
    figures["writes_to_converge"] = dict(writes.most_common())
    figures["writes_a_cluster"] = round(sum(writes.values()) / clusters, 2)
    figures["rss_mb"] = round(bench.rss_mb())
    figures["pass_p50_s"], figures["pass_p99_s"] = bench.pass_quantile_s(0.5), bench.pass_quantile_s(0.99)
    console.print(figures)
    cpu, began = bench.cpu_s(), time.monotonic()
    time.sleep(idle_s)
    idle = bench.writes()
    figures["idle_s"] = idle_s
    figures["idle_writes"] = sum(idle.values())
    figures["idle_cpu_percent"] = round(100 * (bench.cpu_s() - cpu) / (time.monotonic() - began), 2)
    restart(bench, clusters, figures)
    roll(bench, names[:rolled], figures)
    figures["rss_mb_after_all"] = round(bench.rss_mb())
    return figures


def quiet(bench: Bench, within_s: float) -> None:
    """Wait until passes have stopped."""
    last, end = -1.0, time.monotonic() + within_s
    while time.monotonic() < end:
        count = bench.metric("dualpath_operator_reconcile_duration_seconds_count")
        if count == last:
            return
        last = count
        time.sleep(3.0)


def restart(bench: Bench, clusters: int, figures: dict[str, Any]) -> None:
    """Kill -9, start, and see what is done though nothing has changed."""
    bench.writes()
    bench.operator.kill()
    began = time.monotonic()
    bench.operator.start()
    passes = "dualpath_operator_reconcile_duration_seconds_count"
    wait(lambda: bench.metric("dualpath_operator_leader") == 1, 60, "the lease", every=0.02)
    leads = time.monotonic()
    wait(lambda: bench.metric(passes) >= 1, 60, "the first pass", every=0.02)
    figures["restart_to_lead_s"] = round(leads - began, 2)
    figures["first_pass_after_lead_s"] = round(time.monotonic() - leads, 2)
    wait(lambda: bench.metric(passes) >= clusters, 120, "a pass over each cluster")
    figures["all_passed_after_lead_s"] = round(time.monotonic() - leads, 2)
    quiet(bench, 60)
    writes = bench.writes()
    figures["restart_writes"] = sum(writes.values())
    figures["restart_written"] = dict(writes)


def roll(bench: Bench, names: list[str], figures: dict[str, Any]) -> None:
    """Roll some clusters to a new revision, all at once."""
    before = bench.kube.get(CLUSTERS, names[0], team(names[0]))["status"]["revision"]["current"]
    began = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        change = {"spec": {"restart": {"id": "again"}}}
        list(pool.map(lambda n: bench.kube.patch(CLUSTERS, n, change, team(n)), names))
    wait(lambda: bench.settled(set(names), before) >= len(names), 600, "the rollouts")
    figures["rolled"] = len(names)
    figures["rollout_s"] = round(time.monotonic() - began, 1)
    quiet(bench, 60)
    writes = bench.writes()
    figures["rollout_writes_a_cluster"] = round(sum(writes.values()) / len(names), 1)
    figures["rollout_written"] = dict(writes.most_common())


def wait(condition: Callable[[], bool], within_s: float, what: str, every: float = 0.25) -> None:
    """Wait for a condition, or fail."""
    end = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {within_s:.0f} s")
        time.sleep(every)


def report(figures: dict[str, Any], options: argparse.Namespace) -> int:
    """Print the table, write the result."""
    full = figures["clusters"] >= 500
    last = figures["ready_s"][str(figures["clusters"])]
    bars = [
        ("all Ready", last, "s", 0.65 * PEER_READY_S if full else None),
        ("writes a cluster to converge", figures["writes_a_cluster"], "", 19.0),
        ("CPU to converge", figures["cpu_s"], "s", 43.0 if full else None),
        ("peak memory", figures["rss_mb"], "MB", 150.0),
        ("writes while idle", figures["idle_writes"], "", 0.0),
        ("CPU while idle", figures["idle_cpu_percent"], "%", 0.5),
        ("first pass after a kill -9", figures["first_pass_after_lead_s"], "s", 2.0),
        ("writes after that", figures["restart_writes"], "", 0.0),
        ("rollout of some clusters", figures["rollout_s"], "s", 70.0),
        ("writes a rolled cluster", figures["rollout_writes_a_cluster"], "", 20.0),
        ("pass, 99th percentile", figures["pass_p99_s"], "s", 2.0),
    ]
    table = Table("figure", "measured", "wanted at most", title=f"{figures['clusters']} clusters")
    held = True
    for name, measured, unit, wanted in bars:
        good = wanted is None or measured <= wanted
        held &= good
        limit = "" if wanted is None else f"{wanted:g} {unit}"
        table.add_row(name, f"{measured} {unit}", limit if good else f"{limit}  MISSED")
    Console().print(table)
    if options.write:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
        ).stdout.strip()
        machine = {"cores": os.cpu_count(), "kind": platform.machine(), "python": platform.python_version()}
        command = "make bench-operator ARGS=--write"
        result = {"commit": commit, "machine": machine, "command": command, **figures}
        RESULT.write_text(json.dumps(result, indent=2) + "\n")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
