"""An API server that refuses, stutters, hangs up and is slow: what comes of a cluster is the same as with a good one."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from chaos_proxy import MUTATING, ChaosProxy, Fault
from kube_objects import MakeNamespace
from normalised import normalised
from stories import CLUSTERS, PATIENT, Bed, Site, settled, spec
from waiting import until

Outcome = dict[str, dict[str, dict[str, object]]]
IMAGE = "dualpath/worker:new"


@dataclass(frozen=True, slots=True, kw_only=True)
class Harm:
    """What goes wrong in each story: faults, and watches that are all cut so many times."""

    faults: tuple[Fault, ...] = ()
    cuts: int = 0


def writes(**options: object) -> Harm:
    """A fault of writes, leases apart: a leader that cannot renew has to end."""
    return Harm(faults=(Fault(methods=MUTATING, path="^(?!.*/(leases|events)).*$", **options),))  # type: ignore[arg-type]


HARMS = {
    "none": Harm(),
    "conflicts": writes(status=409, times=3),
    "too many requests": writes(status=429, retry_after=1, times=3),
    "server errors": writes(status=500, times=3),
    "lost answers": writes(lost_answer=True, times=4),
    "latency": writes(delay=2.0, times=5),
    "expired and cut watches": Harm(faults=(Fault(status=410, watch=True, times=5),), cuts=3),
}


def play(site: Site, proxy: ChaosProxy, harm: Harm) -> Outcome:
    """Create, roll out and delete a cluster, with the same harm in each; what there was after each."""
    (operator,) = site.operators
    until(lambda: operator.running() and operator.leads, 60)
    found: Outcome = {}
    for story in ("creation", "rollout", "deletion"):
        for fault in harm.faults:
            fault.used = 0
            proxy.inject(fault)
        if story == "creation":
            site.apply(spec(1, 1))
        elif story == "rollout":
            site.change(image=IMAGE)
        else:
            site.delete()
        for _ in range(harm.cuts):
            until(proxy.cut_watches, 30)
        until(lambda story=story: done(site, story), 180, what=f"the end of the {story}", every=0.25)
        settled(proxy.writes)
        found[story] = normalised(site)
        assert all(fault.used for fault in harm.faults), harm
        proxy.clear()
    operator.running()
    return found


def done(site: Site, story: str) -> bool:
    """Whether a story has come to its end."""
    site.operators[0].running()
    if story == "deletion":
        return site.kube.find(CLUSTERS, site.cluster, site.namespace) is None and normalised(site) == {}
    images = {pod["spec"]["containers"][0]["image"] for pod in site.pods()}
    return site.is_ready() and (story == "creation" or images == {IMAGE})


@pytest.mark.timeout(600)
def test_whatever_the_api_server_does_to_the_operator_the_same_comes_of_a_cluster(
    bed: Bed, make_namespace: MakeNamespace
) -> None:
    """All at once: each has its own proxy, operator and namespace, and mostly waits."""
    played: dict[str, Future[Outcome]] = {}
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(len(HARMS)))
        for name, harm in HARMS.items():
            proxy = stack.enter_context(bed.plane.chaos_proxy())
            site = Site(bed, make_namespace(), server=proxy.url)
            stack.callback(site.stop)
            site.operator(**PATIENT)
            played[name] = pool.submit(play, site, proxy, harm)
        wrong = {name: error for name, future in played.items() if (error := future.exception())}
        assert not wrong
    undisturbed = played["none"].result()
    assert {name for name, future in played.items() if future.result() != undisturbed} == set()
