"""Walks over the schema in our CustomResourceDefinitions: its rules, its fields, and values at their limits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dualpath_api.crd import cluster_crd

Object = dict[str, Any]


def schema_of(definition: Object) -> Object:
    """The schema of a definition's one version."""
    (version,) = definition["spec"]["versions"]
    schema: Object = version["schema"]["openAPIV3Schema"]
    return schema


def spec_schema() -> Object:
    """The schema of a cluster's spec."""
    spec: Object = schema_of(cluster_crd())["properties"]["spec"]
    return spec


def rules(schema: Object, path: str = "") -> Iterator[tuple[str, str, str]]:
    """(path, rule, message) of all CEL rules; `[]` marks items of a list."""
    for rule in schema.get("x-kubernetes-validations", ()):
        yield path, rule["rule"], rule["message"]
    for inner, below in children(schema, path):
        yield from rules(below, inner)


def fields(schema: Object, path: str = "") -> Iterator[tuple[str, Object]]:
    """All fields below, sections too, with their dotted paths."""
    for inner, below in children(schema, path):
        yield inner, below
        yield from fields(below, inner)


def children(schema: Object, path: str) -> Iterator[tuple[str, Object]]:
    """The fields of a section, and the fields of a list's or map's values."""
    for name, below in schema.get("properties", {}).items():
        yield f"{path}.{name}".lstrip("."), below
    if isinstance(schema.get("items"), dict):
        yield f"{path}[]", schema["items"]
    if isinstance(schema.get("additionalProperties"), dict):
        yield f"{path}{{}}", schema["additionalProperties"]


def stands_in(spec: Object, path: str) -> bool:
    """Whether a spec has the field; `[]` is the first item of a list."""
    place: Any = [spec]
    for step in ("[]", *path.replace("[]", ".[]").split(".")):
        if step == "[]" and place:
            place = place[0]
        elif isinstance(place, dict) and step in place:
            place = place[step]
        else:
            return False
    return True


def probes(schema: Object) -> Iterator[Any]:
    """Values inside, at and outside what a field allows, and of other types."""
    if "minimum" in schema:
        yield from (schema["minimum"] - 1, schema["minimum"])
    if "maximum" in schema:
        yield from (schema["maximum"], schema["maximum"] + 1)
    if "minLength" in schema:
        yield from ("a" * (schema["minLength"] - 1), "a" * schema["minLength"])
    if "maxLength" in schema:
        yield from ("a" * schema["maxLength"], "a" * (schema["maxLength"] + 1))
    if "enum" in schema:
        first = schema["enum"][0]
        yield from (first, first + 1 if isinstance(first, int) else f"{first}x")
    if "pattern" in schema:
        yield from ("-", "a", "A b", "a.b/c", "a\n", "5s", "0s", "0", "1.5", "500m", "8Mi", "1Mb", "\u0661Mi")
    yield from ("", 1, True, [], {"x": 1})
