"""Metrics for the autoscaler, set by a test: the API external.metrics.k8s.io, served from this process.

The API server reaches it as it reaches every aggregated API: by a Service, here one that is a name for this machine.
"""

from __future__ import annotations

import base64
import json
import ssl
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from kube_api import Kube, Object
from pki import Authority
from waiting import until

GROUP = "external.metrics.k8s.io"
API_SERVICE = f"v1beta1.{GROUP}"
SERVICE = {"name": "external-metrics", "namespace": "kube-system"}


class ExternalMetrics:
    """`values[name]` is what the metric of that name shows in every namespace; a name without value has no data."""

    def __init__(self, kube: Kube, authority: Authority, front_proxy_ca: Path) -> None:
        self.values: dict[str, int] = {}
        self._kube = kube
        self._ca = authority.certificate
        serving = authority.server(
            "external-metrics", (f"{SERVICE['name']}.{SERVICE['namespace']}.svc", "127.0.0.1")
        )
        trust = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(front_proxy_ca))
        trust.verify_mode = ssl.CERT_REQUIRED
        trust.load_cert_chain(serving.certificate, serving.key)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.socket = trust.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="external-metrics", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        self._kube.apply(self._service())
        self._kube.apply(self._api_service())
        until(self._available, 60, what=f"{API_SERVICE} to be available")
        return self

    def __exit__(self, *exception: object) -> None:
        self._kube.delete("apiservices.apiregistration.k8s.io", API_SERVICE)
        self._kube.delete("services", SERVICE["name"], SERVICE["namespace"])
        self._server.shutdown()
        self._server.server_close()

    def _available(self) -> bool:
        conditions = self._kube.get("apiservices.apiregistration.k8s.io", API_SERVICE)["status"]["conditions"]
        assert [one["status"] for one in conditions if one["type"] == "Available"] == ["True"], conditions
        return True

    def _service(self) -> Object:
        spec = {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": self._port}]}
        return {"apiVersion": "v1", "kind": "Service", "metadata": SERVICE, "spec": spec}

    def _api_service(self) -> Object:
        return {
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": API_SERVICE},
            "spec": {
                "group": GROUP,
                "version": "v1beta1",
                "groupPriorityMinimum": 100,
                "versionPriority": 100,
                "service": {**SERVICE, "port": self._port},
                "caBundle": base64.b64encode(self._ca.read_bytes()).decode(),
            },
        }

    @property
    def _port(self) -> int:
        return int(self._server.server_address[1])

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        answer = self._answer

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                body = json.dumps(answer(self.path.partition("?")[0])).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Nobody reads it."""

        return Handler

    def _answer(self, path: str) -> Object:
        version = f"{GROUP}/v1beta1"
        parts = path.strip("/").split("/")[3:]  # after apis, group and version
        if not parts:
            return {
                "kind": "APIResourceList",
                "apiVersion": "v1",
                "groupVersion": version,
                "resources": [_RESOURCE],
            }
        name = parts[-1]
        values = [self.values[name]] if name in self.values else []
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        items = [
            {"metricName": name, "metricLabels": {}, "timestamp": now, "value": str(value)}
            for value in values
        ]
        return {"kind": "ExternalMetricValueList", "apiVersion": version, "metadata": {}, "items": items}


_RESOURCE = {
    "name": "external",
    "singularName": "",
    "namespaced": True,
    "kind": "ExternalMetricValueList",
    "verbs": ["get"],
}
