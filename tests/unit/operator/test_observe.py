"""Replicas from any set of Pods."""

from __future__ import annotations

from dataclasses import replace

from desired_world import LOCAL, cluster_of, pod_of
from hypothesis import given
from observed import CLUSTER, NOW, observed, pod, serving

from dualpath_operator.memory import Memory
from dualpath_operator.names import DRAIN
from dualpath_operator.observe import Drains, missing_pods, replicas_of
from dualpath_operator.rollout import plan
from dualpath_operator.rollout_model import Create, Delete, Resume, State
from dualpath_operator.views import pod_view
from dualpath_operator.wanted import wish_for
from dualpath_operator.world import World

KEY = ("team-a", "qwen")


def state(*pods, drains=Drains()) -> State:  # noqa: B008
    (view,) = replicas_of("c", pods, drains, NOW)
    return view.replica.state


@given(observed())
def test_every_pod_is_in_one_replica_and_its_gpus_count_once(case):
    pods, _, replicas = case
    assert sorted(p.name for view in replicas for p in view.pods) == sorted(p.name for p in pods)
    assert len({view.replica.id for view in replicas}) == len(replicas)
    assert sum(view.replica.gpus for view in replicas) == sum(p.gpus for p in pods)


@given(observed())
def test_a_replica_is_ready_only_if_it_is_whole_and_all_its_pods_are(case):
    _, drains, replicas = case
    for view in replicas:
        if view.ready:
            assert all(p.ready and not p.deletion for p in view.pods)
            assert len(view.pods) >= view.pods[0].nodes
            assert view.replica.id not in drains.over


@given(observed())
def test_only_replicas_that_never_served_are_completed_and_only_by_what_they_lack(case):
    for view in case[2]:
        missing = missing_pods(view, 2)
        assert not missing or view.replica.state is State.PENDING
        assert not set(missing) & {p.node_index for p in view.pods}


def test_a_replica_goes_through_its_life():
    assert state(pod()) is State.PENDING
    assert state(serving()) is State.READY
    assert state(serving(ready=False)) is State.UNREADY
    assert state(serving(), drains=Drains(asked={serving().uid})) is State.DRAINING
    assert state(serving(), drains=Drains(asked={serving().uid}, proven={serving().uid})) is State.DRAINED
    assert state(serving(), drains=Drains(over={"c-decode-aaaaaaaa-0"})) is State.DRAINED
    assert state(serving(deletion="2026-01-01T00:01:00Z")) is State.TERMINATING
    assert state(serving(deletion="2025-12-31T23:58:59Z")) is State.LOST
    assert state(serving(phase="Failed")) is State.BROKEN


def test_nodes_of_one_replica_start_and_go_together():
    first, second = serving(node=0, nodes=2), serving(node=1, nodes=2)
    assert state(first, second) is State.READY
    assert state(first) is State.BROKEN
    assert state(first, replace(second, deletion="2026-01-01T00:01:00Z")) is State.BROKEN
    assert state(pod(node=0, nodes=2), pod(node=1, nodes=2, ready=True)) is State.PENDING
    assert missing_pods(replicas_of("c", [pod(node=0, nodes=2)], Drains(), NOW)[0], 2) == [1]


def test_a_pod_that_was_just_deleted_is_on_its_way_out_before_any_watch_says_so():
    body = pod_of(LOCAL)
    body["metadata"] |= {"uid": "u1", "resourceVersion": "1", "creationTimestamp": "2026-01-01T00:00:00Z"}
    world, memory = World(), Memory()
    world.put({"kind": "Pod", **body})
    memory.deleted["u1"] = 0.0
    seen = world.pods(KEY, memory)
    (view,) = replicas_of("qwen", seen, Drains(), NOW)
    assert view.replica.state is State.TERMINATING


def test_a_pod_that_was_just_made_counts_before_any_watch_says_so_and_once_only():
    body = pod_of(LOCAL)
    body["metadata"] |= {"uid": "u1", "resourceVersion": "1", "creationTimestamp": "2026-01-01T00:00:00Z"}
    world, memory = World(), Memory()
    view = pod_view(body)
    memory.created[view.name] = (view, 0.0)
    assert world.pods(KEY, memory) == [view]
    world.put({"kind": "Pod", **body})
    assert world.pods(KEY, memory) == [view]
    memory.created[view.name] = (view, 0.0)
    memory.expire(1e6)
    assert memory.created == {}


def test_an_older_view_never_replaces_a_newer_one():
    world = World()
    assert cluster_of(LOCAL).name == KEY[1]
    meta = {"namespace": "team-a", "name": "qwen", "uid": "u", "generation": 1}
    newer = {"kind": "DualPathCluster", "metadata": {**meta, "resourceVersion": "10"}}
    older = {"kind": "DualPathCluster", "metadata": {**meta, "resourceVersion": "9"}}
    assert world.put(newer) == KEY
    assert world.put(older) is None
    assert world.cluster(KEY).version == "10"
    assert world.remove("DualPathCluster", *KEY, "another") is None
    assert world.remove("DualPathCluster", *KEY, "u") == KEY
    assert world.cluster(KEY) is None


# ---------------------------------------------------------------- a person wants a Pod drained


def steps_for(*pods, drains=Drains(), wanted=2):  # noqa: B008
    replicas = [view.replica for view in replicas_of("c", pods, drains, NOW)]
    wish = wish_for(CLUSTER, "aaaaaaaa", {"prefill": 1, "decode": wanted})
    return plan(replicas, wish).steps


def test_a_pod_that_a_person_wants_drained_is_replaced_and_never_called_back():
    marked = serving(index=0, dismissed=True)
    others = (serving("prefill"), serving(index=1))
    assert state(marked) is State.DRAINING
    (made,) = steps_for(marked, *others)
    assert isinstance(made, Create)
    drained = Drains(asked={marked.uid}, proven={marked.uid})
    gone = [step for step in steps_for(marked, *others, drains=drained) if isinstance(step, Delete)]
    assert [step.id for step in gone] == ["c-decode-aaaaaaaa-0"]


def test_a_pod_whose_mark_is_taken_back_serves_again():
    pods = (serving("prefill"), serving(index=0), serving(index=1))
    steps = steps_for(*pods, drains=Drains(asked={serving(index=0).uid}))
    assert [type(step) for step in steps] == [Resume]


def test_the_mark_is_read_from_the_pod():
    body = pod_of(LOCAL)
    body["metadata"] |= {"uid": "u1", "resourceVersion": "1"}
    assert not pod_view(body).dismissed
    body["metadata"].setdefault("annotations", {})[DRAIN] = "true"
    assert pod_view(body).dismissed


@given(observed())
def test_no_replica_that_is_to_go_is_called_back(case):
    replicas = [view.replica for view in case[2]]
    steps = plan(replicas, wish_for(CLUSTER, "aaaaaaaa", {"prefill": 2, "decode": 2})).steps
    dismissed = {replica.id for replica in replicas if replica.dismissed}
    assert not dismissed & {step.id for step in steps if isinstance(step, Resume)}
