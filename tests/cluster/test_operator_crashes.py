"""The operator dies after every single one of its writes, in turn; what comes of it is the same each time.

Three stories are played once to count their writes. Then they are played again as often as the longest has
writes: in the n-th run the operator is killed after its n-th write of the creation, of the rollout and of the
deletion, and started again. DUALPATH_WRITE_CRASHES=1 writes the table of docs/reference/crash-points.md anew.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

import pytest
from chaos_proxy import Call, ChaosProxy
from forked_operators import Operator
from kube_api import Object
from kube_objects import MakeNamespace
from normalised import normalised
from stories import CLUSTERS, PATIENT, Bed, Site, settled, spec
from waiting import until

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "crash-points.md"
AT_A_TIME = 8
LOOK_S = 0.25
"""Between two looks at the objects of a run: as many runs at 20 a second would keep the API server busy."""

STORIES: tuple[tuple[str, Callable[[Site], object]], ...] = (
    ("creation", lambda site: site.apply(spec(1, 1))),
    ("rollout", lambda site: site.change(image="dualpath/worker:new")),
    ("deletion", lambda site: site.delete()),
)
HEAD = """# Crash points

The operator is killed (SIGKILL) right after the API server has carried out a write of its, before it learns of
that, and is started again. This is done for every write of three stories of a cluster with one prefill and one
decode engine; Events and the Lease do not count as writes. Survived means that the objects are the same as without
a crash: names, specs, owners, labels, conditions, and none beside them.

Made by `DUALPATH_WRITE_CRASHES=1 make test-cluster ARGS="-k crash"`.

| story | writes | survived |
| --- | ---: | ---: |
"""


@dataclass(slots=True)
class Run:
    """All stories once. `outcomes` and `writes` are by story; `crashed` tells after which call."""

    site: Site
    proxy: ChaosProxy
    operator: Operator
    outcomes: dict[str, dict[str, Object]] = field(default_factory=dict)
    writes: dict[str, list[Call]] = field(default_factory=dict)
    crashed: dict[str, Call] = field(default_factory=dict)
    failure: str = ""

    def play(self, crash_after: int = 0) -> Run:
        """Play them, and crash in each one that has so many writes. What fails ends the run, not the test."""
        try:
            for story, begin in STORIES:
                self._play(story, begin, crash_after)
        except (AssertionError, RuntimeError) as error:
            self.failure = f"{error}; {self.crashed}; {self.operator.log.read_text()[-2000:]}"
        finally:
            self.operator.kill()
        return self

    def _play(self, story: str, begin: Callable[[Site], object], crash_after: int) -> None:
        before = len(self.proxy.writes())
        crash = self.proxy.crash_after_write(crash_after, self.operator.pid) if crash_after else None
        begin(self.site)
        if crash:
            ended = f"{story}: {crash_after} writes"
            until(lambda: crash.fired or self._done(story), 60, what=ended, every=LOOK_S)
            if crash.fired:
                self.operator.ended()
                self.operator.start()
                assert crash.last
                self.crashed[story] = crash.last
        ended = f"the end of the {story}"
        until(lambda: self.operator.running() and self._done(story), 90, what=ended, every=LOOK_S)
        settled(self.proxy.writes)
        self.proxy.clear()
        self.outcomes[story] = normalised(self.site)
        self.writes[story] = self.proxy.writes()[before:]

    def _done(self, story: str) -> bool:
        if story == "deletion":
            gone = self.site.kube.find(CLUSTERS, self.site.cluster, self.site.namespace) is None
            return gone and normalised(self.site) == {}
        return self.site.is_ready() and (story == "creation" or self._is_new())

    def _is_new(self) -> bool:
        images = {pod["spec"]["containers"][0]["image"] for pod in self.site.pods()}
        return images == {"dualpath/worker:new"}


@pytest.fixture
def make_run(bed: Bed, make_namespace: MakeNamespace) -> Iterator[Callable[[], Run]]:
    with ExitStack() as stack:
        one_at_a_time = Lock()

        def make() -> Run:
            with one_at_a_time:
                return _make()

        def _make() -> Run:
            proxy = stack.enter_context(bed.plane.chaos_proxy())
            site = Site(bed, make_namespace(), server=proxy.url)
            stack.callback(site.stop)
            return Run(site, proxy, site.operator(**PATIENT))

        yield make


@pytest.mark.timeout(600)
def test_a_crash_after_any_write_changes_nothing_in_the_end(make_run: Callable[[], Run]) -> None:
    undisturbed = make_run().play()
    assert not undisturbed.failure, undisturbed.failure
    counts = {story: len(calls) for story, calls in undisturbed.writes.items()}
    assert all(count > 2 for count in counts.values()), undisturbed.writes
    crashed: dict[str, list[int]] = {story: [] for story in counts}
    wrong: list[str] = []
    points = range(1, max(counts.values()) + 1)
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        runs = pool.map(lambda point: make_run().play(point), points)
        for point, run in zip(points, runs, strict=True):
            wrong += [f"write {point}: {run.failure}"] if run.failure else []
            for story in run.crashed:
                crashed[story].append(point)
            for story, outcome in run.outcomes.items():
                if told := differences(undisturbed.outcomes[story], outcome):
                    wrong.append(f"{story} after write {point}, {run.crashed.get(story)}: {told}")
    assert not wrong, "\n".join(wrong)
    # statuses are written together when they come together, so a run may have a write or two less
    assert all(len(crashed[story]) >= count - 2 for story, count in counts.items()), (counts, crashed)
    table = "".join(f"| {story} | {len(done)} | {len(done)} |\n" for story, done in crashed.items())
    print(table)
    if os.environ.get("DUALPATH_WRITE_CRASHES"):
        PAGE.write_text(HEAD + table)


def differences(wanted: object, found: object, path: str = "") -> list[str]:
    """Where two listings differ."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        return [
            told
            for key in sorted({*wanted, *found})
            for told in differences(wanted.get(key), found.get(key), f"{path}.{key}")
        ]
    return [] if wanted == found else [f"{path}: {str(wanted)[:200]} != {str(found)[:200]}"]
