"""Pydantic models as Kubernetes structural schemas (OpenAPI v3, nothing nullable, no references).

Only what our models use is known; a field of another type, without a description or without a bound on its
size is an error here: the API server estimates the cost of CEL rules from these bounds.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, MaxLen, MinLen
from pydantic import BaseModel, StringConstraints
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined, to_jsonable_python

from dualpath_api.spec.base import Rule, Section
from dualpath_api.units import InYaml

Schema = dict[str, Any]

_LENGTHS = {"string": ("minLength", "maxLength"), "array": ("minItems", "maxItems"),
            "object": ("minProperties", "maxProperties")}  # fmt: skip


def section_schema(section: type[BaseModel]) -> Schema:
    """The schema of a section. Raises ValueError for a field that cannot be put into one."""
    schema: Schema = {"type": "object", "properties": {}}
    required = []
    for name, field in section.model_fields.items():
        key = field.alias or name
        if not field.description:
            raise ValueError(f"{section.__name__}.{name} has no description")
        try:
            schema["properties"][key] = _field_schema(field)
        except ValueError as error:
            raise ValueError(f"{section.__name__}.{name}: {error}") from None
        if field.is_required():
            required.append(key)
    if required:
        schema["required"] = sorted(required)
    rules = section.RULES if issubclass(section, Section) else ()
    if rules:
        schema["x-kubernetes-validations"] = [_rule(rule) for rule in rules]
    return schema


def _rule(rule: Rule) -> Schema:
    return {"rule": rule.cel, "message": rule.message}


def _field_schema(field: FieldInfo) -> Schema:
    schema = _type_schema(field.annotation, field.metadata)
    schema["description"] = field.description
    default = field.default
    if isinstance(default, BaseModel):
        # The API server checks rules on a default before it fills in those within: it is written out.
        schema["default"] = _set_values(default.model_dump(mode="json", by_alias=True))
    elif default is not PydanticUndefined and default is not None and default not in ((), {}):
        schema["default"] = _printed(default, field)
    extra = field.json_schema_extra
    if isinstance(extra, Mapping) and (keys := extra.get("listMapKeys")):
        schema |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": keys}
    elif schema.get("type") == "array":
        schema["x-kubernetes-list-type"] = "atomic"
    return schema


def _printed(default: Any, field: FieldInfo) -> Any:
    """The default as people write it."""
    for mark in field.metadata:
        if type(mark).__name__ == "PlainSerializer":
            return mark.func(default)
    return to_jsonable_python(default)


def _set_values(value: Any) -> Any:
    """A section's printed default without its unset and empty fields."""
    if not isinstance(value, dict):
        return value
    return {key: _set_values(inner) for key, inner in value.items() if inner not in (None, [], {}, "")}


def _type_schema(annotation: Any, metadata: list[Any]) -> Schema:
    """The schema of an annotation with the constraints that stand beside it."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        (inner,) = (argument for argument in arguments if argument is not type(None))
        return _type_schema(inner, metadata)
    if hasattr(annotation, "__metadata__"):
        return _type_schema(arguments[0], [*annotation.__metadata__, *metadata])
    unit = next((mark for mark in metadata if isinstance(mark, InYaml)), None)
    if unit is not None:
        return _unit_schema(unit, metadata)
    schema = _plain(annotation, origin, arguments)
    for mark in metadata:
        _constrain(schema, mark)
    if schema["type"] == "string" and not ({"maxLength", "enum"} & schema.keys()):
        raise ValueError("text needs max_length")
    if schema["type"] == "array" and "maxItems" not in schema:
        raise ValueError("a list needs max_length")
    return schema


def _plain(annotation: Any, origin: Any, arguments: tuple[Any, ...]) -> Schema:
    simple = {str: "string", bool: "boolean", int: "integer"}
    if annotation in simple:
        return {"type": simple[annotation]} | ({"format": "int64"} if annotation is int else {})
    if origin is Literal:
        kind = "string" if isinstance(arguments[0], str) else "integer"
        return {"type": kind, "enum": list(arguments)}
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return {"type": "string", "enum": [member.value for member in annotation]}
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return section_schema(annotation)
    if origin is tuple:
        return {"type": "array", "items": _type_schema(arguments[0], [])}
    if origin is dict and arguments[1] is Any:
        return {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    if origin is dict:
        return {"type": "object", "additionalProperties": _type_schema(arguments[1], [])}
    raise ValueError(f"{annotation} has no structural schema")


def _unit_schema(unit: InYaml, metadata: list[Any]) -> Schema:
    schema = dict(unit.schema)
    if unit.compare is not None and (rules := list(_limits(unit, unit.compare, metadata))):
        schema["x-kubernetes-validations"] = rules
    return schema


def _limits(unit: InYaml, compare: Callable[[str, float], str], metadata: list[Any]) -> Iterator[Schema]:
    """The limits of a unit as CEL rules."""
    low: list[Any] = [mark.ge for mark in metadata if isinstance(mark, Ge)]
    high: list[Any] = [mark.le for mark in metadata if isinstance(mark, Le)]
    floors = {unit.floor[0]: [unit.floor[1]]} if unit.floor else {}
    for sign, words, limits in (
        (">=", "at least", low or floors.get(">=", [])),
        (">", "more than", [] if low else floors.get(">", [])),
        ("<=", "at most", high),
    ):
        for limit in limits:
            yield {"rule": compare(sign, limit), "message": f"it must be {words} {unit.shown(limit)}"}


def _constrain(schema: Schema, mark: Any) -> None:
    """Add one constraint; pydantic keeps patterns in marks of its own."""
    low, high = _LENGTHS.get(schema["type"], ("", ""))
    match mark:
        case Ge():
            schema["minimum"] = mark.ge
        case Gt():
            schema |= {"minimum": mark.gt, "exclusiveMinimum": True}
        case Le():
            schema["maximum"] = mark.le
        case MinLen():
            schema[low] = mark.min_length
        case MaxLen():
            schema[high] = mark.max_length
        case StringConstraints():
            _strings(schema, mark)
        case _:
            if pattern := getattr(mark, "pattern", None):
                schema["pattern"] = pattern


def _strings(schema: Schema, mark: StringConstraints) -> None:
    given = {"pattern": mark.pattern, "maxLength": mark.max_length, "minLength": mark.min_length}
    schema.update({key: value for key, value in given.items() if value is not None})
