"""What UCX must find in the environment before NIXL is loaded; the only place that sets it.

Values that are set already win, so an operator can override each of them. What was measured (two processes,
2 cores, loopback; READ of Layer Blocks of 32 KiB):

| UCX_TLS      | 61 blocks | 100 MB, odd order | CPU of both sides for 1 GB |
| ------------ | --------- | ----------------- | -------------------------- |
| tcp,self     | 2.1 ms    | 0.9 GB/s          | 0.8 s                      |
| tcp,cma,self | 0.3 ms    | 3.7 GB/s          | 0.3 s                      |
| tcp,sm,self  | 0.3 ms    | 3.6 GB/s          | 0.3 s                      |

cma (process_vm_readv) is used for the bytes and tcp for the notifications: a READ by cma is finished when
it has been posted, so nothing can land later; it needs no progress of the other side; and a dead peer is
still seen at once, by its closed socket, which shared-memory notifications would only notice at the next
keep-alive. Where the kernel forbids cma, or the peer is on another machine, UCX falls back to tcp by
itself.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from pathlib import Path

_ALWAYS = {
    # a peer whose machine or cable is gone: without these a READ waits for ever
    "UCX_TCP_USER_TIMEOUT": "5s",
    "UCX_TCP_KEEPIDLE": "2s",
    "UCX_TCP_KEEPINTVL": "1s",
    "UCX_TCP_KEEPCNT": "3",
    # a lost peer is reported by our own log line, with the engine's name
    "UCX_LOG_LEVEL": "fatal",
    "NIXL_LOG_LEVEL": "FATAL",
}
_WITHOUT_RDMA = {
    "UCX_TLS": "tcp,cma,self",
    # libuct_ib pulls in libnl-route, whose destructor crashes at exit where there is no RDMA
    "UCX_MODULES": "^ib",
}


def prepare(environ: MutableMapping[str, str], *, sysfs: Path = Path("/sys")) -> dict[str, str]:
    """Add what is missing to `environ` (os.environ in a worker) and return what was added."""
    wanted = dict(_ALWAYS)
    if not any((sysfs / "class/infiniband").glob("*")):
        wanted |= _WITHOUT_RDMA
    added = {name: value for name, value in wanted.items() if name not in environ}
    environ.update(added)
    return added


_KEYS = frozenset({"NET_DEVICES", "IB_SL", "IB_TRAFFIC_CLASS", "TCP_PORT_RANGE"})


def engine_config(device: str | None, options: Mapping[str, str]) -> str:
    """UCX's settings of one agent, as NIXL takes them.

    UCX ignores keys that it does not know, so they are checked here; NIXL splits the text at commas. Raises
    ValueError for an unknown key or a comma.
    """
    wanted = ({"NET_DEVICES": device} if device else {}) | dict(options)
    for key, value in wanted.items():
        if key not in _KEYS or "," in value:
            raise ValueError(f"{key}={value} is no setting of a transfer agent")
    return ",".join(f"{key}={value}" for key, value in wanted.items())
