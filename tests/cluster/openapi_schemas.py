"""JSON schemas for kubeconform from a running API server and from definitions: nothing is downloaded.

What the API server would silently prune is an error here: an object that names its properties takes no others.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from kube_api import Kube, Object

# Place of a kind's schema, as kubeconform is told to look for it.
LOCATION = "{{ .ResourceKind }}{{ .KindSuffix }}.json"

GVK = "x-kubernetes-group-version-kind"
PREFIX = "#/components/schemas/"
LISTS = ("allOf", "anyOf", "oneOf")
OPEN = "x-kubernetes-preserve-unknown-fields"


def write_schemas(kube: Kube, folder: Path, kinds: Iterable[tuple[str, str]]) -> str:
    """Write the schemas of (apiVersion, kind) pairs that the API server knows; the location for kubeconform.

    A kind that it does not know is an error: an object of an unknown kind is no checked object.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = _document(kube, "/openapi/v3")["paths"]
    for api_version, kind in sorted(set(kinds)):
        place = f"apis/{api_version}" if "/" in api_version else f"api/{api_version}"
        components = _document(kube, paths[place]["serverRelativeURL"])["components"]["schemas"]
        root = _root(components, api_version, kind)
        parts = {name: strict(components[name]) for name in reachable(components, root)}
        write(folder, api_version, kind, {"$ref": f"#/definitions/{root}", "definitions": parts})
    return f"{folder}/{LOCATION}"


def write_definition(folder: Path, definition: Object) -> None:
    """Write the schemas of a CustomResourceDefinition, one for each version."""
    spec = definition["spec"]
    for version in spec["versions"]:
        schema = strict(version["schema"]["openAPIV3Schema"])
        every = {"apiVersion": {}, "kind": {}, "metadata": {"type": "object"}, "status": {}}
        schema["properties"] = {**schema["properties"], **every}
        write(folder, f"{spec['group']}/{version['name']}", spec["names"]["kind"], schema)


def write(folder: Path, api_version: str, kind: str, schema: Object) -> None:
    """Write one schema where kubeconform looks for it."""
    group, _, version = api_version.rpartition("/")
    suffix = "".join(f"-{part}" for part in (group.split(".")[0], version) if part)
    (folder / f"{kind.lower()}{suffix}.json").write_text(json.dumps(schema))


def reachable(components: Object, root: str) -> set[str]:
    """Names of the components that one of them is made of, itself included."""
    found, waiting = {root}, [root]
    while waiting:
        for name in _references(components[waiting.pop()]):
            if name not in found:
                found.add(name)
                waiting.append(name)
    return found


def strict(schema: Object) -> Object:
    """A schema of Kubernetes as plain JSON Schema that takes no unknown properties."""
    made = {key: value for key, value in schema.items() if not key.startswith("x-") and key != "nullable"}
    if "$ref" in made:
        made["$ref"] = made["$ref"].replace(PREFIX, "#/definitions/")
    if "properties" in made:
        made["properties"] = {name: strict(inner) for name, inner in made["properties"].items()}
        if not schema.get(OPEN):
            made.setdefault("additionalProperties", False)
    for key in ("items", "additionalProperties", "not"):
        if isinstance(made.get(key), dict):
            made[key] = strict(made[key])
    for key in LISTS:
        if key in made:
            made[key] = [strict(inner) for inner in made[key]]
    if schema.get("nullable") and isinstance(made.get("type"), str):
        made["type"] = [made["type"], "null"]
    return made


def _document(kube: Kube, path: str) -> Any:
    answer = kube.request("GET", path)
    return json.loads(answer) if isinstance(answer, str) else answer  # its type is not always said


def _root(components: Object, api_version: str, kind: str) -> str:
    group, _, version = api_version.rpartition("/")
    wanted = {"group": group, "version": version, "kind": kind}
    (name,) = [name for name, schema in components.items() if wanted in schema.get(GVK, ())]
    return str(name)


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key == "$ref" and isinstance(value, str):
                yield value.removeprefix(PREFIX)
            else:
                yield from _references(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _references(value)
