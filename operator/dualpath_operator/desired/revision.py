"""The revision of a cluster's engines: a name for all that a change of would need new Pods."""

from __future__ import annotations

from dualpath_operator import names
from dualpath_operator.desired.common import digest, metadata
from dualpath_operator.desired.config import as_text, engine_config
from dualpath_operator.desired.engine import rendered
from dualpath_operator.desired.place import Place
from dualpath_operator.model import Cluster, Object, Surroundings

_ANY = "00000000"
"""Stands in for the revision in what the revision is computed from."""


def revision_of(cluster: Cluster, around: Surroundings) -> str:
    """8 hex digits over the Pods of both roles, what they start from, and `restart.id`.

    The drain's deadline is left out though it sets a Pod's grace period: changing it must not restart
    engines, it holds for Pods that are made afterwards.
    """
    places = [
        Place(cluster=cluster, around=around, role=role, revision=_ANY, index=0) for role in names.ROLES
    ]
    return digest(
        {
            "config": engine_config(cluster),
            "pods": [rendered(place) for place in places],
            "nodes": [place.nodes for place in places],
            "restart": cluster.spec.restart.id,
        },
        8,
    )


def config_map(cluster: Cluster, revision: str) -> Object:
    """The ConfigMap that engines of a revision start from. Immutable: engines that restart find the same."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _labelled(metadata(cluster, names.config(cluster.name, revision), "engines"), revision),
        "immutable": True,
        "data": {"cluster.json": as_text(engine_config(cluster))},
    }


def _labelled(head: Object, revision: str) -> Object:
    return {**head, "labels": {**head["labels"], names.REVISION_LABEL: revision}}
