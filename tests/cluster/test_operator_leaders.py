"""Two replicas, one leader: who acts when it dies, stops, or loses its Lease."""

from __future__ import annotations

import json
import signal

from forked_operators import Operator
from kube_api import Kube
from stories import LEASE, WRITES, Site, spec
from waiting import until

LEASES = "leases.coordination.k8s.io"


def holder(site: Site) -> str:
    """Who holds the Lease."""
    lease = site.kube.find(LEASES, LEASE, site.namespace)
    return str((lease or {}).get("spec", {}).get("holderIdentity") or "")


def two(site: Site) -> tuple[Operator, Operator]:
    """A leader, and one that waits; each has an account of its own name."""
    first = site.operator("first", account="first")
    until(lambda: first.leads, 30)
    return first, site.operator("second", account="second")


def turns(site: Site) -> list[str]:
    """Who wrote, in the order of the audit log, leases apart; a row of one's writes counts once."""
    found: list[str] = []
    with site.bed.plane.audit_log.open() as lines:
        for event in map(json.loads, lines):
            target, user = event.get("objectRef", {}), event["user"]["username"]
            mine = target.get("namespace") == site.namespace and target.get("resource") != "leases"
            if mine and event["verb"] in WRITES and user.startswith("system:serviceaccount:"):
                name = user.rpartition(":")[2]
                found += [name] if found[-1:] != [name] else []
    return found


def in_a_rollout(site: Site) -> None:
    """Start a rollout and wait until it is under way."""
    site.change(image="dualpath/worker:new")
    until(lambda: len(site.pods("prefill")) == 3, 60)


def rolled_out(site: Site) -> bool:
    """Whether all engines are of the new image."""
    images = {pod["spec"]["containers"][0]["image"] for pod in site.pods()}
    return images == {"dualpath/worker:new"} and site.is_ready()


def test_the_other_replica_finishes_the_rollout_of_a_leader_that_was_killed(site: Site) -> None:
    first, second = two(site)
    site.apply(spec(2, 2))
    site.ready()
    in_a_rollout(site)
    assert not second.leads
    first.kill()
    until(lambda: second.leads, 30, what="the Lease to expire and the other to take it")
    until(lambda: rolled_out(site), 90)
    assert holder(site) == "second"
    assert turns(site) == ["first", "second"]


def test_a_leader_that_is_stopped_hands_over_at_once(site: Site) -> None:
    long = {"leaseDuration": "600s", "renewDeadline": "500s", "retryPeriod": "500ms"}
    first = site.operator("first", account="first", leaderElection=long)
    until(lambda: first.leads, 30)
    second = site.operator("second", account="second", leaderElection=long)
    site.apply(spec(2, 2))
    site.ready()
    in_a_rollout(site)
    assert first.stop() == 0
    until(lambda: second.leads, 30)
    until(lambda: rolled_out(site), 90)
    assert turns(site) == ["first", "second"]


def test_a_leader_whose_lease_was_stolen_ends_at_once(site: Site, kube: Kube) -> None:
    long = {"leaseDuration": "600s", "renewDeadline": "500s", "retryPeriod": "500ms"}
    leader = site.operator("leader", leaderElection=long)
    until(lambda: leader.leads, 30)
    kube.patch(LEASES, LEASE, {"spec": {"holderIdentity": "thief"}}, site.namespace)
    assert leader.ended(within=15) == 1
    assert "somebody else holds the lease" in leader.log.read_text()
    assert holder(site) == "thief"


def test_a_deleted_lease_ends_the_leader_or_is_taken_anew_by_one(site: Site, kube: Kube) -> None:
    first, second = two(site)
    kube.delete(LEASES, LEASE, site.namespace)
    until(lambda: holder(site) in {"first", "second"}, 30)
    leads, other = (first, second) if holder(site) == "first" else (second, first)
    until(lambda: leads.leads and not other.leads, 30)
    if leads is second:
        assert first.ended() == 1
    site.apply(spec(1, 1))
    until(site.is_ready, 60)


def test_a_leader_that_cannot_renew_ends_and_the_other_goes_on(site: Site, kube: Kube) -> None:
    first, second = two(site)
    site.apply(spec(1, 1))
    site.ready()
    kube.delete("rolebindings.rbac.authorization.k8s.io", "first", site.namespace)
    assert first.ended(within=30) == 1
    until(lambda: second.leads, 30)
    site.change(prefill={"scaling": {"replicas": 2}})
    until(lambda: site.serving("prefill") == 2, 60)
    assert turns(site)[:2] == ["first", "second"]


def test_a_leader_that_was_frozen_for_longer_than_its_lease_does_nothing_more(site: Site) -> None:
    first, second = two(site)
    site.apply(spec(1, 1))
    site.ready()
    first.send(signal.SIGSTOP)
    until(lambda: second.leads, 30)
    site.change(prefill={"scaling": {"replicas": 2}})
    until(lambda: site.serving("prefill") == 2, 60)
    first.send(signal.SIGCONT)
    assert first.ended(within=30) == 1
    site.ready()
    assert turns(site) == ["first", "second"]
