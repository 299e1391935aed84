"""Finding a Mooncake Store and staying connected, without ever holding up the engine.

A store that is away is a store without blocks. Addresses are those of masters or of the etcd that elects one;
which of both is asked of them. Once a client has joined it finds a new master by itself.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException

from dualpath_worker.storage.mooncake_client import (
    ETCD,
    MooncakeClient,
    StoreNetwork,
    connect,
    library,
    own_address,
)

log = logging.getLogger(__name__)

RETRY_S = 2.0
_PROBE_S = 1.0
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Asks without a proxy: the store is inside."""


class StoreLink:
    """Connects in a thread of its own; `client` is None until it has."""

    def __init__(
        self,
        endpoints: Sequence[str],
        network: StoreNetwork,
        *,
        copies: int = 1,
        segment: int = 0,
        directory: str = "",
        port: int = 0,
    ) -> None:
        """Raises UnsupportedError where there is no library. The others as `mooncake_client.connect`."""
        library()
        self._endpoints, self._network, self._copies = tuple(endpoints), network, copies
        self._segment, self._directory, self._port = segment, directory, port
        self.client: MooncakeClient | None = None
        self._joined, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="store-link", daemon=True)
        self._thread.start()

    def wait(self, timeout_s: float) -> bool:
        """Wait until there is a client."""
        return self._joined.wait(timeout_s)

    def close(self) -> None:
        """Give up; whoever holds the client closes it."""
        self._stop.set()

    def _run(self) -> None:
        began, told = time.monotonic(), False
        while not self._stop.is_set():
            client = self._try()
            if client is not None:
                if self._stop.is_set():
                    client.close()
                    return
                log.info("joined the store at %s after %.1f s", self._endpoints, time.monotonic() - began)
                self.client = client
                self._joined.set()
                return
            if not told:
                log.warning("no store at %s yet: every block is a miss until there is", self._endpoints)
                told = True
            self._stop.wait(RETRY_S)

    def _try(self) -> MooncakeClient | None:
        try:
            for master in masters(self._endpoints):
                host = self._network.host or own_address(self._endpoints[0].removeprefix(ETCD))
                client = connect(
                    master,
                    self._network,
                    name=f"{host}:{self._port}" if self._port else host,
                    copies=self._copies,
                    segment=self._segment,
                    directory=self._directory,
                )
                if client is not None:
                    return client
        except Exception:
            log.exception("joining the store failed")
        return None


def masters(endpoints: Sequence[str]) -> list[str]:
    """What the library wants to be told: the etcd, if there is one, otherwise every master."""
    bare = [endpoint.removeprefix(ETCD) for endpoint in endpoints]
    if bare != list(endpoints) or any(map(is_etcd, bare)):
        return [ETCD + ";".join(bare)]
    return bare


def is_etcd(endpoint: str) -> bool:
    """Whether an etcd answers there."""
    try:
        with DIRECT.open(f"http://{endpoint}/version", timeout=_PROBE_S) as answer:
            return "etcdserver" in json.load(answer)
    except (OSError, ValueError, HTTPException):  # a master does not speak HTTP
        return False
