"""Stands in for the gateway: same command line and ready file, holds its port, serves nothing."""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
from pathlib import Path

parser = argparse.ArgumentParser()
for flag in ("--config", "--host", "--port", "--log", "--ready-file"):
    parser.add_argument(flag, required=True)
given = parser.parse_args()

with socket.socket() as listener:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((given.host, int(given.port)))
    listener.listen()
    port = listener.getsockname()[1]
    print(f"listening on {port}, drain {os.environ['DUALPATH_GATEWAY_STOP_S']}", flush=True)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    scratch = Path(given.ready_file + ".tmp")
    scratch.write_text(json.dumps({"port": port}))
    scratch.rename(given.ready_file)
    signal.sigwait({signal.SIGTERM})
    print("gateway drained", flush=True)
