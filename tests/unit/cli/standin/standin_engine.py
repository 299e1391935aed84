"""Stands in for an engine: same command line and ready file. STANDIN_<ROLE> says how it behaves."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

parser = argparse.ArgumentParser()
for flag in ("--config", "--role", "--group", "--rank", "--scheduler", "--log", "--ready-file"):
    parser.add_argument(flag, required=True)
given = parser.parse_args()
behaviour = os.environ.get(f"STANDIN_{given.role.upper()}", "")

if behaviour == "refuse":
    print("error: this model is not acceptable", file=sys.stderr)
    sys.exit(2)
if behaviour == "crash":
    sys.exit(1)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
if behaviour == "parent":
    subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import os, signal; print('grandchild', os.getpid(), flush=True); signal.pause()",
        ]
    )
scratch = Path(given.ready_file + ".tmp")
scratch.write_text(json.dumps({"pid": os.getpid(), "metrics": f"http://127.0.0.1:1/{given.role}"}))
scratch.rename(given.ready_file)
print(f"scheduler is {given.scheduler}", flush=True)
while behaviour == "deaf":
    signal.sigwait({signal.SIGTERM})
    print("I do not listen", flush=True)
signal.sigwait({signal.SIGTERM})
sys.stdout.write("last words without a line end")
