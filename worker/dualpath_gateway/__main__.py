"""`python -m dualpath_gateway --config FILE --port N`: the gateway process.

Prints one line, `listening http://HOST:PORT`, when it serves; --ready-file gets the same as JSON. SIGTERM or
SIGINT: admit nothing new, finish what runs, exit 0. A bad spec or checkpoint: one message on stderr, exit 2.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import uvloop
from aiohttp import web

from dualpath_api.cluster import DualPathCluster
from dualpath_api.errors import DualPathError, SpecError
from dualpath_api.loading import load_cluster
from dualpath_api.logs import set_up_logging
from dualpath_gateway.app import build_app, stop_serving
from dualpath_gateway.log import event
from dualpath_gateway.settings import Settings, read_settings
from dualpath_gateway.text.model import TextModel, load_text_model

log = logging.getLogger("dualpath.gateway")

SWITCH_INTERVAL_S = 0.001
"""How long a thread may hold the interpreter lock against the event loop."""


def main() -> int:
    """Parse flags and serve until a signal comes."""
    parser = argparse.ArgumentParser(prog="python -m dualpath_gateway", description=__doc__)
    parser.add_argument("--config", required=True, type=Path, help="a DualPathCluster, YAML or JSON")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", default=0, type=int, help="port to listen on; 0: any free one")
    parser.add_argument("--log", default="text", choices=("text", "json"), help="style of log lines")
    parser.add_argument(
        "--log-level",
        default="INFO",
        choices=("DEBUG", "INFO", "WARNING", "ERROR"),
        help="the least level that is logged",
    )
    parser.add_argument("--ready-file", type=Path, help="written when listening")
    parser.add_argument("--ready-fd", type=int, help="file descriptor that gets the ready line")
    arguments = parser.parse_args()
    set_up_logging("gateway", arguments.log, logging.getLevelNamesMapping()[arguments.log_level])
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        settings = read_settings(os.environ)
        cluster = load_cluster(arguments.config)
        model = load_text_model(checkpoint_directory(cluster.spec.model.uri), cluster.spec.model.served_name)
        uvloop.run(_serve(arguments, cluster, model, settings))
    except DualPathError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except OSError as error:
        sys.stderr.write(f"cannot listen on {arguments.host}:{arguments.port}: {error.strerror or error}\n")
        return 1
    return 0


def checkpoint_directory(uri: str) -> Path:
    """The directory of a file:// URI. Raises SpecError for anything else."""
    parts = urlsplit(uri)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost"):
        raise SpecError(
            f"spec.model.uri is {uri}",
            cause="the gateway reads local checkpoints only",
            remedy="give file:///path; `dualpath up` fetches hf:// models to such a path before",
        )
    return Path(unquote(parts.path))


async def _serve(
    arguments: argparse.Namespace, cluster: DualPathCluster, model: TextModel, settings: Settings
) -> None:
    """Listen, say so, wait for a signal, stop."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    app = build_app(cluster, model, settings)
    runner = web.AppRunner(
        app, handler_cancellation=True, access_log=None, shutdown_timeout=1.0, keepalive_timeout=75.0
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, arguments.host, arguments.port, backlog=1024)
        await site.start()
        _tell_ready(arguments, runner.addresses[0][1])
        await stop.wait()
        await stop_serving(app)
    finally:
        await runner.cleanup()
    event(log, "stopped")


def _tell_ready(arguments: argparse.Namespace, port: int) -> None:
    """Say on which port this process listens, wherever it was asked to."""
    host = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
    url = f"http://{host}:{port}"
    event(log, "listening", url=url, pid=os.getpid())
    if arguments.ready_file is not None:
        scratch = arguments.ready_file.with_name(f".{arguments.ready_file.name}.{os.getpid()}")
        scratch.write_text(json.dumps({"url": url, "port": port, "pid": os.getpid()}) + "\n")
        scratch.replace(arguments.ready_file)
    if arguments.ready_fd is not None:
        with os.fdopen(arguments.ready_fd, "w") as pipe:
            pipe.write(f"{port}\n")
    sys.stdout.write(f"listening {url}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
