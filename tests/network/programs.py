"""Programs of the system that the tests need, installed where they are missing."""

from __future__ import annotations

import os
import shutil
import subprocess


def ensure(program: str, package: str) -> None:
    """Install a package of Debian or Ubuntu, unless its program is there. Raises CalledProcessError."""
    if shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin"):
        return
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", package]):
        subprocess.run(["apt-get", *command], env=environment, check=True, stdout=subprocess.DEVNULL)
