"""What others may write: labels, podTemplates, answers of a gateway. None of it may end the operator."""

from __future__ import annotations

import json

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from desired_world import LOCAL, cluster_of, pod_of

from dualpath_operator import control
from dualpath_operator.clusters import read_cluster
from dualpath_operator.control import Control, GatewaySilentError
from dualpath_operator.memory import Memory
from dualpath_operator.model import Surroundings
from dualpath_operator.views import ClusterView, pod_view
from dualpath_operator.world import World


def engine_pod(**annotations: str) -> dict:
    body = pod_of(LOCAL)
    body["metadata"] |= {"uid": "u1", "resourceVersion": "1", "annotations": annotations}
    return body


@pytest.mark.parametrize("odd", ["\u00b2", "9" * 5000, "-3", "eight", ""])
def test_an_odd_number_of_gpus_is_none(odd):
    assert pod_view(engine_pod(**{"dualpath.io/gpus": odd})).gpus == 0


def test_an_object_that_cannot_be_read_is_left_out():
    world = World()
    assert world.take({"kind": "Service", "metadata": {"namespace": "n", "name": "s"}}) == ()
    assert world.take(engine_pod()) != ()


def test_an_object_that_changes_its_cluster_concerns_both():
    world, body = World(), engine_pod()
    (before,) = world.take(body)
    moved = json.loads(json.dumps(body))
    moved["metadata"]["resourceVersion"] = "2"
    moved["metadata"]["labels"]["dualpath.io/cluster"] = "other"
    assert world.take(moved) == (before, (before[0], "other"))


@pytest.mark.parametrize(
    "template",
    [
        {"securityContext": {"runAsUser": []}},
        {"containers": [{"name": "engine", "livenessProbe": {"periodSeconds": []}}]},
    ],
)
def test_a_template_that_cannot_be_rendered_makes_an_invalid_spec_at_worst(template):
    spec = cluster_of(LOCAL).spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    spec["decode"]["podTemplate"] = {"spec": template}
    view = ClusterView(
        uid="u", version="1", generation=1, deleting=False, finalizers=(),
        spec=json.dumps(spec).encode(), status=b"{}",
    )  # fmt: skip
    cluster, problem = read_cluster(("n", "c"), view, Memory(), Surroundings())
    assert (cluster is None) == bool(problem)


async def test_a_gateway_that_never_ends_or_leads_elsewhere_is_silent(monkeypatch):
    async def endless(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        for _ in range(1000):
            await answer.write(b"x" * 4096)
        return answer

    async def elsewhere(_: web.Request) -> web.Response:
        raise web.HTTPFound("http://127.0.0.1:1/")

    monkeypatch.setattr(control, "MAX_ANSWER_BYTES", 1 << 16)
    app = web.Application()
    app.router.add_get("/endless/control/v1/report", endless)
    app.router.add_get("/elsewhere/control/v1/report", elsewhere)
    async with TestServer(app) as server, Control() as client:
        for way in ("endless", "elsewhere"):
            with pytest.raises(GatewaySilentError):
                await client.report(str(server.make_url(f"/{way}")), "token")
