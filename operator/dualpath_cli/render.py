"""`dualpath render`: the objects that a spec becomes in Kubernetes, without a Kubernetes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from dualpath_api.cluster import DualPathCluster
    from dualpath_operator.model import Cluster, Object

NO_UID = "00000000-0000-0000-0000-000000000000"
"""Stands in for uids, which only an API server gives."""


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--namespace", "-n", metavar="NS", help="Namespace; default: the file's metadata.namespace, or default."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON List instead of YAML documents.")
@click.option("--pods", is_flag=True, help="Also print the engines' Pods.")
def render(file: Path, namespace: str | None, as_json: bool, pods: bool) -> None:
    """Print the objects that the operator makes of a DualPathCluster FILE, in the order it applies them.

    Nothing is asked of a Kubernetes: uids are zeros, and objects of optional kinds (PodMonitor, HTTPRoute,
    InferencePool) are printed as if it had them. The Secret NAME-control is left out.

    Example:  dualpath render cluster.yaml --pods | less
    """
    import json

    from dualpath_api.loading import load_cluster

    found = rendered(load_cluster(file), namespace, pods=pods)
    if as_json:
        click.echo(json.dumps({"apiVersion": "v1", "kind": "List", "items": found}, indent=2))
    else:
        for document in found:
            click.echo("---\n" + _as_yaml(document), nl=False)


def _as_yaml(document: Object) -> str:
    """One document; what is equal is written out each time, instead of by reference."""
    import yaml

    class Plain(yaml.SafeDumper):
        def ignore_aliases(self, data: object) -> bool:
            return True

    return str(yaml.dump(document, Dumper=Plain, sort_keys=False, width=110))


def rendered(given: DualPathCluster, namespace: str | None, *, pods: bool) -> list[Object]:
    """The objects of a cluster and, if asked for, its Pods."""
    from dualpath_operator.desired import engine_pod, objects, revision_of
    from dualpath_operator.model import OPTIONAL_KINDS, Cluster, Surroundings
    from dualpath_operator.names import ROLES

    cluster = Cluster(
        namespace=namespace or given.metadata.namespace or "default",
        name=given.metadata.name,
        uid=NO_UID,
        generation=1,
        spec=given.spec,
    )
    around = Surroundings(kinds=frozenset(OPTIONAL_KINDS))
    revision = revision_of(cluster, around)
    replicas = {role: _replicas(cluster, role) for role in ROLES}
    found = list(objects(cluster, around, revision, replicas))
    if pods:
        found += [
            engine_pod(cluster, around, role, revision, index, node, NO_UID)
            for role in ROLES
            for index in range(1 if replicas[role] is None else replicas[role] or 0)
            for node in range(getattr(cluster.spec, role).parallelism.nodes)
        ]
    return found


def _replicas(cluster: Cluster, role: str) -> int | None:
    """Groups to begin with; None: an autoscaler owns the number."""
    scaling = getattr(cluster.spec, role).scaling
    if cluster.spec.suspend:
        return 0
    if scaling.mode == "External":
        return None
    if scaling.mode == "Planner":
        return 1 if scaling.min_replicas is None else int(scaling.min_replicas)
    return int(scaling.replicas)
