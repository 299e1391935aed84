"""What is kept of live objects, and whether lists find what the watches missed."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from desired_world import LOCAL, pod_of
from kubernetes.aio.client.configuration import Configuration

from dualpath_operator import sight
from dualpath_operator.kinds import CLUSTER, POD
from dualpath_operator.kube import Api
from dualpath_operator.sight import Sight
from dualpath_operator.views import object_view, pod_view
from dualpath_operator.world import World


def live_pod(version: int = 1, uid: str = "u1", **status) -> dict:
    body = pod_of(LOCAL)
    body["metadata"] |= {"uid": uid, "resourceVersion": str(version)}
    return {**body, "status": status}


def condition(kind: str, state: str, **more: str) -> dict:
    return {"type": kind, "status": state, **more}


def test_a_pod_is_read_from_its_labels_and_conditions():
    view = pod_view(
        live_pod(
            phase="Running",
            conditions=[condition("Ready", "True"), condition("dualpath.io/Admitted", "False")],
        )
    )
    assert (view.role, view.index, view.node_index, view.phase) == ("decode", 0, 0, "Running")
    assert (view.ready, view.containers_ready, view.admitted) == (True, False, False)
    assert pod_view(live_pod()).admitted is None


def test_other_pods_are_not_looked_at():
    body = live_pod()
    del body["metadata"]["labels"]["dualpath.io/role"]
    assert pod_view(body) is None


@pytest.mark.parametrize(
    ("status", "problem"),
    [
        ({}, ""),
        (
            {
                "containerStatuses": [
                    {"name": "engine", "state": {"waiting": {"reason": "ContainerCreating"}}}
                ]
            },
            "",
        ),
        (
            {"containerStatuses": [{"name": "engine", "state": {"waiting": {"reason": "ImagePullBackOff"}}}]},
            "engine: ImagePullBackOff",
        ),
        (
            {"conditions": [condition("PodScheduled", "False", reason="Unschedulable", message="no GPU")]},
            "Unschedulable: no GPU",
        ),
    ],
)
def test_why_a_pod_does_not_start_is_kept(status, problem):
    assert pod_view(live_pod(**status)).problem == problem


def test_an_object_is_kept_without_what_others_write():
    meta = {
        "name": "x",
        "namespace": "n",
        "uid": "u",
        "resourceVersion": "1",
        "managedFields": [{}],
        "labels": {},
    }
    view = object_view({"kind": "Service", "metadata": meta, "spec": {"a": 1}, "status": {"b": 2}})
    assert view.live() == {"metadata": {"name": "x", "namespace": "n", "labels": {}}, "spec": {"a": 1}}
    assert view.owner == ""


# ---------------------------------------------------------------- sight


@asynccontextmanager
async def looking():
    """Lists to be set by a test, by plural, and who looks at them."""
    lists: dict[str, list[dict]] = {"pods": [], "dualpathclusters": []}

    async def answer(request: web.Request) -> web.Response:
        items = lists[request.path.rpartition("/")[2]]
        if "PartialObjectMetadata" in request.headers["Accept"]:
            assert "resourceVersion" not in request.query  # an old list would forget what is there
            items = [{"metadata": item["metadata"]} for item in items] or None
        return web.json_response({"items": items})

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    configuration = Configuration()
    configuration.host = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with Api(configuration) as api:
        world = World()
        yield lists, world, Sight(api, world, ())
    await runner.cleanup()


async def test_everything_is_taken_up_before_the_watches_begin():
    async with looking() as (lists, world, eyes):
        lists["pods"] = [live_pod()]
        assert eyes.problem() == ""
        await eyes.fill([POD, CLUSTER])
        assert list(world.versions("Pod", None).values()) == [("u1", "1")]


async def test_what_went_unnoticed_is_forgotten_and_its_cluster_looked_at():
    async with looking() as (lists, world, eyes):
        lists["pods"] = [live_pod()]
        await eyes.fill([POD])
        woken: list[tuple[str, str]] = []
        await eyes.look_once([POD], woken.append)
        assert woken == []
        lists["pods"] = []
        await eyes.look_once([POD], woken.append)
        assert woken == [("team-a", "qwen")]
        assert world.versions("Pod", None) == {}


async def test_a_change_that_two_looks_see_and_no_watch_tells_makes_the_operator_start_anew(monkeypatch):
    async with looking() as (lists, world, eyes):
        lists["pods"] = [live_pod(1)]
        await eyes.fill([POD])
        monkeypatch.setattr(sight, "BLIND_AFTER_S", -1.0)  # whatever is not proven is too old
        lists["pods"] = [live_pod(2)]
        await eyes.look_once([POD], lambda _: None)
        proven = eyes._proven_at
        await eyes.look_once([POD], lambda _: None)
        assert eyes._proven_at == proven
        assert "not proven" in eyes.problem()
        world.put({"kind": "Pod", **live_pod(2)})
        await eyes.look_once([POD], lambda _: None)
        assert eyes._proven_at > proven
