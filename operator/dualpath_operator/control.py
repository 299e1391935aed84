"""Calls to the control API of clusters' gateways. A failure says whether a gateway is there at all."""

from __future__ import annotations

import socket

import aiohttp
import msgspec

from dualpath_api.report import ControlReport, TuningReport, decode_report, encode_report

TIMEOUT_S = 5.0

MAX_ANSWER_BYTES = 8 << 20


class GatewayAbsentError(Exception):
    """Nobody listens there: no scheduler, so nothing is assigned to any engine."""


class GatewaySilentError(Exception):
    """Something is there, but it does not answer as a gateway should."""


class TokenRefusedError(GatewaySilentError):
    """It is a gateway, but of another token."""


class Control:
    """A client for all gateways. Use as an async context manager."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Control:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S, connect=TIMEOUT_S)
        # a connection per call: thousands of idle ones would outnumber what they save
        connector = aiohttp.TCPConnector(limit=64, force_close=True)
        self._session = aiohttp.ClientSession(auto_decompress=False, timeout=timeout, connector=connector)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def report(self, url: str, token: str) -> ControlReport:
        """`GET /control/v1/report`."""
        raw = await self._call("GET", f"{url}/control/v1/report", token)
        try:
            return decode_report(raw)
        except msgspec.DecodeError as error:
            raise GatewaySilentError(f"{url}: its report is unreadable: {error}") from error

    async def tune(self, url: str, token: str, tuning: TuningReport) -> None:
        """`PUT /control/v1/tuning`."""
        await self._call("PUT", f"{url}/control/v1/tuning", token, encode_report(tuning))

    async def drain(self, url: str, token: str, engine: str, pod_uid: str, *, serve_reads: bool) -> None:
        """`POST /control/v1/engines/{id}/drain`: nothing new; not if another Pod took the name."""
        body = msgspec.json.encode({"acceptNew": False, "serveReads": serve_reads, "podUid": pod_uid})
        await self._call("POST", f"{url}/control/v1/engines/{engine}/drain", token, body)

    async def resume(self, url: str, token: str, engine: str) -> None:
        """`POST /control/v1/engines/{id}/resume`."""
        await self._call("POST", f"{url}/control/v1/engines/{engine}/resume", token, b"{}")

    async def _call(self, method: str, url: str, token: str, body: bytes | None = None) -> bytes:
        assert self._session is not None
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            # the gateway is its cluster's, not ours: it leads us nowhere, and its answers have an end
            request = self._session.request(method, url, headers=headers, data=body, allow_redirects=False)
            async with request as answer:
                raw = await _bounded(answer, url)
                status = answer.status
        except aiohttp.ClientConnectorError as error:
            if _nobody(error.os_error):
                raise GatewayAbsentError(str(error)) from error
            raise GatewaySilentError(str(error)) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            told = f"no answer within {TIMEOUT_S:g} s" if isinstance(error, TimeoutError) else str(error)
            raise GatewaySilentError(f"{url}: {told or type(error).__name__}") from error
        if status == 404 and "/engines/" in url:
            return b""  # the engine is not connected: nothing to ask of it
        if status in {401, 403}:
            raise TokenRefusedError(f"{url}: answered {status}, so it does not take the control token")
        if status >= 300:
            raise GatewaySilentError(f"{url}: answered {status}")
        return raw


async def _bounded(answer: aiohttp.ClientResponse, url: str) -> bytes:
    """The body, up to a size that no report has."""
    raw = bytearray()
    async for chunk in answer.content.iter_chunked(1 << 16):
        raw += chunk
        if len(raw) > MAX_ANSWER_BYTES:
            raise GatewaySilentError(f"{url}: its answer has more than {MAX_ANSWER_BYTES} bytes")
    return bytes(raw)


def _nobody(error: OSError) -> bool:
    """Whether it is sure that nobody listens: refused, or no such name. A lost network proves nothing."""
    if isinstance(error, socket.gaierror):
        return error.errno in {socket.EAI_NONAME, socket.EAI_NODATA}
    return isinstance(error, ConnectionRefusedError)
