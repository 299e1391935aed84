"""From the bytes of a request to a validated model; what is wrong is told as a 400 that names the field."""

from __future__ import annotations

from typing import TypeVar

import msgspec
from aiohttp import web
from pydantic import BaseModel, ValidationError

from dualpath_gateway.errors import ApiError, bad_request

M = TypeVar("M", bound=BaseModel)
_KINDS = ("application/json", "application/octet-stream", "application/x-www-form-urlencoded", "text/plain")
_json = msgspec.json.Decoder()


async def read_body(request: web.Request, model: type[M], *, strict: bool = False) -> M:
    """The body as `model`. Raises ApiError 400 or 415, and aiohttp's 413.

    strict: only application/json, which a page in a browser cannot send elsewhere unasked. Otherwise also
    what tools send by default (curl -d says that JSON is a form).
    """
    kind, accepted = request.content_type, ("application/json",) if strict else _KINDS
    if kind not in accepted:
        raise ApiError(415, f"the content type must be application/json, not {kind}", code="content_type")
    raw = await request.read()
    try:
        found = _json.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise bad_request(f"the body is not valid JSON: {error}", code="invalid_json") from None
    if not isinstance(found, dict):
        raise bad_request("the body must be a JSON object", code="invalid_json")
    try:
        return model.model_validate(found)
    except ValidationError as error:
        raise _refusal(error) from None


def _refusal(error: ValidationError) -> ApiError:
    """The first problem, with the path of its field."""
    first = error.errors(include_url=False, include_input=False)[0]
    path = ""
    for step in first["loc"]:
        if isinstance(step, int):
            path += f"[{step}]"
        elif not (step.startswith("function-") or step in _UNION_TAGS):
            path += f".{step}" if path else step
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = "unknown field"
    return bad_request(f"{path}: {message}" if path else message, param=path or None, code="invalid_value")


_UNION_TAGS = {"str", "int", "bool", "float", "TextPart", "constrained-str", "constrained-int"}
