"""Validation errors in the user's words: which field, what was given, what is allowed, and what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from dualpath_api.cluster import DualPathCluster
from dualpath_api.errors import SpecError
from dualpath_api.units import format_bytes, show_duration

Step = str | int
"""A key of a mapping or an index of a list."""

_MISSING = object()
_TYPES = {
    "int_type": ("a whole number", "write it without quotes and without a unit"),
    "string_type": ("text", "put the value in quotes"),
    "string_too_short": ("text that is not empty", "fill it in"),
    "model_type": ("a mapping of keys", "indent its keys below it"),
    "model_attributes_type": ("a mapping of keys", "indent its keys below it"),
    "tuple_type": ("a list", "start each item with '- '"),
    "invalid_key": ("text as a key", "put the key in quotes"),
}


def describe(
    error: ValidationError, data: object, source: str, origins: Mapping[tuple[Step, ...], str]
) -> SpecError:
    """One SpecError for all that is wrong; `origins` says which fields a flag has set."""
    problems = [_problem(details, data, source, origins) for details in error.errors()]
    (what, cause, remedy), *others = problems
    more = "".join(f"\n  also:   {what}: {cause} ({remedy})" for what, cause, remedy in others)
    return SpecError(what, cause=cause, remedy=remedy + more)


def dotted(path: Sequence[Step]) -> str:
    """As people write it: spec.nics[0].match."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).lstrip(".")


def _problem(
    details: ErrorDetails, data: object, source: str, origins: Mapping[tuple[Step, ...], str]
) -> tuple[str, str, str]:
    """(what, cause, remedy) of one error."""
    path = tuple(step for step in details["loc"] if step != "[key]")
    given = _lookup(data, path)
    about = [flag for set_path, flag in origins.items() if path[: len(set_path)] == set_path]
    if details["type"] == "value_error":  # a rule between fields: one that a flag has set may have broken it
        about += [flag for set_path, flag in origins.items() if set_path[: len(path)] == path]
    where = next(iter(about), source)
    field = dotted(path) or "the document"
    kind = details["type"]
    if kind == "missing":
        what, cause, remedy = f"{field} is missing", "it is required", _add_it(path)
    elif kind == "extra_forbidden":
        what = f"{field} is not known"
        cause, remedy = _unknown_key(path)
    else:
        shown = "not acceptable" if isinstance(given, dict | list) or given is _MISSING else repr(given)
        what = f"{field} is {shown}" if given is not None else f"{field} has no value"
        cause, remedy = _bad_value(details, given, path)
    return f"{where}: {what}", cause, remedy


def _bad_value(details: ErrorDetails, given: object, path: Sequence[Step]) -> tuple[str, str]:
    """(cause, remedy) of a value that is not acceptable."""
    kind, context = details["type"], details.get("ctx", {})
    description = _description(path)
    remedy = f"it means: {description}" if description else "see docs/reference/configuration.md"
    if kind in _TYPES:
        allowed, remedy = _TYPES[kind]
        return f"it must be {allowed}", remedy
    if kind in {"literal_error", "enum"}:
        values = [value.strip("' ") for value in str(context["expected"]).replace(" or ", ",").split(",")]
        allowed = ", ".join(values)
        return f"allowed: {allowed}", _did_you_mean(str(given), values) or f"write {' or '.join(values)}"
    if kind == "value_error":
        cause, _, hint = str(context["error"]).partition("; ")
        return cause, hint or remedy
    if kind == "string_pattern_mismatch":
        return f"it must match {context['pattern']}", remedy
    for name, words in {"ge": "at least", "gt": "more than", "le": "at most"}.items():
        if name in context:
            limit = context[name]
            return f"it must be {words} {_limit(limit, given)}", remedy
    return details["msg"][:1].lower() + details["msg"][1:], remedy


def _limit(limit: float, given: object) -> str:
    """A limit as people write it: a time, bytes or a plain number."""
    if isinstance(limit, float):
        return show_duration(limit)
    return format_bytes(limit) if isinstance(given, str) or limit >= 1 << 20 else str(limit)


def _unknown_key(path: Sequence[Step]) -> tuple[str, str]:
    """(cause, remedy) of a key that does not exist."""
    keys = _keys(_model(path[:-1]))
    parent = dotted(path[:-1]) or "the document"
    remedy = _did_you_mean(str(path[-1]), keys) or f"remove it; {parent} has {', '.join(sorted(keys))}"
    return f"there is no such key in {parent}", remedy


def _did_you_mean(given: str, allowed: Sequence[str]) -> str:
    folded = {value.lower(): value for value in allowed}
    close = get_close_matches(given.lower().replace("_", ""), folded, n=1, cutoff=0.6)
    return f"did you mean {folded[close[0]]}?" if close else ""


def _add_it(path: Sequence[Step]) -> str:
    description = _description(path)
    return f"add it: {description}" if description else "add it; see examples/local.yaml"


def _description(path: Sequence[Step]) -> str:
    model = _model(path[:-1])
    fields = model.model_fields.values() if model else ()
    return next((field.description or "" for field in fields if (field.alias,) == tuple(path[-1:])), "")


def _keys(model: type[BaseModel] | None) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()] if model else []


def _model(path: Sequence[Step]) -> type[BaseModel] | None:
    """The section that a path leads to."""
    model: type[BaseModel] | None = DualPathCluster
    for step in path:
        if isinstance(step, int):
            continue
        annotation: Any = next(
            (f.annotation for f in (model.model_fields.values() if model else ()) if f.alias == step), None
        )
        options = (annotation, *get_args(annotation))
        model = next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), None)
    return model


def _lookup(data: object, path: Sequence[Step]) -> object:
    """What stands at a path; _MISSING if nothing does."""
    for step in path:
        if isinstance(data, dict) and step in data:
            data = data[step]
            continue
        if not (isinstance(data, list) and isinstance(step, int) and step < len(data)):
            return _MISSING
        data = data[step]
    return data
