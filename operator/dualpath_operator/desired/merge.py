"""Merging a podTemplate into a rendered Pod, much as `kubectl patch` would.

Maps are merged, other values replaced, null removes. Lists of mappings are merged by the key that names their
items, or appended where items have none; lists of plain values are replaced. What a template says of the
container `engine` holds for all ranks of a group; `engine-3` is one of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from dualpath_api.spec.roles import PodTemplate
from dualpath_operator.desired.owned import in_one, owned_keys
from dualpath_operator.model import Object

_NAMED_BY = {
    "containers": "name",
    "initContainers": "name",
    "volumes": "name",
    "env": "name",
    "resourceClaims": "name",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "hostAliases": "ip",
}
_RANK = re.compile(r"^engine-\d+$")


def merge_pod_template(pod: Object, template: PodTemplate, *, where: str) -> Object:
    """A new Pod. Raises SpecError for what `owned_keys` finds."""
    ours = (*pod["spec"]["containers"], *pod["spec"].get("initContainers", ()))
    containers = frozenset(container["name"] for container in ours)
    problems = owned_keys(template, where=where, containers=containers)
    if problems:
        raise in_one(problems)
    added = template.metadata
    metadata = dict(pod["metadata"])
    for key, extra in (("labels", added.labels), ("annotations", added.annotations)):
        if extra:
            metadata[key] = {**extra, **metadata.get(key, {})}
    spec = template.spec
    if "containers" in spec:
        spec = {**spec, "containers": _for_all_ranks(spec["containers"], containers)}
    return {**pod, "metadata": metadata, "spec": _merged(pod["spec"], spec)}


def _for_all_ranks(containers: list[Object], existing: frozenset[str]) -> list[Object]:
    """The template's containers; `engine` is repeated for all other ranks, before what is said of each."""
    general = [container for container in containers if container["name"] == "engine"]
    ranks = sorted(name for name in existing if _RANK.match(name))
    repeated = [{**container, "name": name} for container in general for name in ranks]
    return [*general, *repeated, *(container for container in containers if container["name"] != "engine")]


def _merged(base: Mapping[str, Any], change: Mapping[str, Any]) -> Object:
    found = dict(base)
    for key, value in change.items():
        if value is None:
            found.pop(key, None)
        elif isinstance(value, dict):
            below = found.get(key)
            merged = _merged(below if isinstance(below, dict) else {}, value)
            if merged or not isinstance(below, dict):
                found[key] = merged
            else:
                found.pop(key)
        elif isinstance(value, list) and all(isinstance(item, dict) for item in value):
            old = found.get(key)
            found[key] = _merged_list(old if isinstance(old, list) else [], value, _NAMED_BY.get(key))
        else:
            found[key] = value
        if found.get(key) == []:
            del found[key]
    return found


def _merged_list(base: list[Object], change: list[Object], name: str | None) -> list[Object]:
    found = list(base)
    for item in change:
        at = next((i for i, old in enumerate(found) if name and old.get(name) == item.get(name)), None)
        if at is None:
            found.append(_merged({}, item))
        else:
            found[at] = _merged(found[at], item)
    return found
