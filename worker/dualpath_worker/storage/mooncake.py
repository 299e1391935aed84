"""The `mooncake` store: one object a Full Block in a Mooncake Store, the same bytes as a block file.

Every call has a deadline of ours and goes through memory of ours (`landing`). Failures end in recomputation:
- a negative code is a miss or an error, never an exception;
- a node that fails or hangs is suspect for a while: blocks that it holds are misses without asking it;
- a master that does not answer is left alone for a moment: then everything is a miss. So are writes after one
  that failed, as the master may choose the same node again.
This process never gives memory to the store; nodes do (`python -m dualpath_worker.storage node`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeVar

from dualpath_api.keys import KvLayout
from dualpath_worker.storage.base import Buffer, ReadResult, StoreStats, WriteResult
from dualpath_worker.storage.blockfile import BlockFormat, CorruptBlockError
from dualpath_worker.storage.blockobject import Bytes, pack, unpack, unpack_layers
from dualpath_worker.storage.calls import CallPool, CallsExhaustedError
from dualpath_worker.storage.counts import StoreCounts
from dualpath_worker.storage.landing import Landing, LandingZone
from dualpath_worker.storage.mooncake_client import ABANDONED_S, Code, MooncakeClient
from dualpath_worker.storage.mooncake_link import StoreLink
from dualpath_worker.storage.suspects import Suspects

log = logging.getLogger(__name__)

T = TypeVar("T")

_NEVER_CLOSED: list[MooncakeClient] = []
"""Clients with hung calls, kept from the garbage collector."""

Timed = tuple[int, float]
"""A code and the seconds that it took."""

_MASTER, _WRITES = "calls of the master", "writes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to wait for what, in seconds."""

    call_s: float = 5.0  # for a transfer, beside the time that its bytes take
    slowest: float = 2.5e6  # bytes/s of a store that is slow, not dead
    ask_s: float = 2.0  # for an answer of the master alone
    suspect_s: float = 10.0  # a node is left alone
    rest_s: float = 1.0  # the master, or all writes, are left alone
    hanging: int = 32  # calls that may hang at once


class MooncakeStore:
    """A `BlockStore` in a Mooncake Store."""

    def __init__(
        self, link: StoreLink, layout: KvLayout, *, domain: str = "default", patience: Patience = Patience()
    ) -> None:
        """`domain` is part of the names of the objects."""
        self._link, self._domain, self._patience = link, domain, patience
        self._shape = BlockFormat(layout)
        self._calls = CallPool(patience.hanging, "mooncake")
        self._landings = LandingZone(self._shape.file_bytes, patience.hanging, self._register)
        self._nodes = Suspects(patience.suspect_s)
        self._resting = Suspects(patience.rest_s)
        self._transfer_s = patience.call_s + self._shape.file_bytes / patience.slowest
        self._counts = StoreCounts()
        self._full = False

    # ------------------------------------------------------------ reading

    def match_prefix(self, keys: Sequence[bytes]) -> int:
        """See `BlockStore.match_prefix`. A store that does not answer in time has none."""
        client = self._client()
        if client is None or not keys:
            return 0
        names = [self._name(key) for key in keys]
        found = self._ask(lambda: client.exist(names))
        if found is None or any(code < 0 for code in found):
            self._rest(_MASTER)
            self._counts.add(read_errors=1)
        return next((place for place, code in enumerate(found or [0]) if code != 1), len(keys))

    def read_full(self, keys: Sequence[bytes], into: Sequence[memoryview]) -> list[ReadResult]:
        """See `BlockStore.read_full`."""
        return [self._read_one(key, buffer) for key, buffer in zip(keys, into, strict=True)]

    def _read_one(self, key: bytes, into: memoryview) -> ReadResult:
        return self._read(
            key,
            self._shape.file_bytes,
            lambda client, name, address: client.get(name, address, self._shape.file_bytes),
            lambda source: unpack(self._shape, key, source, into),
        )

    def read_layers(self, key: bytes, layers: Sequence[int], into: Sequence[memoryview]) -> ReadResult:
        """See `BlockStore.read_layers`."""
        size = self._shape.layer_bytes
        ranges = [(layer * size, size) for layer in layers] + [
            (self._shape.data_bytes, self._shape.tail_bytes)
        ]
        return self._read(
            key,
            sum(length for _, length in ranges),
            lambda client, name, address: client.get_ranges(name, address, ranges),
            lambda source: unpack_layers(self._shape, key, layers, source, into),
        )

    def _read(
        self,
        key: bytes,
        size: int,
        get: Callable[[MooncakeClient, str, int], int],
        deliver: Callable[[Bytes], None],
    ) -> ReadResult:
        client, name = self._client(), self._name(key)
        if client is None:
            return self._miss(skipped_blocks=1)
        if self._nodes and (self._ask(lambda: client.holder(name)) or "") in self._nodes:
            return self._miss(skipped_blocks=1)
        landing = self._landings.take()
        if landing is None:
            return self._read_error(name, "too many calls hang")
        code = self._transfer(landing, lambda: get(client, name, landing.address))
        if code is not None and code >= 0:
            try:
                return self._deliver(key, code == size, landing.memory, deliver, size)
            finally:
                self._landings.give_back(landing)
        if code in Code.MISSES:
            return self._miss()
        self._blame(client, name, code)
        return self._read_error(name, "timeout" if code is None else f"code {code}")

    def _deliver(
        self, key: bytes, whole: bool, source: Bytes, deliver: Callable[[Bytes], None], size: int
    ) -> ReadResult:
        try:
            if not whole:
                raise CorruptBlockError("another length")
            deliver(source)
        except CorruptBlockError as error:
            log.warning("deleted block %s: %s", key.hex(), error)
            self._counts.add(corrupt_blocks=1)
            self.delete(key)
            return ReadResult.CORRUPT
        self._counts.add(read_blocks=1, read_bytes=size - self._shape.tail_bytes)
        return ReadResult.HIT

    def _miss(self, **more: int) -> ReadResult:
        self._counts.add(missed_blocks=1, **more)
        return ReadResult.MISS

    def _read_error(self, name: str, why: str) -> ReadResult:
        log.info("cannot read block %s: %s", name, why)
        self._counts.add(read_errors=1)
        return ReadResult.ERROR

    # ------------------------------------------------------------ writing

    def write_full(self, key: bytes, data: Sequence[Buffer]) -> WriteResult:
        """See `BlockStore.write_full`. The store evicts by itself."""
        client, name = self._client(), self._name(key)
        if client is None or _WRITES in self._resting:
            return self._write_error()
        if self._ask(lambda: client.exist([name])) == [1]:
            return WriteResult.EXISTS
        landing = self._landings.take()
        if landing is None:
            return self._write_error()
        pack(self._shape, key, data, landing.memory)
        code = self._transfer(landing, lambda: client.put(name, landing.address, self._shape.file_bytes))
        if code == 0:
            self._landings.give_back(landing)
        self._say_full(code == Code.NO_SPACE)
        if code == Code.NO_SPACE:
            self._counts.add(refused_blocks=1)
            return WriteResult.FULL
        if code == Code.EXISTS:
            return WriteResult.EXISTS
        if code != 0:
            log.info("cannot write block %s: %s", name, "timeout" if code is None else f"code {code}")
            self._rest(_MASTER if code in Code.UNREACHABLE else _WRITES)
            return self._write_error()
        self._counts.add(written_blocks=1, written_bytes=self._shape.data_bytes)
        return WriteResult.WRITTEN

    def _write_error(self) -> WriteResult:
        self._counts.add(write_errors=1)
        return WriteResult.ERROR

    def _say_full(self, full: bool) -> None:
        if full and not self._full:
            log.warning("the block store is full: new blocks are not stored")
        self._full = full

    # ------------------------------------------------------------ calls

    def _client(self) -> MooncakeClient | None:
        """None: not connected, or the master has just failed to answer."""
        return None if _MASTER in self._resting else self._link.client

    def _ask(self, call: Callable[[], T]) -> T | None:
        """A call without our memory; None: no answer in time."""
        try:
            return self._calls.submit(call).result(self._patience.ask_s)
        except (TimeoutError, CallsExhaustedError):
            return None

    def _transfer(self, landing: Landing, call: Callable[[], int]) -> int | None:
        """A call with a landing, which is the caller's again if it succeeds; None: no answer in time."""

        def timed() -> Timed:
            began, code = time.monotonic(), Code.INTERNAL
            try:
                code = call()
            except Exception:
                log.exception("the store's client failed")
            return code, time.monotonic() - began

        def settle(future: Future[Timed]) -> None:
            code, seconds = future.result()
            if code < 0 and seconds > ABANDONED_S:
                self._landings.lose(landing)
            else:
                self._landings.give_back(landing)

        try:
            future = self._calls.submit(timed)
        except CallsExhaustedError:
            self._landings.give_back(landing)
            return None
        try:
            code, _ = future.result(self._transfer_s)
        except TimeoutError:
            code = None
        if code is None or code < 0:
            future.add_done_callback(settle)  # now, if it is done
        return code

    def _blame(self, client: MooncakeClient, name: str, code: int | None) -> None:
        """Remember who failed to give a block; no code: it hangs."""
        if code in Code.UNREACHABLE and not self._ask(client.healthy):
            self._rest(_MASTER)
        elif code is None or code == Code.TRANSFER:
            node = self._ask(lambda: client.holder(name))
            if node and self._nodes.add(node):
                seconds = self._patience.suspect_s
                log.warning("store node %s fails: its blocks are misses for %.0f s", node, seconds)

    def _rest(self, who: str) -> None:
        if self._resting.add(who):
            log.warning("%s of the block store fail: left alone for a moment", who)

    def _register(self, address: int, size: int) -> bool:
        client = self._link.client
        return client is not None and client.register(address, size)

    def _name(self, key: bytes) -> str:
        return f"{self._domain}/{key.hex()}"

    # ------------------------------------------------------------ the rest

    def delete(self, key: bytes) -> None:
        """See `BlockStore.delete`."""
        client, name = self._client(), self._name(key)
        if client is not None:
            self._ask(lambda: client.remove(name))

    def stats(self) -> StoreStats:
        """See `BlockStore.stats`. Bytes of the whole store are the masters' to tell: 0 here."""
        return StoreStats(**self._counts.values(), full=self._full)

    def close(self) -> None:
        """See `BlockStore.close`. The library crashes when a client is closed under a call: then it stays."""
        self._link.close()
        client, self._link.client = self._link.client, None
        if client is None:
            return
        if self._calls.wait_idle(self._patience.ask_s):
            self._ask(client.close)
        else:
            _NEVER_CLOSED.append(client)
        self._calls.close()
