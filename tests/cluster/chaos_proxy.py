"""A reverse proxy before the API server that records every call and does harm on command.

It ends TLS itself, so only callers with a token go through it (client certificates would stay here). Faults are
chosen by method and path; the first that fits a call is used up by it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import selectors
import signal
import ssl
import threading
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import aiohttp
from aiohttp import web
from pki import Pair

MUTATING = frozenset({"POST", "PUT", "PATCH", "DELETE"})
BOOKKEEPING = re.compile(r"/(leases|events|tokenreviews|selfsubject\w+|subjectaccessreviews)(/|$)")
HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "upgrade", "content-length", "host"})
ADDED_BY_AIOHTTP = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
REASONS = {
    403: "Forbidden",
    409: "Conflict",
    410: "Expired",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call that came through; `status` is what the caller was told (0: the connection was cut)."""

    method: str
    path: str
    watch: bool
    status: int

    @property
    def is_write(self) -> bool:
        """Whether it changes objects that matter: leases, events and reviews do not count."""
        return self.method in MUTATING and not BOOKKEEPING.search(self.path)


@dataclass(slots=True, kw_only=True)
class Fault:
    """What to do with calls whose method and path fit; `times` of them, or all until `clear()` (None).

    `status`: answer so instead of asking the API server; 410 on a watch comes as an ERROR event, as in Kubernetes.
    `delay`: seconds before the call goes on. `lost_answer`: the API server does it, the caller is cut off.
    """

    status: int = 0
    delay: float = 0.0
    lost_answer: bool = False
    methods: Iterable[str] = ()
    path: str = ""
    watch: bool | None = None
    times: int | None = 1
    retry_after: int | None = None
    used: int = field(default=0, init=False)

    def fits(self, method: str, path: str, watch: bool) -> bool:
        """Whether this call gets it."""
        return (
            (self.times is None or self.used < self.times)
            and (not self.methods or method in self.methods)
            and (self.watch is None or self.watch == watch)
            and re.search(self.path, path) is not None
        )


@dataclass(slots=True)
class Crash:
    """A process that is to die right after its n-th write; `writes` counts, `fired` says that it did."""

    after: int
    pid: int
    counts: Callable[[Call], bool]
    writes: int = 0
    fired: bool = False
    last: Call | None = None

    def saw(self, call: Call) -> None:
        """Count a call that the API server has answered; kill at the n-th."""
        if self.fired or not self.counts(call):
            return
        self.writes, self.last = self.writes + 1, call
        if self.writes == self.after:
            if self.pid <= 1:
                raise RuntimeError(
                    "the process that is to crash is not known: set Crash.pid before its first write"
                )
            self.fired = True
            os.kill(self.pid, signal.SIGKILL)


class ChaosProxy:
    """`start()` it, give `url` to a program, and order faults from the test's thread."""

    def __init__(self, upstream: str, ca: Path, serving: Pair) -> None:
        self.calls: list[Call] = []
        self._upstream = upstream
        self._trust = ssl.create_default_context(cafile=str(ca))
        self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._tls.load_cert_chain(serving.certificate, serving.key)
        self._faults: list[Fault] = []
        self._crash: Crash | None = None
        self._watches: set[asyncio.Transport] = set()
        self._connections: weakref.WeakSet[asyncio.Transport] = weakref.WeakSet()
        self._selector = selectors.DefaultSelector()
        self._loop = asyncio.SelectorEventLoop(self._selector)
        self._thread = threading.Thread(target=self._serve, name="chaos-proxy", daemon=True)
        self._listening = threading.Event()
        self.port = 0

    @property
    def url(self) -> str:
        """The server for a kubeconfig; its certificate is of the cluster's own authority."""
        return f"https://127.0.0.1:{self.port}"

    def start(self) -> Self:
        """Listen on a free port."""
        self._thread.start()
        if not self._listening.wait(30):
            raise RuntimeError("the chaos proxy does not listen")
        return self

    def stop(self) -> None:
        """Close all connections and end the thread."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def inject(self, fault: Fault) -> Fault:
        """Order a fault; the object returned counts how often it was used."""
        self._faults.append(fault)
        return fault

    def clear(self) -> None:
        """No more faults, crashes and silence from here on."""
        self._faults.clear()
        self._crash = None
        self._loop.call_soon_threadsafe(self._speaks.set)

    def cut_watches(self) -> int:
        """Reset the connections of all watches that run now; how many there were."""
        running = list(self._watches)
        for transport in running:
            self._loop.call_soon_threadsafe(transport.abort)
        return len(running)

    def mute_watches(self) -> None:
        """From now on watches stay open and tell nothing: the blindness that no error reports."""
        self._loop.call_soon_threadsafe(self._speaks.clear)

    def crash_after_write(
        self, after: int, pid: int, counts: Callable[[Call], bool] = lambda call: call.is_write
    ) -> Crash:
        """Kill a process after its n-th write was done by the API server, before it learns of that."""
        self._crash = Crash(after, pid, counts)
        return self._crash

    def writes(self) -> list[Call]:
        """The calls so far that change objects, without leases, events and reviews."""
        return [call for call in self.calls if call.is_write]

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._run())
        self._loop.run_until_complete(self._all_closed())
        self._loop.close()

    async def _all_closed(self) -> None:
        """Transports that were aborted close their sockets in later turns of the loop; its own one stays."""
        for _ in range(100):
            if len(self._selector.get_map()) <= 1:
                break
            await asyncio.sleep(0.02)
        for _ in range(5):
            await asyncio.sleep(0)

    async def _run(self) -> None:
        self._stop, self._speaks = asyncio.Event(), asyncio.Event()
        self._speaks.set()
        connector = aiohttp.TCPConnector(ssl=self._trust, limit=0, ssl_shutdown_timeout=0)
        no_limit = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(
            connector=connector, timeout=no_limit, auto_decompress=False, skip_auto_headers=ADDED_BY_AIOHTTP
        ) as self._session:
            app = web.Application(client_max_size=64 << 20)
            app.router.add_route("*", "/{path:.*}", self._handle)
            runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=self._tls)
            await site.start()
            self.port = runner.addresses[0][1]
            self._listening.set()
            await self._stop.wait()
            for transport in list(self._connections):
                transport.abort()  # an orderly end of TLS would wait for callers that are idle
            await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if isinstance(request.transport, asyncio.Transport):
            self._connections.add(request.transport)
        watch = request.query.get("watch", "") in ("1", "true", "True")
        fault = next((one for one in self._faults if one.fits(request.method, request.path, watch)), None)
        if fault:
            fault.used += 1
            await asyncio.sleep(fault.delay)
            if fault.status:
                self._note(request, watch, 200 if fault.status == 410 and watch else fault.status)
                return _refusal(fault, watch)
        body = await request.read()
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP}
        url = f"{self._upstream}{request.raw_path}"
        async with self._session.request(request.method, url, headers=headers, data=body or None) as answer:
            if watch:
                self._note(request, watch, answer.status)
                return await self._stream(request, answer)
            content = await answer.read()
            cut = fault is not None and fault.lost_answer
            call = self._note(request, watch, 0 if cut else answer.status)
            if self._crash:
                self._crash.saw(call)
            if cut and request.transport:
                request.transport.abort()
            return web.Response(status=answer.status, body=content, headers=_passed_on(answer))

    async def _stream(self, request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
        response = web.StreamResponse(status=answer.status, headers=_passed_on(answer))
        await response.prepare(request)
        transport = request.transport
        if not isinstance(transport, asyncio.Transport):  # the caller has gone
            return response
        self._watches.add(transport)
        try:
            with contextlib.suppress(ConnectionError, aiohttp.ClientError):
                async for chunk in answer.content.iter_any():
                    await self._speaks.wait()
                    await response.write(chunk)
                await response.write_eof()
        finally:
            self._watches.discard(transport)
        return response

    def _note(self, request: web.Request, watch: bool, status: int) -> Call:
        call = Call(method=request.method, path=request.path, watch=watch, status=status)
        self.calls.append(call)
        return call


def _passed_on(answer: aiohttp.ClientResponse) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name.lower() not in HOP_BY_HOP}


def _refusal(fault: Fault, watch: bool) -> web.Response:
    status = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": f"injected {fault.status}",
        "reason": REASONS.get(fault.status, "Unknown"),
        "code": fault.status,
    }
    if watch and fault.status == 410:
        event = json.dumps({"type": "ERROR", "object": status}) + "\n"
        return web.Response(text=event, content_type="application/json")
    headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
    return web.json_response(status, status=fault.status, headers=headers)
