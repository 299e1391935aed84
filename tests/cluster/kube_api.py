"""A small client of the Kubernetes API for tests: plain dictionaries in and out, resources named as kubectl does.

`pods`, `deployments.apps`, `dualpathclusters.dualpath.io`: the plural and the group; versions come from discovery.
"""

from __future__ import annotations

import base64
import json
import ssl
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import urllib3
import yaml

Object = dict[str, Any]

DISCOVERY = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
PATCHES = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
}


class ApiError(Exception):
    """A refusal by the API server, with its Status object."""

    def __init__(self, code: int, status: Object) -> None:
        super().__init__(f"{code} {status.get('reason', '')}: {status.get('message', '')}")
        self.code = code
        self.reason = str(status.get("reason", ""))
        self.message = str(status.get("message", ""))
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """One resource of the API: where its objects are."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool
    verbs: frozenset[str]

    @property
    def name(self) -> str:
        """As kubectl names it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def api_version(self) -> str:
        """For an object's apiVersion."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(
        self, namespace: str | None = None, name: str | None = None, subresource: str | None = None
    ) -> str:
        """The path of the collection, an object or a subresource."""
        parts = ["/apis" if self.group else "/api", self.api_version]
        parts += ["namespaces", namespace] if self.namespaced and namespace else []
        parts += [self.plural, *(part for part in (name, subresource) if part)]
        return "/".join(parts)


class Kube:
    """A client with the identity of one kubeconfig; may be used from several threads."""

    def __init__(self, kubeconfig: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self.server: str = cluster["server"].rstrip("/")
        trust = ssl.create_default_context(
            cadata=base64.b64decode(cluster["certificate-authority-data"]).decode()
        )
        if "client-certificate-data" in user:
            _load_client_certificate(trust, user)
        self._headers = {"Authorization": f"Bearer {user['token']}"} if "token" in user else {}
        self._pool = urllib3.PoolManager(maxsize=16, ssl_context=trust, retries=False)
        self._known: dict[str, Resource] = {}
        self._lock = threading.Lock()

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        content_type: str = "application/json",
        accept: str = "application/json",
        timeout: float = 60.0,
        query: Mapping[str, str] | None = None,
    ) -> Any:
        """One call; the decoded answer (text when it is not JSON). Raises ApiError from 400 on."""
        answer = self._pool.request(
            method,
            f"{self.server}{path}" + (f"?{urlencode(query)}" if query else ""),
            body=None if body is None else json.dumps(body).encode(),
            headers={"Accept": accept, "Content-Type": content_type, **self._headers},
            timeout=timeout,
        )
        is_json = "json" in answer.headers.get("Content-Type", "")
        content = json.loads(answer.data) if is_json else answer.data.decode(errors="replace")
        if answer.status >= 400:
            raise ApiError(answer.status, content if isinstance(content, dict) else {"message": content})
        return content

    def stream(self, path: str, *, timeout: float = 5.0, **query: str) -> urllib3.BaseHTTPResponse:
        """The open answer of a GET such as a watch, to read line by line; `timeout` is between two reads."""
        url = f"{self.server}{path}?{urlencode(query)}"
        return self._pool.request("GET", url, headers=self._headers, timeout=timeout, preload_content=False)

    def resources(self) -> list[Resource]:
        """All resources that the server has now; one preferred version of each group."""
        return [
            resource
            for root in ("/api", "/apis")
            for group in self.request("GET", root, accept=DISCOVERY)["items"]
            for resource in _resources_of(group)
        ]

    def resource(self, name: str) -> Resource:
        """The resource of a kubectl-like name or of `Kind.group`; looks again when it is not known yet."""
        with self._lock:
            if name not in self._known:
                for one in self.resources():
                    self._known[one.name] = self._known[f"{one.kind}.{one.group}"] = one
            if name not in self._known:
                raise LookupError(f"the API server has no resource {name}")
            return self._known[name]

    def get(
        self, resource: str, name: str, namespace: str | None = None, subresource: str | None = None
    ) -> Object:
        """One object."""
        answer: Object = self.request("GET", self.resource(resource).path(namespace, name, subresource))
        return answer

    def find(self, resource: str, name: str, namespace: str | None = None) -> Object | None:
        """One object, or None when there is none."""
        try:
            return self.get(resource, name, namespace)
        except ApiError as error:
            if error.code == 404:
                return None
            raise

    def all(
        self, resource: str, namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> list[Object]:
        """The objects of a namespace (or of all), narrowed by labels."""
        query = (
            {"labelSelector": ",".join(f"{key}={value}" for key, value in labels.items())} if labels else {}
        )
        items: list[Object] = self.request("GET", self.resource(resource).path(namespace), query=query)[
            "items"
        ]
        return items

    def create(self, body: Object, **query: str) -> Object:
        """Create an object."""
        resource, metadata = self._of(body), body["metadata"]
        path = resource.path(metadata.get("namespace"))
        created: Object = self.request("POST", path, body, query=query)
        return created

    def apply(self, body: Object, *, manager: str = "test", **query: str) -> Object:
        """Server-side apply, by force."""
        metadata = body["metadata"]
        path = self._of(body).path(metadata.get("namespace"), metadata["name"])
        query = {"fieldManager": manager, "force": "true", **query}
        applied: Object = self.request("PATCH", path, body, content_type=PATCHES["apply"], query=query)
        return applied

    def apply_yaml(self, text: str, namespace: str | None = None) -> list[Object]:
        """Server-side apply of all documents; `namespace` goes where a namespaced object names none."""
        return [self.apply(self._placed(body, namespace)) for body in yaml.safe_load_all(text) if body]

    def patch(
        self,
        resource: str,
        name: str,
        body: object,
        namespace: str | None = None,
        subresource: str | None = None,
        *,
        kind: str = "merge",
    ) -> Object:
        """Patch an object; `kind` is merge, json or strategic."""
        path = self.resource(resource).path(namespace, name, subresource)
        patched: Object = self.request("PATCH", path, body, content_type=PATCHES[kind])
        return patched

    def delete(self, resource: str, name: str, namespace: str | None = None, **options: Any) -> None:
        """Delete an object if it is there; `options` are DeleteOptions (gracePeriodSeconds, propagationPolicy)."""
        try:
            self.request("DELETE", self.resource(resource).path(namespace, name), options or None)
        except ApiError as error:
            if error.code != 404:
                raise

    def annotate(
        self, resource: str, name: str, namespace: str | None, annotations: Mapping[str, str | None]
    ) -> None:
        """Set annotations, or remove those that are None."""
        self.patch(resource, name, {"metadata": {"annotations": dict(annotations)}}, namespace)

    def _of(self, body: Object) -> Resource:
        group = body["apiVersion"].rpartition("/")[0]
        return self.resource(f"{body['kind']}.{group}")

    def _placed(self, body: Object, namespace: str | None) -> Object:
        if not namespace or not self._of(body).namespaced or "namespace" in body["metadata"]:
            return body
        return {**body, "metadata": {**body["metadata"], "namespace": namespace}}


def _resources_of(group: Object) -> Iterator[Resource]:
    version = group["versions"][0]
    for resource in version.get("resources", []):
        yield Resource(
            group=group["metadata"].get("name", ""),
            version=version["version"],
            plural=resource["resource"],
            kind=resource["responseKind"]["kind"],
            namespaced=resource["scope"] == "Namespaced",
            verbs=frozenset(resource["verbs"]),
        )


def _load_client_certificate(trust: ssl.SSLContext, user: Mapping[str, str]) -> None:
    with tempfile.NamedTemporaryFile() as both:
        for part in ("client-certificate-data", "client-key-data"):
            both.write(base64.b64decode(user[part]))
        both.flush()
        trust.load_cert_chain(both.name)
