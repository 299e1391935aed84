"""An API server that refuses, stutters, hangs up and is slow: what comes of a cluster is the same as with a good one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from chaos_proxy import MUTATING, ChaosProxy, Fault
from kube_objects import MakeNamespace
from normalised import normalised
from stories import CLUSTERS, Bed, Site, settled, spec
from waiting import until

Outcome = dict[str, dict[str, dict[str, object]]]


def play(site: Site, proxy: ChaosProxy, harm: tuple[Fault, ...] = (), cuts: int = 0) -> Outcome:
    """Create, roll out and delete a cluster, with the same harm in each; what there was after each."""
    found: Outcome = {}
    image = "dualpath/worker:new"
    for story in ("creation", "rollout", "deletion"):
        for fault in harm:
            fault.used = 0
            proxy.inject(fault)
        if story == "creation":
            site.apply(spec(1, 1))
        elif story == "rollout":
            site.change(image=image)
        else:
            site.delete()
        for _ in range(cuts):
            until(proxy.cut_watches, 10)
        if story == "deletion":
            until(lambda: site.kube.find(CLUSTERS, site.cluster, site.namespace) is None, 120)
            until(lambda: normalised(site) == {}, 60)
        else:
            until(lambda s=story: done(site, s == "rollout", image), 120, what=f"the {story}")
        settled(proxy.writes)
        found[story] = normalised(site)
        assert all(fault.used for fault in harm), harm
        proxy.clear()
    site.operators[0].running()
    return found


def done(site: Site, rollout: bool, image: str) -> bool:
    """Whether a story has come to its end."""
    site.operators[0].running()
    images = {pod["spec"]["containers"][0]["image"] for pod in site.pods()}
    return site.is_ready() and (not rollout or images == {image})


@pytest.fixture
def proxy(bed: Bed) -> Iterator[ChaosProxy]:
    with bed.plane.chaos_proxy() as running:
        yield running


@pytest.fixture
def disturbed(bed: Bed, proxy: ChaosProxy, make_namespace: MakeNamespace) -> Iterator[Site]:
    """A site whose operator goes through the proxy."""
    made = Site(bed, make_namespace(), server=proxy.url)
    operator = made.operator()
    until(lambda: operator.running() and operator.leads, 30)
    yield made
    made.stop()


@pytest.fixture(scope="session")
def undisturbed() -> Outcome:
    """Filled by the first test that needs it."""
    return {}


def writes(**options: object) -> Fault:
    """A fault of writes, leases apart: a leader that cannot renew has to end."""
    return Fault(methods=MUTATING, path="^(?!.*/(leases|events)).*$", **options)  # type: ignore[arg-type]


HARMS: dict[str, tuple[Fault, ...]] = {
    "conflicts": (writes(status=409, times=3),),
    "too-many-requests": (writes(status=429, retry_after=1, times=3),),
    "server-errors": (writes(status=500, times=3),),
    "lost-answers": (writes(lost_answer=True, times=4),),
    "latency": (writes(delay=2.0, times=5),),
}


@pytest.mark.parametrize("harm", HARMS)
def test_it_comes_to_the_same(
    harm: str,
    disturbed: Site,
    proxy: ChaosProxy,
    undisturbed: Outcome,
    bed: Bed,
    make_namespace: MakeNamespace,
) -> None:
    if not undisturbed:
        undisturbed.update(reference(bed, make_namespace))
    assert play(disturbed, proxy, HARMS[harm]) == undisturbed


def test_watches_that_are_cut_or_expired_come_to_the_same(
    disturbed: Site, proxy: ChaosProxy, undisturbed: Outcome, bed: Bed, make_namespace: MakeNamespace
) -> None:
    if not undisturbed:
        undisturbed.update(reference(bed, make_namespace))
    expired = Fault(status=410, watch=True, times=5)
    assert play(disturbed, proxy, (expired,), cuts=3) == undisturbed


def reference(bed: Bed, make_namespace: MakeNamespace) -> Outcome:
    """The same stories with an API server that behaves."""
    with bed.plane.chaos_proxy() as calm:
        site = Site(bed, make_namespace(), server=calm.url)
        operator = site.operator()
        until(lambda: operator.leads, 30)
        try:
            return play(site, calm)
        finally:
            site.stop()
