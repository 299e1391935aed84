"""A DualPathCluster from its watched form, and its finalizers."""

from __future__ import annotations

import json
import logging

from dualpath_api.cluster import GROUP, VERSION, ClusterSpec
from dualpath_api.errors import DualPathError
from dualpath_api.loading import build_cluster
from dualpath_operator.desired import check_pod_templates, revision_of
from dualpath_operator.kinds import CLUSTER
from dualpath_operator.kube import Api, KubeError
from dualpath_operator.memory import Memory
from dualpath_operator.model import FINALIZER, Cluster, Surroundings
from dualpath_operator.views import ClusterKey, ClusterView

log = logging.getLogger(__name__)


def read_cluster(
    key: ClusterKey, view: ClusterView, memory: Memory, around: Surroundings
) -> tuple[Cluster | None, str]:
    """The cluster, or None and what is wrong with its spec. A spec is read and rendered once a generation."""
    if memory.generation != view.generation:
        memory.spec, memory.problem, memory.revision = None, "", ""
        try:
            spec = read_spec(key[1], json.loads(view.spec))
            memory.revision = revision_of(_cluster(key, view, spec), around)
            memory.spec = spec
        except DualPathError as error:
            memory.problem = " ".join(str(error).split())
        except (
            Exception
        ) as error:  # a podTemplate is free-form: what nobody thought of must not wedge a cluster
            log.exception("%s/%s cannot be rendered", *key)
            memory.problem = f"the spec cannot be rendered, look at its podTemplates: {error}"
        memory.generation = view.generation
    return (None, memory.problem) if memory.spec is None else (_cluster(key, view, memory.spec), "")


def read_spec(name: str, spec: object) -> ClusterSpec:
    """A spec as the API server has it, its podTemplates looked through. Raises DualPathError."""
    data = {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "DualPathCluster",
        "metadata": {"name": name},
        "spec": spec,
    }
    read = build_cluster(data, source=f"DualPathCluster {name}").spec
    check_pod_templates(read)
    return read


def _cluster(key: ClusterKey, view: ClusterView, spec: ClusterSpec) -> Cluster:
    namespace, name = key
    return Cluster(
        namespace=namespace,
        name=name,
        uid=view.uid,
        generation=view.generation,
        spec=spec,
        deleting=view.deleting,
    )


def finalizers_with(finalizers: tuple[str, ...]) -> tuple[str, ...]:
    """The finalizers with ours."""
    return (*finalizers, FINALIZER)


async def patch_finalizers(api: Api, key: ClusterKey, view: ClusterView, wanted: tuple[str, ...]) -> None:
    """Set the finalizers of a cluster as it was seen; nothing where it has gone meanwhile."""
    body = {"metadata": {"resourceVersion": view.version, "finalizers": list(wanted)}}
    try:
        await api.merge(CLUSTER, *key, body)
    except KubeError as error:
        if error.status != 404:
            raise
