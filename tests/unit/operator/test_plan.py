"""Object plans: from any live state to the desired one, and then nothing more to do."""

from __future__ import annotations

import copy

from desired_world import AROUND, LOCAL, MANAGED, UID, cluster_of
from hypothesis import given, settings
from hypothesis import strategies as st

from dualpath_operator.desired import objects, revision_of
from dualpath_operator.model import INTENT, Key, key_of
from dualpath_operator.plan import plan_objects
from dualpath_operator.views import object_view


def desired_of(spec: dict) -> list[dict]:
    cluster = cluster_of(spec)
    revision = revision_of(cluster, AROUND)
    return list(objects(cluster, AROUND, revision, {"prefill": 1, "decode": 1}))


DESIRED = desired_of(LOCAL)
OTHERS = desired_of(MANAGED)


class Server:
    """Objects as an API server keeps them."""

    def __init__(self) -> None:
        self.objects: dict[Key, dict] = {}
        self.version = 0

    def put(self, obj: dict, owner: str = UID) -> None:
        self.version += 1
        kept = copy.deepcopy(obj)
        references = (
            [{"controller": True, "uid": owner, "kind": "DualPathCluster", "name": "x"}] if owner else []
        )
        kept["metadata"] |= {"uid": f"u{self.version}", "resourceVersion": str(self.version)}
        kept["metadata"]["ownerReferences"] = (
            obj["metadata"].get("ownerReferences", references) if owner == UID else references
        )
        self.objects[key_of(obj)] = kept

    def live(self) -> dict:
        return {key: object_view(obj) for key, obj in self.objects.items()}

    def carry_out(self, plan) -> None:
        for apply in plan.applies:
            self.put(apply.obj)
        for view in plan.prunes:
            del self.objects[view.key]

    def plan(self, known=None):
        return plan_objects(DESIRED, self.live(), UID, known or {})


def outdated(obj: dict) -> dict:
    """As an earlier spec had it."""
    old = copy.deepcopy(obj)
    old["metadata"]["annotations"][INTENT] = "earlier"
    return old


def drifted(obj: dict) -> dict:
    """Somebody else has changed it."""
    changed = copy.deepcopy(obj)
    changed["metadata"]["labels"]["app.kubernetes.io/name"] = "mine"
    return changed


@st.composite
def servers(draw: st.DrawFn) -> Server:
    server = Server()
    for obj in DESIRED:
        match draw(st.sampled_from(["absent", "right", "outdated", "drifted"])):
            case "right":
                server.put(obj)
            case "outdated":
                server.put(outdated(obj))
            case "drifted":
                server.put(drifted(obj))
    for obj in draw(st.lists(st.sampled_from(OTHERS), max_size=4)):
        if key_of(obj) not in {key_of(wanted) for wanted in DESIRED}:
            server.put(obj)
    return server


@settings(deadline=None)
@given(servers())
def test_a_plan_leads_to_the_desired_objects_and_then_there_is_nothing_to_do(server):
    before = server.plan()
    server.carry_out(before)
    after = server.plan(before.in_sync)
    assert (after.applies, after.prunes, after.clashes) == ([], [], [])
    assert set(server.objects) == {key_of(obj) for obj in DESIRED}
    assert set(after.in_sync) == set(server.objects)


@settings(deadline=None)
@given(servers())
def test_what_is_right_is_left_alone(server):
    right = set(server.plan().in_sync)
    assert not right & {key_of(apply.obj) for apply in server.plan().applies}


@settings(deadline=None)
@given(servers(), st.integers(0, 20))
def test_a_plan_that_was_cut_short_is_completed_by_the_next(server, done):
    plan = server.plan()
    plan.applies, plan.prunes = plan.applies[:done], []
    server.carry_out(plan)
    server.carry_out(server.plan())
    assert server.plan().applies == server.plan().prunes == []


def test_objects_of_others_are_neither_changed_nor_removed():
    server = Server()
    service = next(obj for obj in DESIRED if obj["kind"] == "Service")
    server.put(service, owner="another")
    server.put({**service, "metadata": {**service["metadata"], "name": "foreign"}}, owner="another")
    plan = server.plan()
    assert plan.clashes == [key_of(service)]
    assert plan.prunes == []
    assert key_of(service) not in {key_of(apply.obj) for apply in plan.applies}


def test_a_service_without_an_owner_is_not_ours_but_a_claim_may_have_been():
    server = Server()
    for kind in ("Service", "PersistentVolumeClaim"):
        server.put(next(obj for obj in DESIRED if obj["kind"] == kind), owner="")
    assert [key.kind for key in server.plan().clashes] == ["Service"]


def test_drift_is_told_by_its_path_and_what_is_kept_is_not_pruned():
    server = Server()
    for obj in DESIRED:
        server.put(obj)
    service = next(obj for obj in DESIRED if obj["kind"] == "Service")
    server.put(drifted(service))
    (apply,) = server.plan().applies
    assert apply.drift == (".metadata.labels.app.kubernetes.io/name",)
    extra = {**service, "metadata": {**service["metadata"], "name": "extra"}}
    server.put(extra)
    assert [view.key.name for view in server.plan().prunes] == ["extra"]
    kept = plan_objects(DESIRED, server.live(), UID, {}, {key_of(extra)})
    assert kept.prunes == []


def test_an_object_that_was_found_right_is_not_compared_again_until_it_changes():
    server = Server()
    for obj in DESIRED:
        server.put(obj)
    known = server.plan().in_sync
    live = server.live()
    broken = {key: type(view)(**{**_fields(view), "content": b"not read"}) for key, view in live.items()}
    assert plan_objects(DESIRED, broken, UID, known).in_sync == known


def _fields(view) -> dict:
    return {name: getattr(view, name) for name in view.__dataclass_fields__}
