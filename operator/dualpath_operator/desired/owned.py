"""What a podTemplate may not say because the operator says it: checked by the webhook and before a merge."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from dualpath_api.cluster import ClusterSpec
from dualpath_api.errors import SpecError
from dualpath_api.spec.fabric import FabricMode
from dualpath_api.spec.roles import PodTemplate
from dualpath_operator import names
from dualpath_operator.desired import commands
from dualpath_operator.desired.fabric import NETWORKS

OUR_CONTAINER = re.compile(r"^(engine(-\d+)?|gateway|model|fabric)$")
OUR_STEPS = frozenset({"model", "fabric"})
"""Init containers."""
OUR_ENV = re.compile(r"^DUALPATH_(?!GATEWAY_)|^DUALPATH_GATEWAY_STOP_S$")
"""The gateway's other variables are settings that a spec has no field for."""
OUR_VOLUMES = frozenset({"config", "control", "models", "store", "tmp", "shm"})
OUR_MOUNTS = (commands.CONFIG_DIR, commands.CONTROL_DIR, commands.MODELS, commands.STORE, "/tmp", "/dev/shm")
OUR_CLAIM = re.compile(r"^(storage|compute(-\d+)?)$")
_OUR_LABELS = frozenset(names.labels("", ""))
_OUR_PREFIX = "dualpath.io/"

POD_SPEC = frozenset(
    {
        "activeDeadlineSeconds", "affinity", "automountServiceAccountToken", "containers", "dnsConfig",
        "dnsPolicy", "enableServiceLinks", "ephemeralContainers", "hostAliases", "hostIPC", "hostNetwork",
        "hostPID", "hostUsers", "hostname", "hostnameOverride", "imagePullSecrets", "initContainers",
        "nodeName", "nodeSelector", "os", "overhead", "preemptionPolicy", "priority", "priorityClassName",
        "readinessGates", "resourceClaims", "resources", "restartPolicy", "runtimeClassName",
        "schedulerName", "schedulingGates", "securityContext", "serviceAccount", "serviceAccountName",
        "setHostnameAsFQDN", "shareProcessNamespace", "subdomain", "terminationGracePeriodSeconds",
        "tolerations", "topologySpreadConstraints", "volumes",
    }
)  # fmt: skip
"""Fields of a PodSpec in Kubernetes 1.34."""

OWNED: Mapping[str, str] = {
    "activeDeadlineSeconds": "remove it; engines and gateway run until the operator ends them",
    "automountServiceAccountToken": "remove it; our processes have no business with the API server",
    "ephemeralContainers": "remove it; `kubectl debug` adds one to a running Pod",
    "hostNetwork": "remove it and set spec.fabric.mode: HostNetwork",
    "hostname": "remove it; the operator names Pods",
    "hostnameOverride": "remove it; the operator names Pods",
    "imagePullSecrets": "move it to spec.imagePullSecrets",
    "readinessGates": "remove it; the operator's gate decides whether an engine is ready",
    "restartPolicy": "remove it; it is Always",
    "serviceAccount": "remove it; Pods use the cluster's own account, which has no rights",
    "serviceAccountName": "remove it; Pods use the cluster's own account, which has no rights",
    "setHostnameAsFQDN": "remove it; the operator names Pods",
    "subdomain": "remove it; the operator names Pods",
    "terminationGracePeriodSeconds": "remove it and set spec.drain.deadline",
}
"""Keys of a PodSpec that the operator owns, and what to do instead."""

_OWNED_IN_CONTAINER: Mapping[str, str] = {
    "command": "remove it; add a container of your own for other programs",
    "args": "remove it; settings of the engines are fields of the spec",
    "ports": "remove it; add a container of your own for other ports",
    "lifecycle": "remove it; the operator's preStop drains the engine",
    "imagePullPolicy": "move it to spec.imagePullPolicy",
}

_LISTS = ("containers", "initContainers", "volumes", "tolerations", "resourceClaims")
Found = tuple[str, str, str]
"""(what, cause, remedy)."""


def template_problems(spec: ClusterSpec) -> tuple[SpecError, ...]:
    """All that is wrong with the podTemplates of a spec."""
    found: list[SpecError] = []
    fetched = {"model"} if spec.model.uri.startswith("hf://") else set()
    checked = {"fabric"} if spec.fabric.mode is not FabricMode.NONE and spec.fabric.preflight else set()
    for role, own in (("prefill", spec.prefill), ("decode", spec.decode)):
        ranks = {"engine", *(f"engine-{rank}" for rank in range(1, own.parallelism.data))}
        ours = frozenset(ranks | fetched | checked)
        found += owned_keys(own.pod_template, where=f"spec.{role}.podTemplate", containers=ours)
    ours = frozenset({"gateway"} | fetched)
    found += owned_keys(spec.gateway.pod_template, where="spec.gateway.podTemplate", containers=ours)
    return tuple(found)


def check_pod_templates(spec: ClusterSpec) -> None:
    """Raises SpecError, with all that is wrong, when a podTemplate touches what is the operator's."""
    if problems := template_problems(spec):
        raise in_one(problems)


def in_one(problems: Sequence[SpecError]) -> SpecError:
    """The first problem, and what else there is."""
    first, *others = problems
    more = "".join(f"\n  also:   {other.what}: {other.cause} ({other.remedy})" for other in others)
    return SpecError(first.what, cause=first.cause, remedy=first.remedy + more)


def owned_keys(
    template: PodTemplate, *, where: str = "podTemplate", containers: frozenset[str] = frozenset({"engine"})
) -> tuple[SpecError, ...]:
    """What a podTemplate may not say, each with its field and a remedy; `containers` are those of ours."""
    checks = (*_metadata(template), *_json(template.spec), *_top(template.spec), *_shapes(template.spec))
    if not checks:
        checks = (*_containers(template.spec, containers), *_named(template.spec))
    return tuple(SpecError(f"{where}.{what}", cause=cause, remedy=remedy) for what, cause, remedy in checks)


def _metadata(template: PodTemplate) -> Iterator[Found]:
    for kind in ("labels", "annotations"):
        for key in getattr(template.metadata, kind):
            if key.startswith(_OUR_PREFIX) or (kind == "labels" and key in _OUR_LABELS):
                yield (
                    f"metadata.{kind}[{key}] is the operator's",
                    "it finds its Pods by it",
                    "use another key",
                )
            elif key == NETWORKS:
                yield (
                    f"metadata.annotations[{key}] is the operator's",
                    "it says which networks Pods are attached to",
                    "remove it and set spec.fabric.mode: Multus",
                )


def _top(spec: Mapping[str, Any]) -> Iterator[Found]:
    for key in spec:
        if key in OWNED:
            yield f"spec.{key} is the operator's", "the operator sets it", OWNED[key]
        elif key not in POD_SPEC:
            close = get_close_matches(str(key), POD_SPEC, n=1, cutoff=0.6)
            remedy = f"did you mean {close[0]}?" if close else "remove it; see `kubectl explain pod.spec`"
            yield f"spec.{key} is not known", "a PodSpec has no such field", remedy


def _json(spec: Mapping[str, Any]) -> Iterator[Found]:
    """YAML knows keys and values that JSON does not, such as dates."""
    try:
        json.dumps(spec, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        yield "spec is not JSON", str(error), "put dates, and keys that are numbers, in quotes"


def _shapes(spec: Mapping[str, Any]) -> Iterator[Found]:
    """Lists of named things have to be such, or nothing could be merged by name."""
    for key in _LISTS:
        if key not in spec:
            continue
        items = spec[key]
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            yield f"spec.{key} is not a list of mappings", "its items are merged", "start each item with '- '"
        elif key != "tolerations" and not all(_is_name(item.get("name")) for item in items):
            yield f"spec.{key} has an item without a name", "items are merged by name", "give each one a name"
        elif key in {"containers", "initContainers"}:
            yield from _container_shapes(key, items)


def _container_shapes(key: str, containers: list[dict[str, Any]]) -> Iterator[Found]:
    for container in containers:
        field = f"spec.{key}[{container['name']}]"
        if "image" in container and not _is_name(container["image"]):
            yield f"{field}.image is not text", "it names an image", "write its name, or remove the key"
        for inner, name in (("env", "name"), ("volumeMounts", "mountPath")):
            items = container.get(inner, [])
            if not isinstance(items, list) or not all(
                isinstance(item, dict) and _is_name(item.get(name)) for item in items
            ):
                what = f"{field}.{inner} is not a list of items with {name}"
                yield what, "items are merged by it", f"give each a {name}"


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _containers(spec: Mapping[str, Any], ours: frozenset[str]) -> Iterator[Found]:
    for key in ("containers", "initContainers"):
        known = sorted(name for name in ours if (name in OUR_STEPS) == (key == "initContainers"))
        there = ", ".join(known) or "none"
        for container in spec.get(key, ()):
            name = container["name"]
            field = f"spec.{key}[{name}]"
            if name in known:
                yield from _owned_container(field, container)
            elif OUR_CONTAINER.match(name):
                yield f"{field} does not exist", f"of ours this Pod has here: {there}", "use another name"
            elif "image" not in container:
                remedy = f"give it an image, or use the name of a container of ours: {there}"
                yield f"{field} has no image", "it is added beside our containers", remedy


def _owned_container(field: str, container: Mapping[str, Any]) -> Iterator[Found]:
    for inner, remedy in _OWNED_IN_CONTAINER.items():
        if inner in container:
            yield f"{field}.{inner} is the operator's", "the operator sets it", remedy
    yield from _inner(field, container)


def _inner(field: str, container: Mapping[str, Any]) -> Iterator[Found]:
    for variable in container.get("env", ()):
        if OUR_ENV.match(variable["name"]):
            yield f"{field}.env[{variable['name']}] is the operator's", "the operator sets it", "remove it"
    for mount in container.get("volumeMounts", ()):
        if mount["mountPath"].rstrip("/") in OUR_MOUNTS:
            yield (
                f"{field}.volumeMounts[{mount['mountPath']}] is the operator's",
                "it is mounted already",
                "remove it",
            )


def _named(spec: Mapping[str, Any]) -> Iterator[Found]:
    for key in ("volumes", "resourceClaims"):
        for item in spec.get(key, ()):
            name = item["name"]
            if name in OUR_VOLUMES if key == "volumes" else OUR_CLAIM.match(name):
                yield f"spec.{key}[{name}] is the operator's", "it has one of that name", "use another name"
