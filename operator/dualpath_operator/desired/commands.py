"""Command lines, directories and ports of all processes in Pods, in one place: this is their contract.

`-P`: a file of the working directory must not hide a package.
"""

from __future__ import annotations

from collections.abc import Sequence

from dualpath_operator.model import Cluster

CONFIG_DIR = "/etc/dualpath"
CONFIG = f"{CONFIG_DIR}/cluster.json"
CONTROL_DIR = "/var/run/dualpath/control"
TOKEN_KEY = "token"
TOKEN = f"{CONTROL_DIR}/{TOKEN_KEY}"
MODELS = "/var/lib/dualpath/models"
STORE = "/var/lib/dualpath/store"
ETCD_DATA = "/var/lib/etcd"

API_PORT = 8000
METRICS_PORT = 9100
STORE_PORT = 15000
MASTER_PORT = 50051
STORE_METRICS_PORT = 9003
ETCD_PORT = 2379
ETCD_PEER_PORT = 2380

HOST_PORTS = 20000
_HOST_SLOTS = 8
"""On the node's network, revisions take turns in ranges of ports: old and new ones may share a node."""
_MAX_GROUPS, _MAX_RANKS = 64, 8

_PYTHON = ("python", "-P", "-m")


def scheduler(cluster: Cluster) -> str:
    """Where engines find the scheduler."""
    return f"ws://{cluster.name}.{cluster.namespace}.svc:{API_PORT}/engines"


def host_port(role: str, revision: str, index: int, rank: int) -> int:
    """Metrics port of a rank on the node's network: apart from those of all other ranks of the cluster."""
    slot = int(revision or "0", 16) % _HOST_SLOTS * 2 + (role == "decode")
    return HOST_PORTS + (slot * _MAX_GROUPS + index) * _MAX_RANKS + rank


def engine(cluster: Cluster, role: str, index: int, rank: int, port: int) -> list[str]:
    """One rank of an engine group. `rank` counts over all nodes of the group."""
    return [
        *_PYTHON, "dualpath_worker", "--config", CONFIG, "--role", role, "--group", str(index),
        "--rank", str(rank), "--scheduler", scheduler(cluster), "--host", "0.0.0.0",
        "--metrics-port", str(port), "--log", cluster.spec.observability.log_format,
    ]  # fmt: skip


def prestop(deadline_s: int) -> list[str]:
    """Drains the engine of its container, told by the container's environment."""
    return [*_PYTHON, "dualpath_worker.prestop", "--deadline", str(deadline_s)]


def preflight(on_mismatch: str) -> list[str]:
    """Checks a Pod's NICs against the spec."""
    return [*_PYTHON, "dualpath_worker.fabric", "--config", CONFIG, "--on-mismatch", on_mismatch]


def fetch(uri: str, revision: str | None, into: str, *, weights: bool) -> list[str]:
    """Makes the model's directory."""
    command = [*_PYTHON, "dualpath_cli", "fetch", uri, "--into", into]
    return command + (["--revision", revision] if revision else []) + ([] if weights else ["--no-weights"])


def gateway(cluster: Cluster) -> list[str]:
    """The gateway."""
    return [
        *_PYTHON, "dualpath_gateway", "--config", CONFIG, "--host", "0.0.0.0", "--port", str(API_PORT),
        "--log", cluster.spec.observability.log_format,
    ]  # fmt: skip


def store_master(etcd: str, medium: str) -> list[str]:
    """A master of the managed store; etcd elects the active one."""
    command = [
        *_PYTHON, "dualpath_worker.storage", "master", "--etcd", etcd, "--port", str(MASTER_PORT),
        "--metrics-port", str(STORE_METRICS_PORT),
    ]  # fmt: skip
    return command + (["--offload"] if medium == "NVMe" else [])


def store_node(
    etcd: str, medium: str, size: int, nics: Sequence[str] = (), *, rdma: bool = False
) -> list[str]:
    """A node of the managed store. `size` is in bytes, `nics` are patterns of its storage NICs."""
    command = [
        *_PYTHON, "dualpath_worker.storage", "node", "--etcd", etcd, "--medium", medium, "--path", STORE,
        "--size", str(size), "--port", str(STORE_PORT), "--metrics-port", str(STORE_METRICS_PORT),
    ]  # fmt: skip
    command += ["--nics", ",".join(nics)] if nics else []
    return command + (["--protocol", "rdma"] if rdma else [])


def etcd(name: str, service: str, members: int) -> list[str]:
    """A member of the store's etcd. POD_NAME is its own name."""
    peers = ",".join(f"{name}-{i}=http://{name}-{i}.{service}:{ETCD_PEER_PORT}" for i in range(members))
    own = f"http://$(POD_NAME).{service}"
    return [
        "etcd", "--name", "$(POD_NAME)", "--data-dir", f"{ETCD_DATA}/data",
        "--listen-client-urls", f"http://0.0.0.0:{ETCD_PORT}",
        "--advertise-client-urls", f"{own}:{ETCD_PORT}",
        "--listen-peer-urls", f"http://0.0.0.0:{ETCD_PEER_PORT}",
        "--initial-advertise-peer-urls", f"{own}:{ETCD_PEER_PORT}",
        "--initial-cluster", peers, "--initial-cluster-state", "new", "--initial-cluster-token", name,
    ]  # fmt: skip
