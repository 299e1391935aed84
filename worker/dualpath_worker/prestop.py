"""`python -P -m dualpath_worker.prestop`: what a container does before its engine is stopped.

The gateway is asked to give the engine nothing new; once its requests have ended, to let it read for nobody;
when the engine itself proves that nothing is left, or the deadline has passed, this ends. Without a gateway
there is nothing to wait for, as no request outlives the connection to it. The exit code is always 0: a failed
hook would only make Kubernetes tell an event. What happened is said on stderr and in the container's log.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from dualpath_api.errors import DualPathError, SpecError
from dualpath_api.report import ControlReport, EngineReport, decode_report
from dualpath_api.token import control_token

DEADLINE_S = 3600.0
SILENT_S = 20.0
"""A gateway that is being replaced is back by then."""
AWAY_S = 5.0
"""An engine that had lost its connection is back by then."""
POLL_S = 0.5
CALL_S = 5.0
CONTAINER_LOG = Path("/proc/1/fd/2")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Whose engines are drained, and by whom."""

    gateway: str  # http://host:port
    token: str | None
    pod: str
    pod_uid: str
    rank: int | None  # None: all engines of the pod

    def has(self, engine: EngineReport) -> bool:
        """Whether the engine is one of them."""
        same = engine.pod_uid == self.pod_uid if self.pod_uid else engine.pod == self.pod
        return same and self.rank in (None, engine.rank)


class Gateway:
    """The two calls that are needed; both raise OSError."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # it is in the cluster

    def report(self) -> ControlReport:
        """What the gateway knows of all engines."""
        return decode_report(self._call("/control/v1/report", None))

    def drain(self, engine: EngineReport, *, serve_reads: bool) -> None:
        """Nothing new for this engine; one that has just gone needs no drain."""
        body: dict[str, object] = {"acceptNew": False, "serveReads": serve_reads}
        if self._target.pod_uid:
            body["podUid"] = self._target.pod_uid
        with suppress(urllib.error.HTTPError):
            self._call(f"/control/v1/engines/{engine.id}/drain", json.dumps(body).encode())

    def _call(self, path: str, body: bytes | None) -> bytes:
        headers = {"Content-Type": "application/json"}
        if self._target.token:
            headers["Authorization"] = f"Bearer {self._target.token}"
        request = urllib.request.Request(self._target.gateway + path, data=body, headers=headers)
        with self._opener.open(request, timeout=CALL_S) as answer:
            return bytes(answer.read())


def drain(
    target: Target,
    deadline_s: float,
    say: Callable[[str], None],
    *,
    silent_s: float = SILENT_S,
    away_s: float = AWAY_S,
    poll_s: float = POLL_S,
) -> bool:
    """Drain until it is proven; False: the deadline passed before."""
    gateway, began = Gateway(target), time.monotonic()
    patience, since, told = math.inf, began, ""
    while (now := time.monotonic()) - began < deadline_s:
        before = patience
        try:
            own = [engine for engine in gateway.report().engines if target.has(engine)]
            state, patience = _step(gateway, own), math.inf if own else away_s
        except (OSError, ValueError) as error:
            own, state, patience = [], f"the gateway does not answer: {error}", silent_s
        if own and all(engine.drained for engine in own):
            say(f"drained after {now - began:.1f} s")
            return True
        since = now if patience != before else since
        if now - since >= patience:
            say(f"there is nothing to wait for: {state}")
            return True
        if state != told:
            say(state)
            told = state
        time.sleep(poll_s)
    say(f"not drained within {deadline_s:g} s: {told}")
    return False


def _step(gateway: Gateway, own: Sequence[EngineReport]) -> str:
    """Ask for what is still missing; says what is waited for. A gateway that was restarted is asked again."""
    if not own:
        return "no engine of this pod is connected"
    busy = [engine for engine in own if engine.in_flight]
    for engine in own:
        serve_reads = bool(busy)  # as long as any is needed, all may still be read from
        if engine.accept_new or engine.serve_reads != serve_reads:
            gateway.drain(engine, serve_reads=serve_reads)
    if busy:
        return f"waiting for {sum(engine.in_flight for engine in busy)} requests"
    return f"waiting for {sum(engine.serving_reads for engine in own)} reads by other engines"


# ---------------------------------------------------------------- command line


def main(arguments: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Drain what the environment names."""
    streams: list[TextIO] = [sys.stderr]

    def say(text: str) -> None:
        for stream in streams:
            stream.write(f"prestop: {text}\n")
            stream.flush()

    parser = argparse.ArgumentParser(prog="python -P -m dualpath_worker.prestop", description=__doc__)
    parser.add_argument(
        "--gateway", default=environ.get("DUALPATH_SCHEDULER", ""), help="URL; default: DUALPATH_SCHEDULER"
    )
    parser.add_argument("--deadline", type=float, default=DEADLINE_S, help="seconds")
    parser.add_argument("--rank", type=int, help="only this rank's engine; default: DUALPATH_RANK, else all")
    parser.add_argument("--log", type=Path, default=CONTAINER_LOG, help="also written to, if it can be")
    try:
        given = parser.parse_args(arguments)
        streams += _opened(given.log)
        drain(_target(given.gateway, given.rank, environ), given.deadline, say)
    except DualPathError as error:
        say(str(error))
    except SystemExit as error:  # argparse has said why
        say(f"the command line is not understood (exit code {error.code})")
    except Exception as error:
        say(f"unexpected error: {error!r}")
    return 0


def _target(gateway: str, rank: int | None, environ: Mapping[str, str]) -> Target:
    pod, pod_uid = environ.get("DUALPATH_POD_NAME", ""), environ.get("DUALPATH_POD_UID", "")
    if not pod and not pod_uid:
        raise SpecError(
            "it is not known whose engines to drain",
            cause="neither DUALPATH_POD_UID nor DUALPATH_POD_NAME is set",
            remedy="set one of them, as the operator does",
        )
    scheme, _, rest = gateway.partition("://")
    if scheme not in _HTTP or not rest:
        raise SpecError(
            f"{gateway!r} is not the URL of a gateway",
            cause="it must begin with http://, https://, ws:// or wss://",
            remedy="give --gateway, or set DUALPATH_SCHEDULER",
        )
    text = environ.get("DUALPATH_RANK", "")
    if rank is None and text.isdecimal():
        rank = int(text)
    host = rest.partition("/")[0]
    return Target(
        gateway=f"{_HTTP[scheme]}://{host}", token=control_token(environ), pod=pod, pod_uid=pod_uid, rank=rank
    )


_HTTP = {"http": "http", "https": "https", "ws": "http", "wss": "https"}


def _opened(log: Path) -> list[TextIO]:
    """A hook's own output is kept only when the hook fails; the container's first process has a log."""
    try:
        if not os.path.samestat(log.stat(), os.fstat(2)):
            return [log.open("a", encoding="utf-8")]
    except OSError:
        pass
    return []


if __name__ == "__main__":
    sys.exit(main())
