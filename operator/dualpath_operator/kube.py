"""The only module that talks to the API server, apart from kopf's watches of what people write.

Raw JSON over the client's HTTP layer: typed models of a hundred kinds would cost more than all else the
operator does. Nothing is retried here; the work queue repeats a pass that failed.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import AsyncIterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlencode
from urllib.request import getproxies

import aiohttp
import msgspec
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.rest import RESTClientObject

from dualpath_operator.connection import configuration_of
from dualpath_operator.kinds import BY_NAME, Kind
from dualpath_operator.model import MANAGER, Object

TIMEOUT_S = 30.0
WITHIN = aiohttp.ClientTimeout(total=TIMEOUT_S)
WATCH_S = (240, 300)
"""How long a watch is asked to last: not all end at once."""
PAGE = 100

_TEMPLATED = frozenset({"Pod", "Deployment"})
"""Kinds with a user's podTemplate in them: what the API server does not know is refused, not dropped."""


class KubeError(Exception):
    """The API server refused, or did not answer (status 0)."""

    def __init__(
        self, status: int, reason: str, call: str, said: str, retry_after: float | None = None
    ) -> None:
        super().__init__(f"{call}: {status} {said}" if status else f"{call}: {said}")
        self.status = status
        self.reason = reason
        self.said = said  # in the API server's words
        self.retry_after = retry_after

    @property
    def taken(self) -> bool:
        """Whether the name of a new object is taken; other conflicts, as those of a quota, pass by."""
        return self.status == 409 and self.reason == "AlreadyExists"

    @property
    def transient(self) -> bool:
        """Whether the same call may succeed later. Conflicts are: the next pass sees the newer object."""
        return self.status in {0, 408, 409, 410, 429} or self.status >= 500


class Page(NamedTuple):
    """Objects, and the resourceVersion at which they were listed, alike for all pages of a list."""

    items: list[Object]
    version: str


class Api:
    """Calls to one API server. Use as an async context manager, or `close` it."""

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration
        self._rest = RESTClientObject(configuration)
        unbounded = copy.copy(configuration)
        unbounded.connection_pool_maxsize = 0  # each watch holds a connection: calls must not wait for those
        self._streams = RESTClientObject(unbounded)

    @classmethod
    async def connect(cls, context: str | None = None) -> Api:
        """By the kubeconfig, else by the Pod's ServiceAccount. Raises SpecError where neither can be used."""
        configuration = await configuration_of(context)
        configuration.connection_pool_maxsize = 64
        # else each call looks for proxies and reads ~/.netrc, a tenth of all that the operator does
        configuration.client_session_kwargs = {"trust_env": bool(getproxies())}
        return cls(configuration)

    async def close(self) -> None:
        """Close all connections."""
        await self._rest.close()
        await self._streams.close()

    async def __aenter__(self) -> Api:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # ------------------------------------------------------------ reading

    async def get(
        self, kind: Kind, namespace: str | None, name: str, *, cached: bool = False
    ) -> Object | None:
        """One object, or None. `cached` lets the API server answer from its watch cache."""
        query = {"resourceVersion": "0"} if cached else {}
        try:
            return await self.request("GET", kind.path(namespace, name), query=query)
        except KubeError as error:
            if error.status == 404:
                return None
            raise

    async def pages(
        self,
        kind: Kind,
        namespace: str | None,
        *,
        labels: str = "",
        fields: str = "",
        metadata_only: bool = False,
    ) -> AsyncIterator[Page]:
        """All objects of a kind as they are now, a hundred at a time: thousands at once take much memory."""
        query = {"limit": str(PAGE)} | ({"labelSelector": labels} if labels else {})
        query |= {"fieldSelector": fields} if fields else {}
        accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1" if metadata_only else ""
        while True:
            answer = await self.request("GET", kind.path(namespace), query=query, accept=accept)
            meta = answer.get("metadata", {})
            # of metadata, an empty list comes as null
            yield Page(list(answer.get("items") or ()), str(meta.get("resourceVersion", "")))
            if not meta.get("continue"):
                return
            query["continue"] = meta["continue"]

    async def list(
        self, kind: Kind, namespace: str | None, *, fields: str = "", metadata_only: bool = False
    ) -> list[Object]:
        """As `pages`, all at once."""
        pages = self.pages(kind, namespace, fields=fields, metadata_only=metadata_only)
        return [item async for page in pages for item in page.items]

    async def watch(
        self, kind: Kind, namespace: str | None, version: str, *, labels: str = ""
    ) -> AsyncIterator[Object]:
        """Events after a resourceVersion, until the API server ends the stream, as it does after minutes.

        Raises KubeError; its status is 410 where the version is too old to go on from.
        """
        lasts_s = random.randint(*WATCH_S)
        query = {"watch": "true", "resourceVersion": version, "allowWatchBookmarks": "true"}
        query |= {"timeoutSeconds": str(lasts_s)} | ({"labelSelector": labels} if labels else {})
        lasting = aiohttp.ClientTimeout(total=None, sock_connect=TIMEOUT_S, sock_read=lasts_s + TIMEOUT_S)
        path = kind.path(namespace)
        call = f"WATCH {path}"
        try:
            answer = await self._send("GET", path, query=query, within=lasting, pool=self._streams)
            try:
                if answer.status >= 400:
                    raise _refusal(answer.status, dict(answer.headers), await answer.read(), call)
                async for line in _lines(answer.content):
                    yield _event(line, call)
            finally:
                answer.close()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _no_answer(call, error) from error

    async def kinds(self, api_version: str) -> frozenset[str]:
        """Titles of the kinds of a group and version; empty where the API server has none."""
        try:
            found = await self.request("GET", f"/apis/{api_version}")
        except KubeError as error:
            if error.status in {403, 404}:
                return frozenset()
            raise
        return frozenset(f"{api_version}/{resource['kind']}" for resource in found.get("resources", ()))

    # ------------------------------------------------------------ writing

    async def create(self, obj: Object) -> Object:
        """Make an object. Raises KubeError 409 where its name is taken."""
        kind = BY_NAME[obj["kind"]]
        path = kind.path(obj["metadata"]["namespace"])
        query = {"fieldManager": MANAGER}
        if kind.name in _TEMPLATED:
            query["fieldValidation"] = "Strict"
        return await self.request("POST", path, body=obj, query=query)

    async def apply(self, obj: Object, *, subresource: str = "", manager: str = MANAGER) -> Object:
        """Server-side apply; what we render is ours."""
        kind, meta = BY_NAME[obj["kind"]], obj["metadata"]
        return await self.request(
            "PATCH",
            kind.path(meta["namespace"], meta["name"], subresource),
            body=obj,
            query={"fieldManager": manager, "force": "true"},
            content="application/apply-patch+yaml",
        )

    async def merge(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        body: Object,
        *,
        subresource: str = "",
        strategic: bool = False,
    ) -> Object:
        """Merge patch; strategic where lists of a built-in kind are to be merged by key."""
        content = "application/strategic-merge-patch+json" if strategic else "application/merge-patch+json"
        path = kind.path(namespace, name, subresource)
        return await self.request("PATCH", path, body=body, query={"fieldManager": MANAGER}, content=content)

    async def delete(
        self, kind: Kind, namespace: str, name: str, *, uid: str, grace_s: int | None = None
    ) -> bool:
        """Delete just the object of that uid; False when it is gone already."""
        body: Object = {"preconditions": {"uid": uid}, "propagationPolicy": "Background"}
        if grace_s is not None:
            body["gracePeriodSeconds"] = grace_s
        try:
            await self.request("DELETE", kind.path(namespace, name), body=body)
        except KubeError as error:
            if error.status == 404 or (error.status == 409 and "Precondition" in str(error)):
                return False
            raise
        return True

    # ------------------------------------------------------------ wire

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        query: Mapping[str, str] | None = None,
        content: str = "application/json",
        accept: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> Object:
        """One call. Raises KubeError."""
        headers = {"Content-Type": content, "Accept": accept or "application/json", **(headers or {})}
        call = f"{method} {path}"
        try:
            answer = await self._send(method, path, query=query, headers=headers, body=body)
            raw = await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _no_answer(call, error) from error
        if answer.status >= 400:
            raise _refusal(answer.status, dict(answer.headers), raw, call)
        return _object(raw, call) if raw else {}

    async def _send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None,
        headers: Mapping[str, str] | None = None,
        body: Any = None,
        within: aiohttp.ClientTimeout = WITHIN,
        pool: RESTClientObject | None = None,
    ) -> aiohttp.ClientResponse:
        """The answer, not read yet."""
        token = await self.configuration.get_api_key_with_prefix("BearerToken")
        sent = {**(headers or {}), **({"Authorization": token} if token else {})}
        url = f"{self.configuration.host}{path}" + (f"?{urlencode(query)}" if query else "")
        calls = pool or self._rest
        answer = await calls.request(method, url, headers=sent, body=body, _request_timeout=within)
        response: aiohttp.ClientResponse = answer.response
        return response


async def _lines(stream: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    rest = b""
    async for chunk in stream.iter_any():
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line


def _event(line: bytes, call: str) -> Object:
    """One event of a watch. Raises KubeError where it tells that the watch has failed."""
    event = _object(line, call)
    if event.get("type") == "ERROR":
        told = event.get("object") or {}
        status, reason = int(told.get("code") or 500), str(told.get("reason", ""))
        raise KubeError(status, reason, call, str(told.get("message") or reason))
    if "resourceVersion" not in (event.get("object") or {}).get("metadata", {}):
        raise KubeError(0, "NoAnswer", call, "an event is about no object")
    return event


def _object(raw: bytes, call: str) -> Object:
    try:
        return dict(msgspec.json.decode(raw))
    except (ValueError, TypeError) as error:  # of something in front of the API server
        raise KubeError(0, "NoAnswer", call, "the answer is no JSON object") from error


def _no_answer(call: str, error: Exception) -> KubeError:
    return KubeError(0, "NoAnswer", call, str(error) or type(error).__name__)


def _refusal(status: int, headers: Mapping[str, str], raw: bytes, call: str) -> KubeError:
    """What the API server says; something in front of it may answer in other forms."""
    try:
        told = json.loads(raw)
        reason, message = str(told.get("reason", "")), str(told.get("message", ""))
    except (ValueError, AttributeError):
        reason, message = "", raw[:200].decode("utf-8", "replace")
    wait = headers.get("Retry-After", "")
    retry_after = float(wait) if wait.isdigit() else None
    return KubeError(status, reason, call, message or reason, retry_after)
