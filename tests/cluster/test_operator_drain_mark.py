"""A person marks an engine Pod: it is drained with proof, deleted, and another one takes its place."""

from __future__ import annotations

from stories import Site, names_of, spec
from waiting import until

MARK = "dualpath.io/drain"


def test_a_marked_pod_is_replaced_once_its_work_is_done(site: Site) -> None:
    site.operator()
    site.apply(spec(1, 2))
    site.ready()
    first, second = site.pods("decode")
    name = first["metadata"]["name"]
    site.engines.in_flight[name] = 1
    site.bed.kube.annotate("pods", name, site.namespace, {MARK: "true"})
    until(lambda: len(site.pods("decode")) == 3, 60)  # another one comes before it goes
    assert name in names_of(site.pods("decode"))
    site.engines.in_flight[name] = 0
    until(lambda: name not in names_of(site.pods("decode")), 60)
    site.ready()
    left = names_of(site.pods("decode"))
    assert len(left) == 2
    assert second["metadata"]["name"] in left
    assert name in site.engines.drained


def test_a_mark_that_is_taken_back_leaves_the_pod_in_service(site: Site) -> None:
    site.operator()
    site.apply(spec(1, 1, rollout={"maxSurge": 0, "maxUnavailable": 1}))
    site.ready()
    (pod,) = site.pods("decode")
    name = pod["metadata"]["name"]
    site.engines.in_flight[name] = 1
    site.bed.kube.annotate("pods", name, site.namespace, {MARK: "true"})
    until(lambda: not site.engines.drains[pod["metadata"]["uid"]].accept_new, 60)
    site.bed.kube.annotate("pods", name, site.namespace, {MARK: None})
    until(lambda: site.engines.drains[pod["metadata"]["uid"]].accept_new, 60)
    site.ready()
    assert [one["metadata"]["uid"] for one in site.pods("decode")] == [pod["metadata"]["uid"]]
