"""Where engines go: replicas apart, nodes of one replica on different hosts, all near each other."""

from __future__ import annotations

from dualpath_operator import names
from dualpath_operator.desired.place import Place
from dualpath_operator.model import Object

_HOST = "kubernetes.io/hostname"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


def affinity(place: Place) -> Object:
    """Affinity of a Pod. What only helps is preferred: a small cluster runs all on one host."""
    alike = {names.CLUSTER_LABEL: place.cluster.name, names.ROLE_LABEL: place.role}
    apart: Object = {_PREFERRED: [{"weight": 50, "podAffinityTerm": _term({"matchLabels": alike}, _HOST)}]}
    if place.nodes > 1:
        same = alike | {names.REVISION_LABEL: place.revision, names.REPLICA_LABEL: str(place.index)}
        apart[_REQUIRED] = [_term({"matchLabels": same}, _HOST)]
    return {"podAntiAffinity": apart} | _together(place)


def _together(place: Place) -> Object:
    """All engines of a cluster within one domain of the placement's topology."""
    wanted = place.cluster.spec.placement
    if wanted.topology_key is None:
        return {}
    engines = {
        "matchLabels": {names.CLUSTER_LABEL: place.cluster.name},
        "matchExpressions": [{"key": names.ROLE_LABEL, "operator": "Exists"}],
    }
    term = _term(engines, wanted.topology_key)
    if wanted.mode == "Required":
        return {"podAffinity": {_REQUIRED: [term]}}
    return {"podAffinity": {_PREFERRED: [{"weight": 100, "podAffinityTerm": term}]}}


def _term(selector: Object, topology_key: str) -> Object:
    return {"labelSelector": selector, "topologyKey": topology_key}
