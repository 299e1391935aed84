"""The gateway as the control plane sees it: identities, loads and drains of its engines, and its restart."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from gateway_cluster import Pod, gateway_with_engines

from dualpath_api import wire

P = Pod(name="c-prefill-aaaaaaaa-0", revision="aaaaaaaa", uid="u1", node="n1")
D = Pod(name="c-decode-aaaaaaaa-0", revision="aaaaaaaa", uid="u2", node="n2")


async def test_the_report_names_pods_and_follows_their_load(tmp_path):
    async with gateway_with_engines(tmp_path, prefill=[P], decode=[D], token="secret") as cluster:
        await cluster.load(P.engine, storage=0.5, reads=1e9)
        report = await cluster.until(
            lambda report: report["sides"]["prefill"]["utilisation"]["storage"] == 0.5
        )
        assert {engine["id"] for engine in report["engines"]} == {P.engine, D.engine}
        first = await cluster.until(lambda report: report["engines"][1]["readBytesTotal"] > 0)
        await cluster.until(
            lambda report: report["engines"][1]["readBytesTotal"] > first["engines"][1]["readBytesTotal"]
        )


async def test_engines_can_come_and_go(tmp_path):
    async with gateway_with_engines(tmp_path, prefill=[P], decode=[D]) as cluster:
        assert (await cluster.call("GET", "/readyz"))[0] == 200
        await cluster.remove(D.engine)
        assert (await cluster.call("GET", "/readyz"))[0] == 503
        await cluster.add(wire.Role.DECODE, D)
        assert (await cluster.call("GET", "/readyz"))[0] == 200
        await cluster.restart()
        assert (await cluster.call("GET", "/readyz"))[0] == 200
