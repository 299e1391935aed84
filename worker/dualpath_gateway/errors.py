"""What clients are told when something is wrong: OpenAI error bodies, never a traceback."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from dualpath_gateway.scheduler.core import NoEnginesError, QueueFullError
from dualpath_gateway.scheduler.effects import Failure, FailureKind

log = logging.getLogger("dualpath.gateway")

RETRY_AFTER_S = 1
"""A full queue or a restarting engine is worth asking again after this."""


class ApiError(Exception):
    """A refusal, as the client will see it."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        kind: str = "invalid_request_error",
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after
        self.body: dict[str, Any] = {
            "error": {"message": message, "type": kind, "param": param, "code": code}
        }

    def response(self) -> web.Response:
        """The whole answer."""
        headers = {"Retry-After": str(self.retry_after)} if self.retry_after is not None else None
        return web.Response(
            status=self.status,
            text=json.dumps(self.body),
            content_type="application/json",
            headers=headers,
        )


def bad_request(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """400: the client can do something about it."""
    return ApiError(400, message, param=param, code=code)


def queue_full() -> ApiError:
    """429."""
    return ApiError(
        429,
        "the request queue is full; try again later",
        code="queue_full",
        kind="rate_limit_error",
        retry_after=RETRY_AFTER_S,
    )


def unavailable(message: str) -> ApiError:
    """503."""
    return ApiError(
        503, message, code="unavailable", kind="service_unavailable_error", retry_after=RETRY_AFTER_S
    )


def internal_error() -> ApiError:
    """500: our fault; the log has the traceback."""
    message = "an internal error; the log of the gateway has it under this request id"
    return ApiError(500, message, kind="server_error", code="internal_error")


def from_scheduler(error: NoEnginesError | QueueFullError) -> ApiError:
    """Why the scheduler did not admit a request."""
    if isinstance(error, QueueFullError):
        return queue_full()
    return unavailable("no prefill or no decode engine takes requests now; try again later")


def from_failure(failure: Failure) -> ApiError:
    """Why a request that had been admitted could not be finished."""
    status, kind = {
        FailureKind.ENGINE: (500, "server_error"),
        FailureKind.TIMEOUT: (504, "timeout_error"),
        FailureKind.SHUTDOWN: (503, "service_unavailable_error"),
        FailureKind.UNSERVABLE: (503, "service_unavailable_error"),
    }[failure.kind]
    retry = RETRY_AFTER_S if status == 503 else None
    return ApiError(status, failure.message, code=failure.kind.value, kind=kind, retry_after=retry)


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def as_openai_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error of every route becomes an OpenAI error body."""
    try:
        return await handler(request)
    except ApiError as error:
        return error.response()
    except web.HTTPNotFound:
        return ApiError(404, f"unknown route {request.path}", code="not_found").response()
    except web.HTTPMethodNotAllowed as error:
        response = ApiError(
            405, f"{request.method} is not allowed on {request.path}", code="method_not_allowed"
        ).response()
        response.headers["Allow"] = ", ".join(sorted(error.allowed_methods))
        return response
    except web.HTTPRequestEntityTooLarge:
        limit = request.app._client_max_size
        return ApiError(413, f"the body is larger than {limit} bytes", code="body_too_large").response()
    except web.HTTPException as error:
        return ApiError(error.status, error.reason, code="http_error").response()
    except ConnectionError:
        raise
    except Exception:
        log.exception("unexpected error", extra={"fields": {"path": request.path}})
        return internal_error().response()
