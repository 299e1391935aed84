"""Pods and findings for tests of what is made of them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from desired_world import LOCAL, cluster_of
from hypothesis import strategies as st

from dualpath_operator.findings import Findings, Judgement
from dualpath_operator.observe import Drains, ReplicaView, replicas_of
from dualpath_operator.rollout import plan
from dualpath_operator.views import PodView
from dualpath_operator.wanted import wish_for

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CLUSTER = cluster_of({**LOCAL, "rollout": {"maxSurge": 1}}, "c")
REVISIONS = ("aaaaaaaa", "bbbbbbbb")
YES = Judgement(status=True, reason="Yes")


def pod(role: str = "decode", index: int = 0, node: int = 0, revision: str = "aaaaaaaa", **more) -> PodView:
    name = f"c-{role}-{revision}-{index}-{node}"
    parts = {"phase": "Running", "uid": f"uid-{name}", **more}
    return PodView(name=name, role=role, revision=revision, index=index, node_index=node, **parts)


def serving(role: str = "decode", index: int = 0, **more) -> PodView:
    return pod(role, index, **{"ready": True, "containers_ready": True, "admitted": True, **more})


DELETIONS = ("", "", "", "2025-12-31T23:00:00Z", "2026-01-01T00:00:30Z", "9000-01-01T00:00:00+00:00")


@st.composite
def pods(draw: st.DrawFn) -> list[PodView]:
    """Any Pods, also those that cannot be, but each name once."""
    places = st.tuples(
        st.sampled_from(["prefill", "decode"]),
        st.integers(0, 2),
        st.integers(0, 1),
        st.sampled_from(REVISIONS),
    )
    return [
        pod(
            *place,
            phase=draw(st.sampled_from(["Pending", "Running", "Running", "Failed", "Succeeded", "Unknown"])),
            ready=draw(st.booleans()),
            containers_ready=draw(st.booleans()),
            admitted=draw(st.sampled_from([None, True, False])),
            deletion=draw(st.sampled_from(DELETIONS)),
            gpus=draw(st.integers(0, 8)),
            nodes=draw(st.integers(1, 2)),
            dismissed=draw(st.sampled_from([False, False, True])),
            problem=draw(st.sampled_from(["", "engine: CrashLoopBackOff", "fabric: PreflightFailed"])),
        )
        for place in draw(st.sets(places, max_size=8))
    ]


@st.composite
def drains(draw: st.DrawFn, of: list[PodView]) -> Drains:
    uids = [one.uid for one in of] or ["none"]
    stems = [one.name.rpartition("-")[0] for one in of] or ["none"]
    return Drains(
        asked=draw(st.sets(st.sampled_from(uids))),
        proven=draw(st.sets(st.sampled_from(uids))),
        over=draw(st.sets(st.sampled_from(stems))),
    )


@st.composite
def observed(draw: st.DrawFn) -> tuple[list[PodView], Drains, list[ReplicaView]]:
    of = draw(pods())
    what = draw(drains(of))
    return of, what, replicas_of("c", of, what, NOW)


JUDGEMENTS = st.builds(
    Judgement,
    status=st.sampled_from([True, False, None]),
    reason=st.sampled_from(["A", "B"]),
    message=st.text(max_size=3),
)


def findings_of(replicas: list[ReplicaView], **more) -> Findings:
    cluster = more.pop("cluster", CLUSTER)
    wanted = more.pop("wanted", {"prefill": 1, "decode": 1})
    revision = more.pop("revision", "aaaaaaaa")
    found = {"gateway_ready": True, "storage": YES, "tuned": YES, "balanced": YES, "scaling": YES, **more}
    rollout = plan([view.replica for view in replicas], wish_for(cluster, revision, wanted))
    return Findings(
        cluster=cluster, revision=revision, wanted=wanted, replicas=tuple(replicas), plan=rollout, **found
    )


@st.composite
def findings(draw: st.DrawFn) -> Findings:
    _, _, replicas = draw(observed())
    suspended = draw(st.booleans())
    cluster = replace(CLUSTER, spec=CLUSTER.spec.model_copy(update={"suspend": suspended}))
    counts = st.integers(0, 0 if suspended else 3)
    problem = Judgement(status=True, reason="PodRefused", message="quota")
    return findings_of(
        replicas,
        cluster=replace(cluster, generation=draw(st.integers(1, 3))),
        wanted={"prefill": draw(counts), "decode": draw(counts)},
        revision=draw(st.sampled_from(REVISIONS)),
        gateway_ready=draw(st.booleans()),
        storage=draw(JUDGEMENTS),
        tuned=draw(JUDGEMENTS),
        balanced=draw(JUDGEMENTS),
        scaling=draw(JUDGEMENTS),
        problems=draw(st.sampled_from([(), (problem,)])),
        endpoint=draw(st.sampled_from(["", "http://c"])),
    )
