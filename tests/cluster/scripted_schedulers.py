"""The control API of every cluster's gateway, as kwok's nodes run no gateway: engines are the Pods whose containers run.

It holds the operator to what a gateway holds it to: the cluster's token, and a drain before an engine is empty.
"""

from __future__ import annotations

import base64
import json
import sys
import threading
from collections import defaultdict
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from kube_api import Kube, Object
from kube_objects import condition_of

from dualpath_api.report import ControlReport, EngineReport, SidesReport, encode_report
from dualpath_api.wire import Role

CLUSTER = "dualpath.io/cluster"


class Server(ThreadingHTTPServer):
    """Silent about callers that hang up: some are killed."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """As above; everything else is to be seen."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@dataclass(slots=True)
class Drain:
    """What an engine was asked for last."""

    accept_new: bool = True
    serve_reads: bool = True


@dataclass(slots=True)
class Engines:
    """Of one cluster. `in_flight` by Pod name is work that a drain has to wait for; `unknown` Pods never register."""

    drains: dict[str, Drain] = field(default_factory=lambda: defaultdict(Drain))  # by Pod uid
    drained: set[str] = field(default_factory=set)  # Pod names whose emptiness was reported
    in_flight: dict[str, int] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    token: str = "there is none yet"
    refused: int = 0  # calls without the cluster's token
    sides: SidesReport = field(default_factory=SidesReport)  # the load that is reported


class Schedulers:
    """`url` is the operator's `gatewayUrl`; `engines[namespace, cluster]` is what a test sees and bends."""

    def __init__(self, kube: Kube) -> None:
        self.engines: dict[tuple[str, str], Engines] = defaultdict(Engines)
        self._kube = kube
        self._server = Server(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        """A template with {namespace} and {name}."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/{{namespace}}/{{name}}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        answer = self._answer

        class Handler(BaseHTTPRequestHandler):
            def respond(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length) or b"{}")
                token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
                status, content = answer(self.path, token, body)
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = respond  # noqa: N815 - names of the base class

            def log_message(self, format: str, *args: Any) -> None:
                """Nobody reads it."""

        return Handler

    def _answer(self, path: str, token: str, body: Object) -> tuple[int, bytes]:
        namespace, cluster, _, _, what, *rest = path.strip("/").split("/")
        engines = self.engines[namespace, cluster]
        if token != self._token(namespace, cluster):
            engines.refused += 1
            return 401, b""
        pods = {pod["metadata"]["name"]: pod for pod in self._pods(namespace, cluster, engines)}
        if what == "report":
            reports = tuple(report for pod in pods.values() for report in _reports(pod, engines))
            engines.drained |= {report.id for report in reports if report.drained}
            return 200, encode_report(ControlReport(engines=reports, sides=engines.sides))
        if what == "engines":
            name = rest[0].partition(".")[0]
            if name not in pods:
                return 404, b""
            asked = engines.drains[pods[name]["metadata"]["uid"]]
            resumed = rest[1] == "resume"
            asked.accept_new = resumed or bool(body["acceptNew"])
            asked.serve_reads = resumed or bool(body["serveReads"])
        return 200, b""

    def _token(self, namespace: str, cluster: str) -> str:
        """The gateway's: it keeps the one that it has read when the Secret goes."""
        engines = self.engines[namespace, cluster]
        secret = self._kube.find("secrets", f"{cluster}-control", namespace)
        if secret:
            engines.token = base64.b64decode(secret["data"]["token"]).decode()
        return engines.token

    def _pods(self, namespace: str, cluster: str, engines: Engines) -> list[Object]:
        return [
            pod
            for pod in self._kube.all("pods", namespace, {CLUSTER: cluster})
            if "dualpath.io/role" in pod["metadata"]["labels"]
            and condition_of(pod, "ContainersReady") == "True"
            and pod["metadata"]["name"] not in engines.unknown
        ]


def _reports(pod: Object, engines: Engines) -> list[EngineReport]:
    """An engine for each rank; they drain together."""
    ranks = [one for one in pod["spec"]["containers"] if one["name"].startswith("engine")]
    return [_report(pod, engines, rank) for rank in range(len(ranks))]


def _report(pod: Object, engines: Engines, rank: int) -> EngineReport:
    meta, labels = pod["metadata"], pod["metadata"]["labels"]
    asked, busy = engines.drains[meta["uid"]], engines.in_flight.get(meta["name"], 0)
    empty = not asked.accept_new and not asked.serve_reads and not busy
    return EngineReport(
        id=f"{meta['name']}.{rank}" if rank else meta["name"],
        rank=rank,
        pod=meta["name"],
        pod_uid=meta["uid"],
        role=Role(labels["dualpath.io/role"]),
        revision=labels["dualpath.io/revision"],
        node=pod["spec"].get("nodeName", ""),
        incarnation=meta["uid"],
        state="drained" if empty else "serving" if asked.accept_new else "draining",
        accept_new=asked.accept_new,
        serve_reads=asked.serve_reads,
        in_flight=busy,
        drained=empty,
    )
