"""Real nodes on this machine: kubelet, containerd and kube-proxy in namespaces of their own; pods really run.

One process holds each node: killing it is a power failure. Needs root on Linux, and what `tools/apt.sh` installs.
Everything is removed at the end; what a killed run left behind is removed by the next start.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import IO, Self

import container_images
import control_groups
import kube_tools
import node_network as network
import node_settings
import yaml
from cluster_dns import ClusterDns
from controlplane import ControlPlane
from kube_objects import condition_of
from processes import Process
from waiting import until

HERE = Path(__file__).parent
LOCK = Path("/run/lock/dualpath-test-nodes")
PRIVATE = (
    "/run/netns",
    "/run/containerd",
    "/var/lib/cni",
    "/var/lib/kubelet",
    "/var/log/containers",
    "/var/log/pods",
)


class NodesImpossible(Exception):  # noqa: N818 - what it says
    """This machine cannot run real nodes. Never a reason to skip: the message says what it lacks."""


class RealNode:
    """One node; `start` and `power_off` may alternate."""

    def __init__(
        self, folder: Path, number: int, control_plane: ControlPlane, images: Sequence[Path]
    ) -> None:
        self.number = number
        self.name = network.node_name(number)
        self.address = network.node_address(number)
        self.folder = folder / self.name
        self._control_plane = control_plane
        self._images = images
        self._holder: Process | None = None
        self.folder.mkdir(parents=True)

    def start(self) -> Self:
        """Bring it up; Ready comes some seconds later."""
        control_groups.create(self.name)
        settings = self.folder / "node.json"
        settings.write_text(json.dumps(self._settings()))
        namespaces = ["nsenter", f"--net={network.NETNS / self.name}"]
        namespaces += [
            "unshare",
            "--pid",
            "--mount",
            "--propagation",
            "private",
            "--fork",
            "--kill-child=KILL",
        ]
        command = [*namespaces, sys.executable, str(HERE / "node_init.py"), str(settings)]
        self._holder = Process(self.name, command, self.folder / "init.log")
        return self

    def power_off(self) -> None:
        """All its processes and mounts are gone at once; what it held in memory too."""
        if self._holder:
            self._holder.kill()
            self._holder = None
        until(partial(_silent, self.number), 30, what=f"the processes of {self.name} to end")
        control_groups.remove(self.name)

    def unplug(self) -> None:
        """Cut it off the network; its pods run on."""
        network.set_link(self.number, up=False)

    def plug_in(self) -> None:
        """Undo `unplug`."""
        network.set_link(self.number, up=True)

    def ready(self) -> bool:
        """Whether the API server believes that it is Ready; raises with its log when it has ended."""
        if self._holder:
            self._holder.running()
        body = self._control_plane.kube.find("nodes", self.name)
        return body is not None and condition_of(body, "Ready") == "True"

    def log(self, name: str) -> Path:
        """The log of `containerd`, `kubelet` or `kube-proxy`."""
        return self.folder / f"{name}.log"

    def _settings(self) -> dict[str, object]:
        memory = f"{self.folder}/memory"  # images and containers: gone with the node, nothing to remove
        kubelet = [
            str(kube_tools.path("kubelet")),
            f"--kubeconfig={self._kubeconfig(f'system:node:{self.name}', ('system:nodes',))}",
            f"--config={self._write('kubelet.yaml', self._kubelet())}",
            f"--hostname-override={self.name}",
            f"--node-ip={self.address}",
            "--root-dir=/var/lib/kubelet",
            f"--cert-dir={self.folder}",
        ]
        proxy = [str(kube_tools.path("kube-proxy")), f"--config={self._write('proxy.yaml', self._proxy())}"]
        return {
            "private": [*PRIVATE, memory],
            "directories": [f"{memory}/containerd", f"{memory}/state"],
            "images": [str(image) for image in self._images],
            "logs": str(self.folder),
            "socket": self._socket,
            "commands": {
                "containerd": ["containerd", "-c", str(self._containerd(memory))],
                "kubelet": kubelet,
                "kube-proxy": proxy,
            },
        }

    @property
    def _socket(self) -> str:
        return f"/run/dualpath-test/{self.name}.sock"

    def _containerd(self, memory: str) -> Path:
        (self.folder / "cni").mkdir(exist_ok=True)
        (self.folder / "cni" / "10-test.conflist").write_text(json.dumps(node_settings.cni(self.number)))
        file = self.folder / "containerd.toml"
        file.write_text(node_settings.containerd(self.folder, memory, self._socket))
        return file

    def _kubelet(self) -> dict[str, object]:
        authority = self._control_plane.authority
        serving = authority.server(self.name, (self.name, self.address), file=f"{self.name}-server")
        return node_settings.kubelet(self.name, self.folder, self._socket, authority.certificate, serving)

    def _proxy(self) -> dict[str, object]:
        return node_settings.kube_proxy(self.name, self._kubeconfig("system:kube-proxy", ("system:masters",)))

    def _kubeconfig(self, user: str, groups: Sequence[str]) -> Path:
        file = self.folder / f"{user.replace(':', '-')}.kubeconfig"
        return self._control_plane.kubeconfig(user, groups=groups, file=file)

    def _write(self, name: str, body: dict[str, object]) -> Path:
        file = self.folder / name
        file.write_text(yaml.safe_dump(body))
        return file


class RealNodes:
    """A control plane with real nodes, DNS and our images, while it is entered. One at a time on a machine."""

    def __init__(self, folder: Path, nodes: int = 1) -> None:
        self._folder = folder
        self._count = nodes
        self._lock: IO[str] | None = None
        self.nodes: list[RealNode] = []

    def __enter__(self) -> Self:
        prepare()
        self._lock = LOCK.open("w")
        until(partial(_locked, self._lock), 240, what=f"another run's real nodes to end (it holds {LOCK})")
        clean()
        try:
            return self._start()
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *exception: object) -> None:
        for node in self.nodes:
            node.power_off()
        for started in ("dns", "control_plane"):
            if hasattr(self, started):
                getattr(self, started).__exit__()
        network.remove()
        if self._lock:
            self._lock.close()

    def _start(self) -> Self:
        images = [container_images.pause_image(self._folder), container_images.python_image(self._folder)]
        network.create(self._count)
        self.control_plane = ControlPlane(
            self._folder, address=network.GATEWAY, node_grace=node_settings.GRACE_S
        )
        self.control_plane.start()
        self.kube = self.control_plane.kube
        self.dns = ClusterDns(self.kube, network.GATEWAY).__enter__()
        for number in range(self._count):
            self.nodes.append(RealNode(self._folder / "nodes", number, self.control_plane, images).start())
        for node in self.nodes:
            until(node.ready, 120, what=f"{node.name} to be Ready; its logs are in {node.folder}")
        return self


def prepare() -> None:
    """Install what is missing; raises NodesImpossible, with the reason, where that cannot be done."""
    if sys.platform != "linux" or os.geteuid() != 0:
        raise NodesImpossible("real nodes need Linux and root: run the tests as root")
    installed = subprocess.run([HERE / "tools" / "apt.sh"], stderr=subprocess.PIPE, text=True, check=False)
    if installed.returncode != 0:
        raise NodesImpossible(installed.stderr.strip())
    for folder in (LOCK.parent, Path("/run/dualpath-test")):
        folder.mkdir(parents=True, exist_ok=True)


def clean() -> None:
    """Remove what a killed run left: processes in the nodes' networks, networks, control groups."""
    for number in range(network.NODES):
        for pid in network.processes_of(number):
            os.kill(pid, 9)
        until(partial(_silent, number), 30, what="left processes to end")
        control_groups.remove(network.node_name(number))
    network.remove()


def left() -> list[str]:
    """What is there of real nodes now, in words; empty after the end."""
    groups = [
        network.node_name(one)
        for one in range(network.NODES)
        if control_groups.exists(network.node_name(one))
    ]
    return [f"control groups {name}" for name in groups] + (["networks"] if network.exists() else [])


def _locked(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _silent(number: int) -> bool:
    return not network.processes_of(number)
