"""Rollouts as the Pods show them: every change of a Pod is recorded, and what must always hold is held against it."""

from __future__ import annotations

import pytest
from forked_operators import merged
from kube_api import Kube
from kube_objects import MakeNamespace
from kwok_stages import BEHAVIOUR
from pod_watch import PodWatch, Seen
from stories import Bed, Site, is_serving, names_of, spec
from waiting import until

A, B = {"image": "dualpath/worker:a"}, {"image": "dualpath/worker:b"}
QUICK = {"resync": "1s"}


def revisions(seen: Seen, role: str, *, serving: bool = False) -> set[str]:
    """Revisions of a role's Pods."""
    return {pod["metadata"]["labels"]["dualpath.io/revision"] for pod in seen.of(role, serving=serving)}


def pairs(seen: Seen) -> bool:
    """Whether some revision can serve: both roles have a serving Pod of it."""
    return bool(revisions(seen, "prefill", serving=True) & revisions(seen, "decode", serving=True))


def most(watch: PodWatch, role: str) -> int:
    """The most Pods of a role that existed at a time."""
    return max(len(seen.of(role)) for seen in watch.seen)


def fewest(watch: PodWatch, role: str) -> int:
    """The fewest Pods of a role that served at a time."""
    return min(seen.serving(role) for seen in watch.seen)


def deleted_while_busy(site: Site, watch: PodWatch) -> set[str]:
    """Pods that went without having been reported empty."""
    return {seen.name for seen in watch.seen if seen.kind == "DELETED"} - site.engines.drained


def is_of(site: Site, image: str) -> bool:
    """Whether all engines serve from this image."""
    return all(
        is_serving(pod) and pod["spec"]["containers"][0]["image"] == f"dualpath/worker:{image}"
        for pod in site.pods()
    )


def test_a_rollout_keeps_capacity_pairs_and_the_ratio(site: Site) -> None:
    site.operator()
    site.apply(spec(2, 3, **A))
    site.ready()
    old = site.revision()
    with PodWatch(site) as watch:
        site.change(**B)
        until(lambda: site.condition("RolloutComplete").get("status") == "False", 30)
        site.ready()
    new = site.revision()
    assert old != new
    assert site.status()["revision"] == {"current": new, "updated": new}
    assert {pod["metadata"]["labels"]["dualpath.io/revision"] for pod in site.pods()} == {new}
    assert is_of(site, "b")
    assert (fewest(watch, "prefill"), fewest(watch, "decode")) == (2, 3)
    assert (most(watch, "prefill"), most(watch, "decode")) == (3, 4)
    assert all(pairs(seen) for seen in watch.seen)
    assert deleted_while_busy(site, watch) == set()


def test_without_surge_a_rollout_goes_on_within_what_may_be_unavailable(site: Site) -> None:
    site.operator()
    knobs = {"rollout": {"maxSurge": 0, "maxUnavailable": 1}}
    site.apply(spec(2, 2, **A, **knobs))
    site.ready()
    with PodWatch(site) as watch:
        site.change(**B)
        until(lambda: is_of(site, "b"), 90)
        site.ready()
    assert (most(watch, "prefill"), most(watch, "decode")) == (2, 2)
    assert (fewest(watch, "prefill"), fewest(watch, "decode")) == (1, 1)
    assert deleted_while_busy(site, watch) == set()


def test_back_to_the_former_revision_in_the_middle_keeps_what_serves(site: Site) -> None:
    site.operator()
    site.apply(spec(2, 2, **A))
    site.ready()
    old = names_of(site.pods())
    with PodWatch(site) as watch:
        site.change(**B)
        until(lambda: len(site.pods("prefill")) == 3, 30)
        site.change(**A)
        until(lambda: names_of(site.pods()) == old, 60)
        site.ready()
    gone = {seen.name for seen in watch.seen if seen.kind == "DELETED"}
    assert not gone & set(old)
    assert (fewest(watch, "prefill"), fewest(watch, "decode")) == (2, 2)


def test_more_are_wanted_in_the_middle_of_a_rollout(site: Site) -> None:
    site.operator()
    site.apply(spec(2, 2, **A))
    site.ready()
    with PodWatch(site) as watch:
        site.change(**B)
        until(lambda: len(site.pods("prefill")) == 3, 30)
        site.change(decode={"scaling": {"replicas": 3}})
        until(lambda: is_of(site, "b") and len(site.pods("decode")) == 3, 90)
        site.ready()
    assert (fewest(watch, "prefill"), fewest(watch, "decode")) == (2, 2)


def test_recreate_ends_all_old_engines_before_new_ones_come(site: Site) -> None:
    site.operator()
    site.apply(spec(2, 1, **A, rollout={"strategy": "Recreate"}))
    site.ready()
    with PodWatch(site) as watch:
        site.change(**B)
        until(lambda: len(site.pods()) == 3 and is_of(site, "b"), 60)
        site.ready()
    assert all(len(revisions(seen, role)) <= 1 for seen in watch.seen for role in ("prefill", "decode"))
    assert min(len(seen.pods) for seen in watch.seen) == 0
    assert deleted_while_busy(site, watch) == set()


def test_a_gpu_budget_that_binds_is_told_and_kept(site: Site) -> None:
    gpus = {"resources": {"gpus": 2}}
    site.operator()
    site.apply(spec(1, 1, **A, prefill=gpus, decode=gpus, gpuBudget=4))
    site.ready()
    assert site.status()["roles"]["prefill"]["gpus"] == 2
    with PodWatch(site) as watch:
        site.change(**B)
        until(lambda: "needs 4 GPUs, 0 of the budget of 4 free" in str(site.condition("RolloutComplete")), 30)
        assert site.condition("RolloutComplete")["reason"] == "InsufficientGpus"
        assert site.serving("prefill") == site.serving("decode") == 1
        site.change(gpuBudget=8)
        until(lambda: is_of(site, "b"), 60)
        site.ready()
    assert (fewest(watch, "prefill"), fewest(watch, "decode")) == (1, 1)


def test_a_rollout_that_makes_no_progress_is_stalled_until_it_does(site: Site) -> None:
    site.operator(**QUICK)
    site.apply(spec(1, 1, **A, rollout={"progressDeadline": "3s"}))
    site.ready()
    old = names_of(site.pods())
    site.change(image="dualpath/worker:missing")
    until(lambda: site.condition("Stalled")["reason"] == "ProgressDeadlineExceeded", 60)
    assert "ImagePullBackOff" in site.condition("RolloutComplete")["message"]
    assert set(old) <= set(names_of(site.pods()))
    assert site.serving("prefill") == site.serving("decode") == 1
    site.change(**B)
    until(lambda: is_of(site, "b"), 60)
    site.ready()
    assert site.condition("Stalled")["status"] == "False"


def test_failed_pods_are_replaced_and_unready_ones_waited_for(site: Site, kube: Kube) -> None:
    site.operator()
    site.apply(spec(2, 1))
    site.ready()
    first, second = site.pods("prefill")
    name = first["metadata"]["name"]
    kube.annotate("pods", name, site.namespace, {BEHAVIOUR: "evict"})
    until(lambda: first["metadata"]["uid"] not in {pod["metadata"]["uid"] for pod in site.pods()}, 60)
    until(lambda: site.serving("prefill") == 2, 60)
    site.ready()
    kept = second["metadata"]["name"]
    kube.annotate("pods", kept, site.namespace, {BEHAVIOUR: "unready"})
    until(lambda: site.condition("Ready")["status"] == "False", 30)
    assert site.status()["roles"]["prefill"]["ready"] == 1
    kube.annotate("pods", kept, site.namespace, {BEHAVIOUR: None})
    site.ready()
    assert second["metadata"]["uid"] in {pod["metadata"]["uid"] for pod in site.pods()}


def test_a_changed_restart_id_renews_all_engines(site: Site) -> None:
    site.operator()
    site.apply(spec(1, 1))
    site.ready()
    old = {pod["metadata"]["uid"] for pod in site.pods()}
    site.change(restart={"id": "again"})
    until(lambda: not old & {pod["metadata"]["uid"] for pod in site.pods()}, 60)
    site.ready()


def test_knobs_alone_renew_no_engine(site: Site) -> None:
    site.operator()
    site.apply(spec(1, 1))
    site.ready()
    old = names_of(site.pods())
    site.change(
        rollout={"maxSurge": 2},
        drain={"deadline": "40s"},
        gpuBudget=64,
        disruption={"maxUnavailable": 2},
        pathPolicy={"mode": "Split"},
    )
    site.ready()
    assert names_of(site.pods()) == old


@pytest.fixture
def several_nodes(bed: Bed, make_namespace: MakeNamespace) -> Site:
    """Where Pods may use the network of their node."""
    return Site(bed, make_namespace({}))


def test_pods_of_a_replica_over_several_nodes_go_and_come_together(several_nodes: Site, kube: Kube) -> None:
    site = several_nodes
    site.operator()
    over_two = {"parallelism": {"nodes": 2}}
    site.apply(spec(1, 1, prefill=over_two, fabric={"mode": "HostNetwork", "preflight": False}))
    site.ready()
    before = site.pods("prefill")
    assert [pod["metadata"]["labels"]["dualpath.io/node"] for pod in before] == ["0", "1"]
    assert len({pod["spec"]["nodeName"] for pod in before}) == 2
    kube.delete("pods", before[1]["metadata"]["name"], site.namespace)
    uids = {pod["metadata"]["uid"] for pod in before}
    until(lambda: not uids & {pod["metadata"]["uid"] for pod in site.pods("prefill")}, 60)
    until(lambda: site.serving("prefill") == 2, 60)
    site.ready()
    site.stop()


def test_a_change_of_the_number_of_nodes_is_a_rollout_like_any_other(several_nodes: Site) -> None:
    site = several_nodes
    site.operator()
    fabric = {"fabric": {"mode": "HostNetwork", "preflight": False}}
    site.apply(spec(1, 1, **fabric))
    site.ready()
    with PodWatch(site) as watch:
        site.apply(merged(spec(1, 1, **fabric), {"prefill": {"parallelism": {"nodes": 2}}}))
        until(lambda: len(site.pods("prefill")) == 2 and site.serving("prefill") == 2, 60)
        site.ready()
    assert all(pairs(seen) for seen in watch.seen)
    assert deleted_while_busy(site, watch) == set()
    site.stop()
