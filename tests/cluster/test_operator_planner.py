"""Mode Planner: the load that a scheduler reports moves both roles together, and the Pods follow."""

from __future__ import annotations

from kube_api import Object
from pod_watch import PodWatch, Seen
from stories import Site, spec
from waiting import until

from dualpath_api.report import SideReport, SidesReport

BUDGET = 3
ROLE: Object = {"scaling": {"mode": "Planner", "maxReplicas": 4}, "resources": {"gpus": 1}}
PLANNED: Object = {
    "prefill": ROLE,
    "decode": ROLE,
    "gpuBudget": BUDGET,
    "pathPolicy": {"retune": {"interval": "1s"}},
    "drain": {"deadline": "5s"},
}


def load(prefill: int, decode: int) -> SidesReport:
    """How busy prefill is, and how full the KV caches of decode are, in permille."""
    return SidesReport(prefill=SideReport(busy_permille=prefill), decode=SideReport(kv_cache_permille=decode))


def pair(site: Site) -> tuple[int, int]:
    """What the planner has decided."""
    planned = site.status()["planned"]
    return planned["prefill"], planned["decode"]


def gpus(seen: Seen) -> int:
    """What all Pods of a moment ask for."""
    asked = [pod["spec"]["containers"][0]["resources"]["limits"] for pod in seen.pods.values()]
    return sum(int(limits["nvidia.com/gpu"]) for limits in asked)


def follows(site: Site, prefill: int, decode: int) -> None:
    """Wait for a decision, and for its Pods.

    An operator that saw engines come or go measures for half a minute before it decides anew; one that has just
    started goes on from the status at once.
    """
    (operator,) = site.operators
    assert operator.stop() == 0
    operator.start()
    until(lambda: pair(site) == (prefill, decode), 40, what=f"{prefill} prefill and {decode} decode groups")
    until(lambda: (site.serving("prefill"), site.serving("decode")) == (prefill, decode), 60)
    until(lambda: (len(site.pods("prefill")), len(site.pods("decode"))) == (prefill, decode), 60)
    site.ready()


def test_the_pair_moves_with_the_load_within_the_gpu_budget(site: Site) -> None:
    site.operator()
    site.apply(spec(1, 1, **PLANNED))
    site.ready()
    assert site.condition("ScalingActive")["reason"] != "Static"
    with PodWatch(site) as watch:
        site.engines.sides = load(prefill=950, decode=300)
        follows(site, 2, 1)
        last = site.status()["lastScale"]
        assert (last["reason"], last["before"], last["after"]) == (
            "PrefillDemand",
            {"prefill": 1, "decode": 1},
            {"prefill": 2, "decode": 1},
        )
        assert site.condition("ScalingActive")["status"] == "True"
        site.engines.sides = load(prefill=200, decode=950)
        follows(site, 1, 1)  # no GPU is free before a prefill group has gone
        follows(site, 1, 2)
        assert site.status()["lastScale"]["reason"] == "DecodeDemand"
        assert site.group("decode")["spec"]["replicas"] == 2
    assert max(gpus(seen) for seen in watch.seen) == BUDGET
    assert min(min(seen.serving("prefill"), seen.serving("decode")) for seen in watch.seen) == 1
