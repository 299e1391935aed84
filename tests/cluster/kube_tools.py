"""The programs of the test bed: built from pinned sources once, or taken from KUBEBUILDER_ASSETS."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from pathlib import Path

TOOLS = Path(__file__).parent / "tools"


class ToolsMissing(Exception):  # noqa: N818 - what it says
    """The tools cannot be built. Never a reason to skip: without them nothing of the operator is proven."""


@cache
def folder() -> Path:
    """The folder of the built tools; builds what is missing, which takes minutes the first time."""
    build = subprocess.run([TOOLS / "build.sh"], stdout=subprocess.PIPE, text=True, check=False)
    if build.returncode != 0:
        raise ToolsMissing(
            f"the Kubernetes test tools cannot be built (exit code {build.returncode}; its messages are above)\n"
            f"  remedy: run {TOOLS / 'build.sh'} and mend what it names, or set KUBEBUILDER_ASSETS"
        )
    return Path(build.stdout.split()[-1])


def path(name: str) -> Path:
    """Where a tool is: `etcd`, `kube-apiserver`, `kubectl`, `kwok`, `helm`, `kubeconform`, `promtool`, ..."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    for place in ([Path(assets)] if assets else []) + [folder()]:
        if (place / name).exists():
            return place / name
    raise ToolsMissing(f"no tool {name} in {folder()}: is it in {TOOLS / 'build.sh'}?")


def run(name: str, *arguments: str | Path, stdin: str = "", check: bool = True, **env: str) -> str:
    """Run a tool to its end; stdout and stderr in one. With `check`, a failure raises with all it said."""
    done = subprocess.run(
        [path(name), *arguments],
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env={**os.environ, **env},
        timeout=240,
    )
    if check and done.returncode != 0:
        raise AssertionError(
            f"{name} {' '.join(map(str, arguments))}: exit code {done.returncode}\n{done.stdout}"
        )
    return done.stdout
