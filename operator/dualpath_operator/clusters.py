"""A DualPathCluster from its watched form."""

from __future__ import annotations

import json

from pydantic import ValidationError

from dualpath_api.cluster import GROUP, VERSION
from dualpath_api.errors import DualPathError
from dualpath_api.loading import build_cluster
from dualpath_operator.desired import check_pod_templates
from dualpath_operator.memory import Memory
from dualpath_operator.model import FINALIZER, Cluster
from dualpath_operator.views import ClusterKey, ClusterView


def read_cluster(key: ClusterKey, view: ClusterView, memory: Memory) -> tuple[Cluster | None, str]:
    """The cluster, or None and what is wrong with its spec. A spec is read once per generation."""
    if memory.generation != view.generation:
        memory.spec, memory.problem, memory.revision = None, "", ""
        data = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": "DualPathCluster",
            "metadata": {"name": key[1], "namespace": key[0]},
            "spec": json.loads(view.spec),
        }
        try:
            spec = build_cluster(data, source=f"{key[0]}/{key[1]}").spec
            check_pod_templates(spec)
            memory.spec = spec
        except (DualPathError, ValidationError) as error:
            memory.problem = " ".join(str(error).split())
        memory.generation = view.generation
    if memory.spec is None:
        return None, memory.problem
    namespace, name = key
    cluster = Cluster(
        namespace=namespace,
        name=name,
        uid=view.uid,
        generation=view.generation,
        spec=memory.spec,
        deleting=view.deleting,
    )
    return cluster, ""


def finalizers_with(finalizers: tuple[str, ...]) -> tuple[str, ...]:
    """The finalizers with ours."""
    return (*finalizers, FINALIZER)
