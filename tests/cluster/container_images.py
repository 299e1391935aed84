"""Container images made of what is on this machine: its Python with our packages, and the pause program.

No registry, no base image: the interpreter, its standard library, the shared libraries they name and the packages of
the test environment are laid into one layer. So pods run exactly the code under test, and a change needs seconds.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import io
import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import kube_tools
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PAUSE = "localhost/pause:1"
OURS = tuple(f"dualpath/{name}:0.1.0" for name in ("gateway", "operator", "store", "worker"))
EXTRAS = ("gateway", "operator", "cli")
SITE = "opt/dualpath/site-packages"
PACKAGES = Path(sysconfig.get_path("platlib"))
LEFT_OUT = re.compile(
    r"(^|/)(test|tests|idlelib|tkinter|_tkinter\S*|turtledemo|ensurepip|lib2to3|config-3\S*|site-packages)(/|$)"
)
PASSWD = "root:x:0:0:root:/root:/sbin/nologin\ndualpath:x:10001:10001:dualpath:/tmp:/sbin/nologin\n"


def pause_image(folder: Path) -> Path:
    """The image of the process that holds a pod's namespaces, as an archive for `ctr images import`."""
    layer = Layer()
    layer.add("pause", kube_tools.path("pause"))
    return write_image(folder / "pause.tar", layer.archive(), (PAUSE,), {"Entrypoint": ["/pause"]})


def python_image(folder: Path, tags: Iterable[str] = OURS) -> Path:
    """An image with this Python and DualPath (gateway, operator, CLI) under all of our images' names.

    What engines need beside that is too large: a pod mounts it. The system's libraries for it are in the image.
    """
    layer = Layer()
    for directory in ("tmp", "var/tmp"):
        layer.directory(directory, 0o1777)
    layer.text("etc/passwd", PASSWD)
    layer.text("etc/group", "root:x:0:\ndualpath:x:10001:\n")
    layer.text("etc/nsswitch.conf", "hosts: files dns\n")
    objects = [Path(os.path.realpath(sys.executable)), *_add_standard_library(layer)]
    layer.add(_inside(objects[0]), objects[0])
    for name in ("python", "python3"):
        layer.link(f"usr/local/bin/{name}", str(objects[0]))
    objects += [*_add_packages(layer), *_of_engines()]
    for library in shared_libraries(objects):
        if PACKAGES not in library.parents:
            layer.add(_inside(library), Path(os.path.realpath(library)))
    config = {
        "Env": ["PATH=/usr/local/bin:/usr/bin:/bin", f"PYTHONPATH=/{SITE}", "HOME=/tmp"],
        "Entrypoint": ["python"],
        "User": "10001:10001",
        "WorkingDir": "/tmp",
    }
    return write_image(folder / "dualpath.tar", layer.archive(), tags, config)


class Layer:
    """Files of one image layer; all of root's and readable by everyone."""

    def __init__(self) -> None:
        self._bytes = io.BytesIO()
        self._tar = tarfile.TarFile(fileobj=self._bytes, mode="w", format=tarfile.GNU_FORMAT)
        self._names: set[str] = set()

    def add(self, name: str, file: Path) -> None:
        """A file's content; executable if it is so here."""
        if name not in self._names:
            executable = os.access(file, os.X_OK)
            self._put(
                name,
                0o755 if executable else 0o644,
                content=file.read_bytes(),
                time=int(file.stat().st_mtime),
            )

    def add_module(self, name: str, file: Path) -> None:
        """A file of a package, with its compiled form if Python has made one here: a pod cannot keep its own."""
        self.add(name, file)
        compiled = Path(importlib.util.cache_from_source(file)) if file.suffix == ".py" else file
        if compiled != file and compiled.exists():
            self.add(str(Path(name).parent / "__pycache__" / compiled.name), compiled)

    def text(self, name: str, content: str) -> None:
        """A file with this text."""
        self._put(name, 0o644, content=content.encode())

    def link(self, name: str, target: str) -> None:
        """A symbolic link."""
        self._put(name, 0o777, tarfile.SYMTYPE, target)

    def directory(self, name: str, mode: int = 0o755) -> None:
        """An empty directory."""
        self._put(name, mode, tarfile.DIRTYPE)

    def archive(self) -> bytes:
        """The layer as a tar archive."""
        self._tar.close()
        return self._bytes.getvalue()

    def _put(
        self,
        name: str,
        mode: int,
        kind: bytes = tarfile.REGTYPE,
        link: str = "",
        content: bytes = b"",
        time: int = 0,
    ) -> None:
        self._names.add(name)
        info = tarfile.TarInfo(name)
        info.mode, info.type, info.linkname, info.size, info.mtime = mode, kind, link, len(content), time
        self._tar.addfile(info, io.BytesIO(content))


def write_image(file: Path, layer: bytes, tags: Iterable[str], config: dict[str, Any]) -> Path:
    """Write one layer as an image archive in the format of `docker save`."""
    digest = hashlib.sha256(layer).hexdigest()
    body = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine],
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        "history": [{"created_by": "tests"}],
    }
    described = json.dumps(body).encode()
    name = f"{hashlib.sha256(described).hexdigest()}.json"
    manifest = [{"Config": name, "RepoTags": list(tags), "Layers": [f"{digest}/layer.tar"]}]
    with tarfile.open(file, "w") as archive:
        parts = {
            name: described,
            f"{digest}/layer.tar": layer,
            "manifest.json": json.dumps(manifest).encode(),
        }
        for part, content in parts.items():
            info = tarfile.TarInfo(part)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file


def shared_libraries(objects: Iterable[Path]) -> list[Path]:
    """The shared libraries that programs and extension modules need from the system, with the loader."""
    listed = subprocess.run(
        ["ldd", *objects], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False
    ).stdout
    found = re.findall(r"(?:=> |^\s+)(/\S+) \(0x", listed, re.MULTILINE)
    return sorted({Path(one) for one in found})


def _add_standard_library(layer: Layer) -> list[Path]:
    """Add the standard library; its extension modules are returned."""
    library = Path(sysconfig.get_path("stdlib"))
    files = [file for file in _files(library) if not LEFT_OUT.search(str(file.relative_to(library)))]
    for file in files:
        layer.add(_inside(file), file)
    return [file for file in files if file.suffix == ".so"]


def _add_packages(layer: Layer) -> list[Path]:
    """Add our packages and all they require; the extension modules are returned."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    for package in project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]:
        source = ROOT / package
        for file in _files(source):
            if "__pycache__" not in file.parts:
                layer.add_module(f"{SITE}/{file.relative_to(source.parent)}", file)
    objects = []
    for distribution in distributions("dualpath", EXTRAS):
        for part in distribution.files or ():
            file = Path(str(part.locate()))
            if ".." in part.parts or file.suffix in (".pth", ".pyc") or not file.is_file():
                continue
            layer.add_module(f"{SITE}/{part}", file)
            objects += [file] if ".so" in file.suffixes else []
    return objects


def _of_engines() -> list[Path]:
    """Extension modules that are not in the image."""
    return [file for pattern in ("torch/_C.*.so", "nixl_cu*/*.so") for file in PACKAGES.glob(pattern)]


def distributions(name: str, extras: Iterable[str] = ()) -> list[importlib.metadata.Distribution]:
    """A distribution of this environment and, transitively, what it requires with these extras."""
    found: dict[str, importlib.metadata.Distribution] = {}
    todo = [(name, tuple(extras))]
    seen: set[tuple[str, tuple[str, ...]]] = set()
    while todo:
        current, wanted = todo.pop()
        if (current, wanted) in seen:
            continue
        seen.add((current, wanted))
        found[current] = importlib.metadata.distribution(current)
        for text in found[current].requires or ():
            requirement = Requirement(text)
            applies = [
                requirement.marker is None or requirement.marker.evaluate({"extra": one})
                for one in ("", *wanted)
            ]
            if any(applies):
                todo.append(
                    (re.sub(r"[-_.]+", "-", requirement.name).lower(), tuple(sorted(requirement.extras)))
                )
    return [found[key] for key in sorted(found)]


def _files(folder: Path) -> Iterator[Path]:
    return (Path(place) / name for place, _, names in sorted(os.walk(folder)) for name in sorted(names))


def _inside(file: Path) -> str:
    return str(file).lstrip("/")
