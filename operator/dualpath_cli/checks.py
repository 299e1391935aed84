"""What has to be right on this machine before engines are started: each failure is one clear message."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path

from dualpath_api.cluster import DualPathCluster
from dualpath_api.errors import SpecError, UnsupportedError
from dualpath_api.spec.roles import ScalingMode
from dualpath_api.units import format_bytes
from dualpath_cli import hub


def check_machine(cluster: DualPathCluster, host: str, port: int, ready_file: Path | None) -> None:
    """Raises SpecError: port in use, store not writable, model missing, too little memory."""
    _check_port(host, port)
    check_cluster(cluster)
    if cluster.spec.storage.external is None:
        check_store(store_path(cluster))
    check_ready_file(ready_file)


def check_cluster(cluster: DualPathCluster) -> None:
    """Raises SpecError: what only Kubernetes can do, model missing, too little memory."""
    _check_kind(cluster)
    _check_model(cluster)
    _check_memory(cluster)


def check_ready_file(ready_file: Path | None) -> None:
    """Raises SpecError if it cannot be written."""
    if ready_file is not None and not os.access(ready_file.resolve().parent, os.W_OK | os.X_OK):
        raise SpecError(
            f"--ready-file {ready_file}: cannot be written",
            cause=f"{ready_file.resolve().parent} is missing or not writable",
            remedy="make the directory, or name another file",
        )


def store_path(cluster: DualPathCluster) -> Path:
    """The store's directory; relative to the current directory. Raises UnsupportedError without one."""
    files = cluster.spec.storage.files
    if files is None:
        raise UnsupportedError(
            "spec.storage.managed is for Kubernetes",
            cause="here nobody would run that store",
            remedy="give a directory with spec.storage.files, or run `dualpath storage up` and name its "
            "endpoint in spec.storage.external.endpoints",
        )
    return Path(files.path).expanduser().absolute()


def reachable(host: str) -> str:
    """An address at which a listener on `host` can be reached from here."""
    return {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}.get(
        host, f"[{host}]" if ":" in host else host
    )


def with_local_model(cluster: DualPathCluster) -> DualPathCluster:
    """Fetch a hub model into the hub's cache, once for all engines; its URI becomes the directory."""
    model = cluster.spec.model
    if not model.uri.startswith("hf://"):
        return cluster
    instead = ", or give a directory: file:///path/of/checkpoint"
    folder = hub.download(model.uri, model.revision, (*hub.TEXT, *hub.WEIGHTS), instead=instead)
    local = model.model_copy(update={"uri": f"file://{folder.absolute()}", "revision": None})
    return cluster.model_copy(update={"spec": cluster.spec.model_copy(update={"model": local})})


def _check_kind(cluster: DualPathCluster) -> None:
    """What only Kubernetes can do is refused, not ignored."""
    spec = cluster.spec
    for role in ("prefill", "decode"):
        scaling = getattr(spec, role).scaling
        if scaling.mode != ScalingMode.STATIC:
            raise UnsupportedError(
                f"spec.{role}.scaling.mode is {scaling.mode}",
                cause="`dualpath up` starts a fixed number of engines",
                remedy=f"set mode: Static and replicas: --set spec.{role}.scaling.mode=Static",
            )
        if scaling.replicas == 0:
            raise SpecError(
                f"spec.{role}.scaling.replicas is 0",
                cause="`dualpath up` needs at least one engine of each role",
                remedy=f"--set spec.{role}.scaling.replicas=1",
            )
    if spec.model.uri.startswith("pvc://"):
        raise UnsupportedError(
            f"{spec.model.uri} is a volume of Kubernetes",
            cause="`dualpath up` runs on this machine",
            remedy="give a directory: --model DIR",
        )


def _check_port(host: str, port: int) -> None:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except OSError as error:
        raise SpecError(
            f"cannot listen on {host}:{port}",
            cause=(error.strerror or str(error)).lower(),
            remedy="stop what listens there, or choose another --port (0: any free one) or --host",
        ) from None


def _check_model(cluster: DualPathCluster) -> None:
    uri = cluster.spec.model.uri
    if not uri.startswith("file://"):
        return
    path = Path(uri.removeprefix("file://"))
    if not path.is_dir():
        cause = "it is a file" if path.exists() else "there is no such directory"
    elif not (path / "config.json").is_file():
        cause = "it has no config.json, so it is no Hugging Face checkpoint"
    else:
        return
    raise SpecError(
        f"the model {path} cannot be served",
        cause=cause,
        remedy="give a checkpoint directory: --model DIR, or spec.model.uri: file:///absolute/path",
    )


def check_store(path: Path) -> None:
    """Make the directory of a store. Raises SpecError if it cannot be written."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path, prefix=".writable-"):
            pass
    except OSError as error:
        raise SpecError(
            f"the block store {path} cannot be written",
            cause=(error.strerror or str(error)).lower(),
            remedy="choose another directory: --set spec.storage.files.path=DIR",
        ) from None


def _check_memory(cluster: DualPathCluster) -> None:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    roles = (cluster.spec.prefill, cluster.spec.decode)
    tier = cluster.spec.storage.dram_tier.size if cluster.spec.storage.dram_tier else 0
    wanted = sum(role.scaling.replicas * (role.resources.dram_buffer + tier) for role in roles)
    if wanted > total:
        raise SpecError(
            f"the block buffers of all groups take {format_bytes(wanted)}",
            cause=f"this machine has {total / (1 << 30):.1f} GiB of memory",
            remedy="lower dramBuffer in spec.prefill.resources and spec.decode.resources, or the replicas",
        )
