"""Every change of a cluster's engine Pods, recorded: what must hold at all times is held against it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Self

from kube_api import Object
from stories import Site, is_serving


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The engine Pods after one event of a watch."""

    kind: str  # ADDED | MODIFIED | DELETED
    name: str  # of the Pod that it was about
    pods: Mapping[str, Object]

    def of(self, role: str, *, serving: bool = False) -> list[Object]:
        """The Pods of a role."""
        return [
            pod
            for pod in self.pods.values()
            if pod["metadata"]["labels"]["dualpath.io/role"] == role and (not serving or is_serving(pod))
        ]

    def serving(self, role: str) -> int:
        """How many of a role serve."""
        return len(self.of(role, serving=True))


@dataclass(slots=True)
class PodWatch:
    """Records every change of a cluster's engine Pods while it is open; `seen` is what came, in order."""

    site: Site
    seen: list[Seen] = field(default_factory=list)
    _thread: threading.Thread | None = None
    _closed: bool = False

    def __enter__(self) -> Self:
        listing = self.site.kube.request("GET", f"/api/v1/namespaces/{self.site.namespace}/pods")
        pods = {pod["metadata"]["name"]: pod for pod in self.site.pods()}
        self.seen.append(Seen(kind="", name="", pods=pods))
        version = listing["metadata"]["resourceVersion"]
        self._thread = threading.Thread(target=self._follow, args=(version,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._closed = True
        assert self._thread is not None
        self._thread.join(30)

    def _follow(self, version: str) -> None:
        for event in self._events(version):
            body = event["object"]
            meta = body["metadata"]
            if "dualpath.io/role" not in meta.get("labels", {}):
                continue
            pods = dict(self.seen[-1].pods)
            pods[meta["name"]] = body
            if event["type"] == "DELETED":
                del pods[meta["name"]]
            self.seen.append(Seen(kind=event["type"], name=meta["name"], pods=pods))

    def _events(self, version: str) -> Iterator[Object]:
        path = f"/api/v1/namespaces/{self.site.namespace}/pods"
        while not self._closed:
            answer = self.site.kube.stream(
                path, timeout=10, watch="true", resourceVersion=version, timeoutSeconds="1"
            )
            while line := answer.readline():
                event = json.loads(line)
                version = event["object"]["metadata"]["resourceVersion"]
                yield event
