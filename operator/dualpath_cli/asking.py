"""Questions to a running gateway, over HTTP."""

from __future__ import annotations

import json
import os
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

from dualpath_api.errors import SpecError
from dualpath_api.token import control_token

TIMEOUT_S = 10.0


def ask(url: str, request: str) -> dict[str, Any]:
    """The record of one request. Raises SpecError when there is no gateway or no such request."""
    base = url.rstrip("/").removesuffix("/v1")
    if not base.startswith(("http://", "https://")):
        raise SpecError(
            f"--url {url}: is no URL", cause="it must start with http://", remedy="http://127.0.0.1:8000"
        )
    question = Request(f"{base}/debug/requests/{quote(request, safe='')}", headers=_headers())
    try:
        with urlopen(question, timeout=TIMEOUT_S) as answer:
            return dict(json.load(answer))
    except HTTPError as error:
        raise _refused(error, base, request) from None
    except (URLError, OSError) as error:
        raise SpecError(
            f"no gateway at {base}",
            cause=str(getattr(error, "reason", error)),
            remedy="is `dualpath up` running? give its address with --url",
        ) from None
    except ValueError:
        raise SpecError(
            f"{base} is no DualPath gateway",
            cause="its answer is no JSON object",
            remedy="give another --url",
        ) from None


def _headers() -> dict[str, str]:
    token = control_token(os.environ)
    return {"Authorization": f"Bearer {token}"} if token else {}


def _refused(error: HTTPError, base: str, request: str) -> SpecError:
    if error.code == 404:
        return SpecError(
            f"{base} does not know the request {request}",
            cause="the id is wrong, or the request is so old that its record is gone",
            remedy="use the id of a recent response",
        )
    if error.code in {401, 403}:
        return SpecError(
            f"{base} wants a token",
            cause=f"it answered {error.code}",
            remedy="let DUALPATH_CONTROL_TOKEN_FILE name the file with its token",
        )
    return SpecError(f"{base} answered {error.code}", cause=str(error.reason), remedy="see the gateway's log")
