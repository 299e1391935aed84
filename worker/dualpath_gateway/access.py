"""Who may use the control paths and the engine socket.

With a token (in the file that DUALPATH_CONTROL_TOKEN_FILE names): who sends it as a bearer token, or in
X-DualPath-Token: a Kubernetes API server that passes a call on to a Service keeps Authorization for itself.
Without: peers on this machine's loopback only, whatever address the port is bound to; and no browser pages,
which could otherwise be made to call from there.
"""

from __future__ import annotations

import hmac
import ipaddress

from aiohttp import web

from dualpath_gateway.errors import ApiError
from dualpath_gateway.keys_of_app import SETTINGS

TOKEN_HEADER = "X-DualPath-Token"


def check_access(request: web.Request) -> None:
    """Raises ApiError 401 or 403."""
    token = request.app[SETTINGS].control_token
    if token is not None:
        given = request.headers.get("Authorization", "")
        passed = request.headers.get(TOKEN_HEADER, "")
        if not any(_same(*pair) for pair in ((given, f"Bearer {token}"), (passed, token))):
            raise ApiError(
                401, "a bearer token is needed here", code="invalid_token", kind="authentication_error"
            )
    elif not is_loopback(request) or "Origin" in request.headers:
        raise ApiError(
            403,
            "without a control token this path serves loopback peers only, and no browsers; "
            "set DUALPATH_CONTROL_TOKEN_FILE",
            code="loopback_only",
            kind="permission_error",
        )


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(), wanted.encode())


def is_loopback(request: web.Request) -> bool:
    """Whether the peer's own address (not a forwarded one) is on the loopback."""
    peer = request.transport.get_extra_info("peername") if request.transport else None
    if not isinstance(peer, tuple):
        return False
    address = ipaddress.ip_address(peer[0].partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
