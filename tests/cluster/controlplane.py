"""A Kubernetes control plane of the machine's own: etcd, API server, controller manager, scheduler, kwok.

All of it listens on one address (loopback unless real nodes must reach it), lives in one folder, and goes with the
test run. The API server audits every call that is not the control plane's own (`audit_log`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import kube_tools
import kubeconfig
import kwok_stages
import urllib3
from chaos_proxy import ChaosProxy
from kube_api import ApiError, Kube
from pki import Authority, signing_key
from processes import Process, free_ports
from waiting import until

SERVICES = "10.96.0.0/16"
KUBERNETES_SERVICE = "10.96.0.1"
MASTERS = ("system:masters",)
CLIENT_LIMITS = ("--kube-api-qps=5000", "--kube-api-burst=10000")

# Who is not audited: the control plane itself. The rest is what a comparison of rights needs: who did what.
OWN_USERS = [
    "system:apiserver",
    "system:kube-controller-manager",
    "system:kube-scheduler",
    "system:kube-proxy",
    "kwok",
]
AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived", "ResponseStarted"],
    "rules": [
        {"level": "None", "users": OWN_USERS},
        {"level": "None", "userGroups": ["system:nodes", "system:serviceaccounts:kube-system"]},
        {"level": "Metadata"},
    ],
}


class ControlPlane:
    """Start with `start()` or as a context; `kube` is a client with all rights.

    `node_grace` is after how many seconds of silence a node counts as lost: long, as a loaded machine must not lose
    kwok's. `eviction` is the default toleration of lost nodes. `plain` makes kwok's pods simple and ready.
    `admission` names plugins beside the default ones.
    """

    def __init__(
        self,
        folder: Path,
        *,
        address: str = "127.0.0.1",
        node_grace: int = 900,
        eviction: int = 5,
        plain: bool = False,
        audit: bool = True,
        admission: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self.address = address
        self.audit_log = folder / "audit.log"
        self.admin = folder / "admin.kubeconfig"
        self.processes: dict[str, Process] = {}
        self._node_grace = node_grace
        self._eviction = eviction
        self._plain = plain
        self._audit = audit
        self._admission = ("NodeRestriction", "OwnerReferencesPermissionEnforcement", *admission)
        folder.mkdir(parents=True, exist_ok=True)
        self.authority = Authority(folder / "pki")
        self._front_proxy = Authority(folder / "pki", "front-proxy-ca")
        self._etcd, self._peer, self.port = free_ports(3)

    @property
    def url(self) -> str:
        """Where the API server is."""
        return f"https://{self.address}:{self.port}"

    @property
    def front_proxy_ca(self) -> Path:
        """Who signs the API server's certificate as a proxy: what an aggregated API trusts."""
        return self._front_proxy.certificate

    def start(self) -> Self:
        """Start everything; returns when the API server is ready and namespaces have their service accounts."""
        self._start_etcd()
        self._start_api_server()
        self.kubeconfig("admin", groups=MASTERS, file=self.admin)
        until(self._ready, 120, what="the API server's /readyz")
        self.kube = Kube(self.admin)
        self.start_controllers()
        self.start_scheduler()
        self.start_kwok()
        until(self._has_default_account, 120, what="the service account of the namespace default")
        return self

    def stop(self) -> None:
        """End all processes at once: nothing of theirs is needed any more."""
        for process in reversed(self.processes.values()):
            process.kill()

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *exception: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.stop()

    def kubeconfig(
        self, user: str, *, groups: Sequence[str] = (), file: Path | None = None, server: str = ""
    ) -> Path:
        """A kubeconfig with a client certificate for a user."""
        file = file or self.folder / f"{user.replace(':', '-')}.kubeconfig"
        shown = kubeconfig.with_certificate(self.authority.client(user, groups))
        return kubeconfig.write(file, server or self.url, self.authority.certificate, shown)

    def for_service_account(self, namespace: str, name: str, *, server: str = "", hours: int = 12) -> Path:
        """A kubeconfig with a token of a service account: for a program with its real rights.

        `server` is another way to the API server, such as a chaos proxy.
        """
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
        lasting = {"expirationSeconds": hours * 3600}
        asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": lasting}
        token = self.kube.request("POST", path, asked)["status"]["token"]
        file = self.folder / f"{namespace}-{name}-{time.monotonic_ns()}.kubeconfig"
        return kubeconfig.write(
            file, server or self.url, self.authority.certificate, {"token": token}, namespace
        )

    def chaos_proxy(self) -> ChaosProxy:
        """A proxy before this API server, not started yet; give its `url` to `for_service_account`."""
        serving = self.authority.server("chaos-proxy")
        return ChaosProxy(self.url, self.authority.certificate, serving)

    def kubectl(
        self, *arguments: str | Path, stdin: str = "", check: bool = True, as_user: Path | None = None
    ) -> str:
        """Run kubectl as admin, or with another kubeconfig; its output."""
        return kube_tools.run(
            "kubectl", *arguments, stdin=stdin, check=check, KUBECONFIG=str(as_user or self.admin)
        )

    def helm(self, *arguments: str | Path, check: bool = True, as_user: Path | None = None) -> str:
        """Run helm as admin, or with another kubeconfig; its output. Its caches are in this folder."""
        home = {
            name: str(self.folder / "helm")
            for name in ("HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME")
        }
        return kube_tools.run("helm", *arguments, check=check, KUBECONFIG=str(as_user or self.admin), **home)

    def start_controllers(self) -> None:
        """Start kube-controller-manager: with its own rights, quick to scale, slow to give up a node."""
        self._spawn(
            "kube-controller-manager",
            f"--kubeconfig={self.kubeconfig('system:kube-controller-manager', groups=MASTERS)}",
            f"--service-account-private-key-file={self._pki('service-accounts.key')}",
            f"--root-ca-file={self.authority.certificate}",
            f"--node-monitor-grace-period={self._node_grace}s",
            "--leader-elect=false",
            "--secure-port=0",
            "--node-monitor-period=1s",
            "--horizontal-pod-autoscaler-sync-period=2s",
            "--horizontal-pod-autoscaler-downscale-stabilization=5s",
            *(
                f"--concurrent-{kind}-syncs=20"
                for kind in ("deployment", "replicaset", "statefulset", "namespace")
            ),
            *CLIENT_LIMITS,
        )

    def learn_kinds(self) -> None:
        """Have the controllers see new kinds at once: their view is up to 30 s old."""
        self.processes["kube-controller-manager"].kill()
        self.start_controllers()

    def start_scheduler(self) -> None:
        """Start kube-scheduler."""
        config = self.kubeconfig("system:kube-scheduler")
        self._spawn(
            "kube-scheduler",
            f"--kubeconfig={config}",
            "--leader-elect=false",
            "--secure-port=0",
            *CLIENT_LIMITS,
        )

    def start_kwok(self) -> None:
        """Start kwok: the kubelet of every node that is labelled as its own."""
        stages = self.folder / "kwok.yaml"
        stages.write_text(kwok_stages.plain_config() if self._plain else kwok_stages.config())
        self._spawn(
            "kwok",
            f"--kubeconfig={self.kubeconfig('kwok', groups=MASTERS)}",
            f"--config={stages}",
            f"--manage-nodes-with-label-selector={kwok_stages.NODE_LABEL}={kwok_stages.NODE_VALUE}",
            f"--node-lease-duration-seconds={min(self._node_grace, 240)}",
            "--cidr=10.200.0.0/16",
        )

    def _start_etcd(self) -> None:
        client, peer = f"http://127.0.0.1:{self._etcd}", f"http://127.0.0.1:{self._peer}"
        self._spawn(
            "etcd",
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--quota-backend-bytes=4294967296",
            "--unsafe-no-fsync",
            "--log-level=warn",
        )

    def _start_api_server(self) -> None:
        hosts = ("kubernetes.default.svc", "localhost", "127.0.0.1", KUBERNETES_SERVICE, self.address)
        serving = self.authority.server("kube-apiserver", tuple(dict.fromkeys(hosts)))
        kubelets = self.authority.client("kubelet-client", MASTERS)
        proxy = self._front_proxy.client("front-proxy-client")
        accounts = signing_key(self.folder / "pki", "service-accounts")
        self._spawn(
            "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{self._etcd}",
            f"--bind-address={self.address}",
            f"--secure-port={self.port}",
            f"--tls-cert-file={serving.certificate}",
            f"--tls-private-key-file={serving.key}",
            f"--client-ca-file={self.authority.certificate}",
            f"--cert-dir={self.folder / 'apiserver'}",
            f"--service-cluster-ip-range={SERVICES}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={accounts.certificate}",
            f"--service-account-signing-key-file={accounts.key}",
            "--authorization-mode=Node,RBAC",
            f"--enable-admission-plugins={','.join(self._admission)}",
            "--allow-privileged=true",
            f"--endpoint-reconciler-type={'none' if self.address == '127.0.0.1' else 'lease'}",
            f"--default-not-ready-toleration-seconds={self._eviction}",
            f"--default-unreachable-toleration-seconds={self._eviction}",
            "--max-requests-inflight=4000",
            "--max-mutating-requests-inflight=2000",
            f"--kubelet-client-certificate={kubelets.certificate}",
            f"--kubelet-client-key={kubelets.key}",
            f"--kubelet-certificate-authority={self.authority.certificate}",
            "--kubelet-preferred-address-types=InternalIP",
            f"--requestheader-client-ca-file={self._front_proxy.certificate}",
            "--requestheader-allowed-names=front-proxy-client",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-username-headers=X-Remote-User",
            f"--proxy-client-cert-file={proxy.certificate}",
            f"--proxy-client-key-file={proxy.key}",
            *(self._audit_flags() if self._audit else ()),
        )

    def _audit_flags(self) -> Sequence[str]:
        policy = self.folder / "audit-policy.json"
        policy.write_text(json.dumps(AUDIT_POLICY))
        return (
            f"--audit-policy-file={policy}",
            f"--audit-log-path={self.audit_log}",
            "--audit-log-maxsize=10000",
        )

    def _spawn(self, name: str, *arguments: str) -> None:
        log = self.folder / f"{name}.log"
        self.processes[name] = Process(name, [str(kube_tools.path(name)), *arguments], log)

    def _pki(self, name: str) -> Path:
        return self.folder / "pki" / name

    def _ready(self) -> bool:
        self.processes["etcd"].running()
        self.processes["kube-apiserver"].running()
        try:
            return bool(Kube(self.admin).request("GET", "/readyz", timeout=5) == "ok")
        except (ApiError, urllib3.exceptions.HTTPError):
            return False

    def _has_default_account(self) -> bool:
        for process in self.processes.values():
            process.running()
        return self.kube.find("serviceaccounts", "default", "default") is not None
