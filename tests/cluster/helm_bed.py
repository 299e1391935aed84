"""A Kubernetes of the charts' own: releases come and go there without troubling other tests.

Its webhooks never answer and its operators are kwok's, so nothing that needs a running operator belongs here.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from itertools import count
from pathlib import Path
from typing import Any

import kube_tools
import yaml
from controlplane import ControlPlane
from fake_nodes import FakeNodes
from foreign_kinds import FOREIGN
from kube_api import ApiError, Kube, Object
from object_listing import PASSING, Key, listing
from waiting import until

RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
KINDS = ("dualpathclusters.dualpath.io", "dualpathenginegroups.dualpath.io")
VALIDATING = "validatingwebhookconfigurations.admissionregistration.k8s.io"
MUTATING = "mutatingwebhookconfigurations.admissionregistration.k8s.io"
OF_SERVICES = "ipaddresses.networking.k8s.io"
CLUSTER_ROLES = "clusterroles.rbac.authorization.k8s.io"


class HelmBed:
    """A control plane with nodes, and helm on it."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane
        self.kube: Kube = plane.kube
        self._numbers = count()
        self.nodes = FakeNodes(self.kube)
        self.nodes.add(2)

    def namespace(self) -> str:
        """A new namespace that enforces Pod Security `restricted`."""
        name = f"charts-{next(self._numbers)}"
        self.kube.create(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}}
        )
        until(lambda: self.kube.find("serviceaccounts", "default", name), 60)
        return name

    def helm(self, *arguments: str | Path, check: bool = True, as_user: Path | None = None) -> str:
        """Run helm as admin or somebody else."""
        return self.plane.helm(*arguments, check=check, as_user=as_user)

    def install(
        self,
        release: str,
        chart: Path,
        namespace: str,
        values: Object | None = None,
        *,
        wait: bool = False,
        check: bool = True,
        as_user: Path | None = None,
    ) -> str:
        """`helm upgrade --install`; what it said. Values replace those of the former revision."""
        file = self.plane.folder / f"values-{next(self._numbers)}.json"
        file.write_text(json.dumps(values or {}))
        waiting = ("--wait", "--timeout", "120s") if wait else ()
        command = ("upgrade", "--install", release, chart, "--namespace", namespace, "--values", file)
        return self.helm(*command, *waiting, check=check, as_user=as_user)

    def uninstall(self, release: str, namespace: str, *flags: str, check: bool = True, **options: Any) -> str:
        """`helm uninstall`; what it said."""
        command = ("uninstall", release, "--namespace", namespace, "--timeout", "120s", *flags)
        return self.helm(*command, check=check, **options)

    def releases(self, namespace: str) -> dict[str, str]:
        """Releases of a namespace and their state."""
        told = json.loads(self.helm("list", "--all", "--namespace", namespace, "--output", "json"))
        return {one["name"]: one["status"] for one in told}

    def cluster_wide(self) -> set[Key]:
        """All objects outside namespaces."""
        return listing(self.kube, namespaces=[], but={*PASSING, OF_SERVICES})

    def install_kinds(self, chart: Path, values: Object | None = None) -> str:
        """Install or upgrade our kinds; returns what helm said when the API server serves them."""
        said = self.install("dualpath-crds", chart, "default", values)
        self.wait_for_kinds()
        return said

    def wait_for_kinds(self, kinds: Iterable[str] = KINDS) -> None:
        """A changed definition makes the API server set up its storage anew; until then it answers 404 or 429."""
        wanted = tuple(kinds)

        def served() -> bool:
            try:
                return all(self.kube.all(kind) is not None for kind in wanted)
            except (ApiError, LookupError):
                return False

        until(served, 60, what=f"{', '.join(wanted)} to be served")

    def add_foreign_kinds(self) -> None:
        """Make the other projects' kinds known."""
        for body in FOREIGN:
            self.kube.apply(body)
        self.wait_for_kinds(body["metadata"]["name"] for body in FOREIGN)

    def silence_webhooks(self, namespace: str) -> None:
        """Send the calls of a namespace's release `dp` to a port of this machine where nobody listens."""
        for kind in (VALIDATING, MUTATING):
            name = f"{namespace}-dp-dualpath-operator"
            nowhere = {"url": "https://127.0.0.1:1/"}
            change = [{"op": "replace", "path": "/webhooks/0/clientConfig", "value": nowhere}]
            self.kube.patch(kind, name, change, kind="json")


def older(chart: Path, folder: Path, version: str, changes: dict[str, str] | None = None) -> Path:
    """A package of a chart as a former version, with some text of its values.yaml changed."""
    copy = folder / chart.name
    shutil.copytree(chart, copy)
    about = yaml.safe_load((copy / "Chart.yaml").read_text())
    about.update(version=version, appVersion=version)
    (copy / "Chart.yaml").write_text(yaml.safe_dump(about))
    text = (copy / "values.yaml").read_text()
    for now, then in (changes or {}).items():
        assert now in text
        text = text.replace(now, then)
    (copy / "values.yaml").write_text(text)
    kube_tools.run("helm", "package", copy, "--destination", folder)
    return folder / f"{chart.name}-{version}.tgz"


def cluster(name: str, namespace: str) -> Object:
    """A DualPathCluster that all rules let pass."""
    resources = {"dramBuffer": "1Gi", "kvCache": "1Gi"}
    spec = {
        "model": {"uri": "hf://a/b", "servedName": "m"},
        "prefill": {"resources": resources},
        "decode": {"resources": resources},
        "storage": {"files": {"size": "1Gi"}},
    }
    return {
        "apiVersion": "dualpath.io/v1alpha1",
        "kind": "DualPathCluster",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }
