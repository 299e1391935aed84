"""Every example, as a user meets it: the charts of definitions and operator by helm, the file by kubectl, and away.

kwok runs the Pods of the release. The operator is a process that has the release's settings and service account.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from charts_bed import CRDS, OPERATOR, ROOT
from fake_nodes import STORAGE_CLASS, add_volumes
from helm_bed import HelmBed
from kube_api import Object
from object_listing import leaves_nothing, listing
from operator_process import OperatorProcess
from scripted_schedulers import Schedulers

EXAMPLES = [
    path
    for path in sorted((ROOT / "examples").glob("*.yaml"))
    if yaml.safe_load(path.read_text())["kind"] == "DualPathCluster"
]
GIVEN = {"planner": ("models", "shared-kv")}
"""Claims that an example takes for granted."""

SHOWN = {
    "autoscaled": "agents True AllRolesServing 1/1 1/1",
    "kubernetes": "small True AllRolesServing 1/1 1/1",
    "local": "local True AllRolesServing 1/1 1/1",
    "planner": "fleet True AllRolesServing 1/1 2/2",
}
"""How the line of `kubectl get dpc` begins."""

QUICK: Object = {
    "webhook": {"enabled": False},  # the API server would look for them in kwok's Pods
    "leaderElection": {"leaseDuration": "6s", "renewDeadline": "4s", "retryPeriod": "0.5s"},
    "config": {"statusInterval": "1s"},
}


@pytest.fixture(scope="module")
def installed(helm_bed: HelmBed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HelmBed]:
    folder = tmp_path_factory.mktemp("examples")
    plane = (bed := helm_bed).plane
    with Schedulers(plane.kube) as schedulers:
        bed.nodes.add(1, gpus=64)
        add_volumes(plane.kube, 8)
        bed.install_kinds(CRDS)
        plane.learn_kinds()
        system = bed.namespace()
        bed.install("dp", OPERATOR, system, QUICK)
        account = plane.for_service_account(system, "dp-dualpath-operator")
        file = plane.kube.get("configmaps", "dp-dualpath-operator", system)["data"]["operator.yaml"]
        settings = {key: value for key, value in yaml.safe_load(file).items() if key != "http"}
        outside = {"namespace": system, "gatewayUrl": schedulers.url}
        with OperatorProcess(folder, account, settings | outside):
            yield bed
        bed.uninstall("dp", system, "--no-hooks")


def make_claims(bed: HelmBed, namespace: str, names: tuple[str, ...]) -> None:
    """What an administrator has made before."""
    for name in names:
        bed.kube.create(
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": name, "namespace": namespace},
                "spec": {
                    "accessModes": ["ReadWriteMany"],
                    "storageClassName": STORAGE_CLASS,
                    "resources": {"requests": {"storage": "1Ti"}},
                },
            }
        )


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_becomes_ready_tells_its_story_and_goes(installed: HelmBed, example: Path) -> None:
    bed, namespace = installed, installed.namespace()
    make_claims(bed, namespace, GIVEN.get(example.stem, ()))
    where = ("--namespace", namespace)
    before = listing(bed.kube, namespaces=[namespace])
    bed.plane.kubectl("apply", "-f", example, *where)
    name = yaml.safe_load(example.read_text())["metadata"]["name"]
    bed.plane.kubectl("wait", "--for=condition=Ready", f"dpc/{name}", *where, "--timeout=60s")
    _, line = bed.plane.kubectl("get", "dpc", *where).splitlines()
    assert " ".join(line.split()).startswith(SHOWN[example.stem])
    wide = bed.plane.kubectl("get", "dpc", name, *where, "--output", "wide")
    assert f"http://{name}.{namespace}.svc:8000/v1" in wide
    bed.plane.kubectl("delete", "-f", example, *where, "--timeout=60s")
    if example.stem not in GIVEN:  # the blocks stay until somebody deletes them: spec.storage.retention
        bed.kube.delete("persistentvolumeclaims", f"{name}-store", namespace)
    leaves_nothing(bed.kube, before, namespaces=[namespace])
