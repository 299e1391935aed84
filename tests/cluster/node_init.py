"""Process 1 of a real node: its private mounts, containerd, the images, kubelet and kube-proxy; then it reaps.

Run by `real_nodes` inside the node's namespaces, with one JSON file that says what to start.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

PATIENCE_S = 60.0


def main(file: str) -> None:
    """Bring the node up and stay; when this process is killed, the kernel ends all others of the node."""
    settings = json.loads(Path(file).read_text())
    subprocess.run(["mount", "-t", "proc", "proc", "/proc"], check=True)
    for place in settings["private"]:
        Path(place).mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", place], check=True)
    for directory in settings["directories"]:
        Path(directory).mkdir(parents=True, exist_ok=True)
    start(settings, "containerd")
    ctr = ["ctr", "-a", settings["socket"], "-n", "k8s.io"]
    deadline = time.monotonic() + PATIENCE_S
    while subprocess.run([*ctr, "version"], capture_output=True, check=False).returncode:
        if time.monotonic() > deadline:
            sys.exit("containerd does not answer")
        time.sleep(0.05)
    for image in settings["images"]:
        subprocess.run([*ctr, "images", "import", "--no-unpack", image], check=True)
    start(settings, "kubelet")
    start(settings, "kube-proxy")
    while True:
        os.wait()


def start(settings: dict[str, dict[str, list[str]]], name: str) -> None:
    """Start one of the node's services with a log of its own."""
    log = Path(str(settings["logs"])) / f"{name}.log"
    with log.open("ab") as sink:
        subprocess.Popen(settings["commands"][name], stdout=sink, stderr=sink, stdin=subprocess.DEVNULL)


if __name__ == "__main__":
    main(sys.argv[1])
