"""Names of services for real pods: a small DNS server in this process that answers from the API server.

NAME.NAMESPACE.svc.cluster.local is the service's address; a headless service gives its ready pods' addresses, and
POD.NAME.NAMESPACE.svc.cluster.local one of them. Any other name does not exist.
"""

from __future__ import annotations

import ipaddress
import socketserver
import struct
import threading
from typing import Any, Self

from kube_api import ApiError, Kube, Object

DOMAIN = "svc.cluster.local"
TYPE_A, CLASS_IN = 1, 1
TTL_S = 1
HEADER = struct.Struct("!HHHHHH")
ANSWERED, NO_SUCH_NAME = 0x8580, 0x8583  # a response, authoritative, recursion asked for and available


class ClusterDns:
    """A DNS server on one address, port 53, while it is entered."""

    def __init__(self, kube: Kube, address: str) -> None:
        self._kube = kube
        resolver = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                question, socket = self.request
                socket.sendto(resolver.answer(question), self.client_address)

        self._server = socketserver.ThreadingUDPServer((address, 53), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="cluster-dns", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, query: bytes) -> bytes:
        """The response to one query."""
        number, *_ = HEADER.unpack_from(query)
        name, end = _name(query, HEADER.size)
        kind, _ = struct.unpack_from("!HH", query, end)
        addresses = self.addresses(name)
        shown = addresses if kind == TYPE_A and addresses else []
        flags = NO_SUCH_NAME if addresses is None else ANSWERED
        question = query[HEADER.size : end + 4]
        records = b"".join(
            struct.pack("!HHHIH", 0xC00C, TYPE_A, CLASS_IN, TTL_S, 4) + ipaddress.IPv4Address(one).packed
            for one in shown
        )
        return HEADER.pack(number, flags, 1, len(shown), 0, 0) + question + records

    def addresses(self, name: str) -> list[str] | None:
        """The addresses of a name; None when there is no such name."""
        labels, _, rest = name.lower().rstrip(".").partition(f".{DOMAIN}")
        parts = labels.split(".")
        if rest or len(parts) not in (2, 3) or not name.lower().rstrip(".").endswith(DOMAIN):
            return None
        service = self._service(*parts[-2:])
        if service is None:
            return None
        address = service["spec"].get("clusterIP", "None")
        if address != "None":
            return [address] if len(parts) == 2 else None
        return self._of_pods(service, parts[0] if len(parts) == 3 else None)

    def _service(self, name: str, namespace: str) -> Object | None:
        try:
            return self._kube.find("services", name, namespace)
        except ApiError:
            return None

    def _of_pods(self, service: Object, pod: str | None) -> list[str] | None:
        metadata = service["metadata"]
        labels = {"kubernetes.io/service-name": metadata["name"]}
        slices = self._kube.all("endpointslices.discovery.k8s.io", metadata["namespace"], labels)
        endpoints: list[Any] = [endpoint for one in slices for endpoint in one.get("endpoints") or ()]
        early = service["spec"].get("publishNotReadyAddresses", False)
        found = [
            address
            for endpoint in endpoints
            if early or endpoint["conditions"].get("ready")
            if pod is None or pod in (endpoint.get("hostname"), endpoint.get("targetRef", {}).get("name"))
            for address in endpoint["addresses"]
        ]
        return found or (None if pod else [])


def _name(message: bytes, at: int) -> tuple[str, int]:
    """The name at a place of a query, where names are never compressed, and the place after it."""
    labels = []
    while length := message[at]:
        labels.append(message[at + 1 : at + 1 + length].decode("ascii", "replace"))
        at += 1 + length
    return ".".join(labels), at + 1
