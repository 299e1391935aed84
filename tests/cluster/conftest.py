"""One control plane for the session, a namespace for each test. Nothing starts unless a test here is to run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import kube_tools
import pytest
from controlplane import ControlPlane
from fake_nodes import FakeNodes, add_volumes
from helm_bed import HelmBed
from kube_api import ApiError, Kube
from kube_objects import MakeNamespace, StartOperator, install_definitions
from operator_forks import Forks
from operator_process import OperatorProcess
from real_nodes import RealNodes
from scripted_schedulers import Schedulers
from stories import Bed, Site
from waiting import until

HERE = Path(__file__).parent
RESTRICTED = {
    "pod-security.kubernetes.io/enforce": "restricted",
    "pod-security.kubernetes.io/warn": "restricted",
}
NUMBERS = count()
"""Of namespaces: none has to wait until a former one of its name is gone."""

OUR_KINDS = ("dualpathclusters.dualpath.io", "dualpathenginegroups.dualpath.io")


def pytest_configure(config: pytest.Config) -> None:
    """Say what the marker means."""
    config.addinivalue_line("markers", "cluster: runs on a Kubernetes control plane of the session's own")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is in this folder: `-m "not cluster"` runs all the rest."""
    for item in _ours(items):
        item.add_marker("cluster")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build the tools before the first test, outside its time limit; raises where they cannot be built."""
    if any(_ours(session.items)) and not session.config.option.collectonly:
        try:
            kube_tools.folder()
        except kube_tools.ToolsMissing as error:
            raise pytest.UsageError(str(error)) from error


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane with three nodes of 64 GPUs and ten volumes."""
    with ControlPlane(tmp_path_factory.mktemp("control-plane")) as running:
        add_volumes(running.kube, 10)
        yield running


@pytest.fixture(scope="session")
def fake_nodes(control_plane: ControlPlane) -> FakeNodes:
    """The nodes of the session: three to begin with. A test that adds or loses one puts it right again."""
    nodes = FakeNodes(control_plane.kube)
    nodes.add(3, gpus=64)
    return nodes


@pytest.fixture(scope="session")
def kube(control_plane: ControlPlane, fake_nodes: FakeNodes) -> Kube:
    """A client with all rights on a cluster that has nodes."""
    return control_plane.kube


@pytest.fixture(scope="session")
def definitions(control_plane: ControlPlane, kube: Kube) -> None:
    """Our kinds are installed."""
    install_definitions(kube)
    control_plane.learn_kinds()


@pytest.fixture(autouse=True)
def _control_plane_survives(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that brings the control plane down is the one to fail, not all that come after it."""
    yield
    if "control_plane" in request.fixturenames:
        for process in request.getfixturevalue("control_plane").processes.values():
            process.running()


@pytest.fixture
def make_namespace(kube: Kube, request: pytest.FixtureRequest) -> Iterator[MakeNamespace]:
    """Make namespaces: make_namespace({label: value}); they go with the test."""
    made = []

    def make(labels: Mapping[str, str] | None = None) -> str:
        stem = (
            re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower())
            .strip("-")[:40]
            .strip("-")
        )
        name = f"{stem}-{next(NUMBERS)}"
        made.append(name)
        metadata = {"name": name, "labels": RESTRICTED if labels is None else dict(labels)}
        kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        until(
            lambda: kube.find("serviceaccounts", "default", name), 30, what=f"the service account of {name}"
        )
        return name

    yield make
    for name in made:
        release(kube, name)
        kube.delete("namespaces", name)


@pytest.fixture
def namespace(make_namespace: MakeNamespace) -> str:
    """A namespace of the test's own that enforces Pod Security `restricted`."""
    return make_namespace()


@pytest.fixture(scope="session")
def real_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealNodes]:
    """A second control plane, with one real node: pods really run there. Needs root."""
    with RealNodes(tmp_path_factory.mktemp("real-nodes")) as running:
        yield running


@pytest.fixture(scope="session")
def helm_bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HelmBed]:
    """A control plane of the charts' own, without our kinds at first."""
    with ControlPlane(tmp_path_factory.mktemp("charts"), audit=False) as plane:
        yield HelmBed(plane)


@pytest.fixture
def start_operator(tmp_path: Path) -> Iterator[StartOperator]:
    """Start operators: start_operator(kubeconfig, {settings}, name=...); all are stopped with the test."""
    started: list[OperatorProcess] = []

    def start(
        kubeconfig: Path, settings: Mapping[str, Any] | None = None, *, name: str = "operator"
    ) -> OperatorProcess:
        started.append(OperatorProcess(tmp_path, kubeconfig, settings, name=name))
        return started[-1].start()

    yield start
    for operator in reversed(started):
        operator.stop()


@pytest.fixture(scope="session")
def bed(
    control_plane: ControlPlane, kube: Kube, definitions: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bed]:
    """What stories of clusters need: our kinds, volumes, schedulers that answer, operators that start at once."""
    add_volumes(kube, 40)
    folder = tmp_path_factory.mktemp("stories")
    with Forks(folder / "forks.log") as forks, Schedulers(kube) as schedulers:
        yield Bed(plane=control_plane, forks=forks, schedulers=schedulers, folder=folder)


@pytest.fixture
def site(bed: Bed, namespace: str) -> Iterator[Site]:
    """A namespace where the story of a cluster is played; its operators end with the test."""
    playing = Site(bed, namespace)
    yield playing
    playing.stop()


def release(kube: Kube, namespace: str) -> None:
    """Take the finalizers off what a stopped operator can no longer end, so that the namespace can go."""
    for kind in OUR_KINDS:
        try:
            left = kube.all(kind, namespace)
        except LookupError:  # a test without our definitions
            continue
        for body in left:
            try:
                kube.patch(kind, body["metadata"]["name"], {"metadata": {"finalizers": None}}, namespace)
            except ApiError as error:
                if error.code != 404:
                    raise


def _ours(items: list[pytest.Item]) -> Iterator[pytest.Item]:
    return (item for item in items if HERE in item.path.parents)
