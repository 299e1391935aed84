"""A cluster that really serves: on a real node, by the chart's operator, with probes, gates, drains and budgets.

The tests tell one story, in order, of one cluster.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from checkpoints import cached_checkpoint
from client import BLOCK, fresh
from conversations import hit_of
from kube_api import ApiError
from kube_objects import condition_of
from object_listing import Key, listing
from real_nodes import RealNodes
from serving_bed import CLUSTERS, NAME, SPACE, ServingBed, blocks
from transformers_side import TransformersSide
from waiting import until

PROMPT = fresh(300, "first turn")
LONG = 1200  # tokens: some seconds


class Load:
    """Requests one after another for as long as it is entered; `answers` is all of them."""

    def __init__(self, bed: ServingBed, prompt: Sequence[int], count: int) -> None:
        self._bed, self._prompt, self._count = bed, prompt, count
        self._over = False
        self._pool = ThreadPoolExecutor(1)
        self.answers: list[list[int]] = []

    def __enter__(self) -> Load:
        self._running: Future[None] = self._pool.submit(self._run)
        return self

    def __exit__(self, *exception: object) -> None:
        self._over = True
        self._pool.shutdown()
        self._running.result()

    def _run(self) -> None:
        while not self._over:
            self.answers.append(self._bed.complete(self._prompt, self._count)[0])


@pytest.fixture(scope="module")
def bed(real_nodes: RealNodes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServingBed]:
    made = ServingBed(real_nodes, tmp_path_factory.mktemp("serving"), cached_checkpoint("qwen3"))
    try:
        made.install()
        yield made
    finally:
        made.remove()


@pytest.fixture(scope="module")
def before(bed: ServingBed) -> set[Key]:
    """All objects there are without a cluster."""
    return listing(bed.kube, namespaces=[SPACE])


@pytest.fixture(scope="module")
def theirs() -> TransformersSide:
    return TransformersSide(cached_checkpoint("qwen3"))


def admitted(pod: object) -> str:
    assert isinstance(pod, dict)
    return condition_of(pod, "dualpath.io/Admitted")


@pytest.mark.usefixtures("before")
def test_a_cluster_becomes_ready_with_the_pods_that_the_operator_renders(bed: ServingBed) -> None:
    bed.apply()
    bed.ready()
    assert [admitted(pod) for pod in bed.pods()] == ["True", "True"]
    known = {engine.pod_uid: (engine.pod, engine.node, engine.state) for engine in bed.report().engines}
    assert known == {
        pod["metadata"]["uid"]: (pod["metadata"]["name"], bed.nodes.nodes[0].name, "serving")
        for pod in bed.pods()
    }


def test_it_answers_as_transformers_does_and_reads_a_second_turn_over_both_sides(
    bed: ServingBed, theirs: TransformersSide
) -> None:
    first, cached = bed.complete(PROMPT)
    assert (first, cached) == (theirs.greedy(PROMPT, 16), 0)
    turn = PROMPT + first + fresh(70, "second turn")
    second, cached = bed.complete(turn)
    assert (second, cached) == (theirs.greedy(turn, 16), hit_of(len(PROMPT) + 16, len(turn)))
    read = bed.report().read
    assert read.prefill_bytes > 0
    assert read.decode_bytes > 0
    assert blocks(bed.store)


def test_engines_are_evicted_one_at_a_time_and_a_new_one_is_ready_only_once_it_is_admitted(
    bed: ServingBed,
) -> None:
    old, other = bed.pod("prefill")["metadata"], bed.pod("decode")["metadata"]["name"]
    until(lambda: bed.budget() == 1, 60, what="the budget to be known")
    bed.evict(old["name"])
    with pytest.raises(ApiError, match="disruption budget") as refused:
        bed.evict(other)
    assert refused.value.code == 429
    until(
        lambda: bed.pod("prefill")["metadata"]["uid"] != old["uid"], 90, what="the operator to make another"
    )
    bed.scale_operator(0)
    until(lambda: condition_of(bed.pod("prefill"), "ContainersReady") == "True", 90)
    new = bed.pod("prefill")
    assert {engine.pod_uid for engine in bed.report().engines} > {new["metadata"]["uid"]}
    assert (admitted(new), condition_of(new, "Ready")) == ("", "False")
    bed.scale_operator(1)
    until(bed.serving, 90)


def test_an_engine_that_is_deleted_ends_its_stream_before_it_stops(bed: ServingBed) -> None:
    old = bed.pod("decode")["metadata"]
    with ThreadPoolExecutor(1) as pool:
        log = pool.submit(bed.kubectl, "logs", "--follow", old["name"])
        stream = bed.stream(PROMPT, LONG)
        tokens = next(stream)
        bed.kubectl("delete", "pod", old["name"], "--wait=false")
        for more in stream:
            tokens += more
        said = log.result()
    assert len(tokens) == LONG
    steps = ["prestop: waiting for 1 requests", "prestop: drained after", "stopping"]
    assert sorted(steps, key=said.index) == steps, said
    until(lambda: bed.pod("decode")["metadata"]["uid"] != old["uid"], 90, what="the operator to make another")
    until(bed.serving, 90)
    assert len(bed.complete(PROMPT)[0]) == 16


def test_a_new_gateway_finds_the_same_engines_and_their_blocks(bed: ServingBed) -> None:
    old, engines = bed.gateway()["metadata"], [pod["metadata"]["uid"] for pod in bed.pods()]
    bed.kubectl("delete", "pod", old["name"])
    until(lambda: condition_of(bed.gateway(), "Ready") == "True", 90)
    until(lambda: len(bed.report().engines) == 2, 60, what="the engines to register again")
    until(bed.serving, 90)
    assert bed.complete(PROMPT)[1] == len(PROMPT) // BLOCK * BLOCK
    assert [pod["metadata"]["uid"] for pod in bed.pods()] == engines
    assert [pod["status"]["containerStatuses"][0]["restartCount"] for pod in bed.pods()] == [0, 0]


def test_a_rolling_restart_fails_no_request(bed: ServingBed) -> None:
    old = {pod["metadata"]["uid"] for pod in bed.pods()}
    former = bed.revision()["current"]
    with Load(bed, PROMPT, 400) as load:
        bed.change(restart={"id": "again"})
        until(lambda: bed.revision()["updated"] != former, 30)
        until(lambda: old.isdisjoint(pod["metadata"]["uid"] for pod in bed.pods()), 150, what="the old to go")
        until(bed.serving, 90)
    assert {pod["metadata"]["labels"]["dualpath.io/revision"] for pod in bed.pods()} == {
        bed.revision()["updated"]
    }
    assert {len(answer) for answer in load.answers} == {400}
    assert len({tuple(answer) for answer in load.answers}) == 1


def test_deleting_the_cluster_leaves_its_blocks_and_nothing_else(bed: ServingBed, before: set[Key]) -> None:
    stored = blocks(bed.store)
    bed.kubectl("delete", CLUSTERS, NAME, "--timeout=120s")
    kept = {("persistentvolumeclaims", SPACE, f"{NAME}-store")}

    def only_the_claim() -> bool:
        assert listing(bed.kube, namespaces=[SPACE]) - before == kept
        return True

    until(only_the_claim, 90)
    assert blocks(bed.store) == stored != []
