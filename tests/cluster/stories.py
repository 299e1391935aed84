"""What happens to a cluster from its making to its end, played on a namespace with an operator of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audit_log import Asked, calls, position, service_account
from controlplane import ControlPlane
from forked_operators import Operator, merged
from kube_api import Kube, Object
from kube_objects import condition_of
from operator_forks import Forks
from scripted_schedulers import Engines, Schedulers
from waiting import until

CLUSTERS = "dualpathclusters.dualpath.io"
GROUPS = "dualpathenginegroups.dualpath.io"
ACCOUNT = "operator"
LEASE = "dualpath-operator"
WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})
BOOKKEEPING = frozenset({"leases", "events"})
PATIENT: Object = {"leaderElection": {"leaseDuration": "60s", "renewDeadline": "40s"}}
"""For operators that nobody takes over from: one that a busy machine holds up still leads."""

ROLE: Object = {"resources": {"dramBuffer": "16Mi", "kvCache": "16Mi"}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bed:
    """What all stories of a session share."""

    plane: ControlPlane
    forks: Forks
    schedulers: Schedulers
    folder: Path

    @property
    def kube(self) -> Kube:
        """A client with all rights."""
        return self.plane.kube


def spec(prefill_: int = 1, decode_: int = 1, /, **fields: Any) -> Object:
    """A spec of so many engines a role. `fields` are laid over it, section by section."""
    base: Object = {
        "model": {"uri": "file:///models/tiny", "servedName": "tiny"},
        "prefill": {**ROLE, "scaling": {"replicas": prefill_}},
        "decode": {**ROLE, "scaling": {"replicas": decode_}},
        "storage": {"files": {"size": "1Gi"}, "retention": "Delete"},
        "drain": {"deadline": "30s"},
    }
    return merged(base, fields)


class Site:
    """A namespace, accounts that may do everything there and nothing elsewhere, and operators."""

    def __init__(self, bed: Bed, namespace: str, cluster: str = "c", *, server: str = "") -> None:
        self.bed, self.kube, self.namespace, self.cluster = bed, bed.kube, namespace, cluster
        self.operators: list[Operator] = []
        self._server = server
        self._kubeconfigs: dict[str, Path] = {}
        self._log_from = position(bed.plane.audit_log)

    def operator(self, name: str = "operator", *, account: str = ACCOUNT, **settings: Any) -> Operator:
        """Start an operator for this namespace; `settings` are laid over short times."""
        if account not in self._kubeconfigs:
            self._kubeconfigs[account] = self._grant(account)
        folder = self.bed.folder / self.namespace
        folder.mkdir(parents=True, exist_ok=True)
        defaults: Object = {
            "namespace": self.namespace,
            "watchNamespaces": [self.namespace],
            "gatewayUrl": self.bed.schedulers.url,
            "statusInterval": "1s",
            "resync": "600s",
            "leaderElection": {"leaseDuration": "6s", "renewDeadline": "4s", "retryPeriod": "500ms"},
        }
        made = Operator(self.bed.forks, folder, self._kubeconfigs[account], merged(defaults, settings), name)
        self.operators.append(made)
        return made.start()

    def stop(self) -> None:
        """End all operators."""
        for operator in self.operators:
            operator.kill()

    @property
    def engines(self) -> Engines:
        """What the scheduler of the cluster knows."""
        return self.bed.schedulers.engines[self.namespace, self.cluster]

    # ------------------------------------------------------------ what a user does

    def apply(self, wanted: Object) -> Object:
        """Apply a spec, as a whole."""
        return self.kube.apply(self.body(wanted))

    def body(self, wanted: Object) -> Object:
        """The DualPathCluster of a spec."""
        metadata = {"name": self.cluster, "namespace": self.namespace}
        return {
            "apiVersion": "dualpath.io/v1alpha1",
            "kind": "DualPathCluster",
            "metadata": metadata,
            "spec": wanted,
        }

    def change(self, **fields: Any) -> Object:
        """Merge fields into the spec; None removes one."""
        return self.kube.patch(CLUSTERS, self.cluster, {"spec": fields}, self.namespace)

    def delete(self) -> None:
        """Delete the cluster, without waiting."""
        self.kube.delete(CLUSTERS, self.cluster, self.namespace)

    def scale(self, role: str, replicas: int) -> None:
        """`kubectl scale` of an engine group."""
        target = f"dualpathenginegroup/{self.cluster}-{role}"
        self.bed.plane.kubectl("scale", "-n", self.namespace, target, f"--replicas={replicas}")

    # ------------------------------------------------------------ what can be seen

    def get(self) -> Object:
        """The cluster."""
        return self.kube.get(CLUSTERS, self.cluster, self.namespace)

    def status(self) -> Object:
        """Its status; empty before the first one."""
        found: Object = self.get().get("status", {})
        return found

    def condition(self, kind: str) -> Object:
        """One condition of the cluster."""
        found: Object = next((c for c in self.status().get("conditions", ()) if c["type"] == kind), {})
        return found

    def is_ready(self) -> bool:
        """Whether the newest generation is Ready, and the status speaks of it."""
        body = self.get()
        seen = body.get("status", {}).get("observedGeneration")
        assert seen == body["metadata"]["generation"], f"of generation {seen}"
        ready = next(c for c in body["status"]["conditions"] if c["type"] == "Ready")
        assert ready["status"] == "True", ready
        return True

    def ready(self, within: float = 90.0) -> None:
        """Wait until it is."""
        for operator in self.operators[-1:]:
            operator.running()
        until(self.is_ready, within, what=f"{self.namespace}/{self.cluster} to be Ready")

    def gone(self, within: float = 90.0) -> None:
        """Wait until the cluster and everything that it owned are gone."""
        until(lambda: self.kube.find(CLUSTERS, self.cluster, self.namespace) is None, within)
        until(lambda: not self.pods() and not self.kube.all(GROUPS, self.namespace), within)

    def pods(self, role: str = "") -> list[Object]:
        """The engine Pods, by name."""
        labels = {"dualpath.io/cluster": self.cluster} | ({"dualpath.io/role": role} if role else {})
        found = self.kube.all("pods", self.namespace, labels)
        engines = [pod for pod in found if "dualpath.io/role" in pod["metadata"]["labels"]]
        return sorted(engines, key=lambda pod: str(pod["metadata"]["name"]))

    def serving(self, role: str) -> int:
        """Ready engine Pods of a role that stay."""
        return sum(is_serving(pod) for pod in self.pods(role))

    def revision(self) -> str:
        """The revision that the spec asks for."""
        return str(self.status()["revision"]["updated"])

    def group(self, role: str) -> Object:
        """An engine group."""
        return self.kube.get(GROUPS, f"{self.cluster}-{role}", self.namespace)

    def events(self) -> list[Object]:
        """Events on the cluster."""
        found = self.kube.all("events", self.namespace)
        return [event for event in found if event["involvedObject"]["kind"] == "DualPathCluster"]

    # ------------------------------------------------------------ what the operator did

    def position(self) -> int:
        """Now, in the audit log."""
        return position(self.bed.plane.audit_log)

    def calls(self, after: int | None = None) -> list[Asked]:
        """Calls of the operators."""
        start = self._log_from if after is None else after
        return calls(self.bed.plane.audit_log, service_account(self.namespace, ACCOUNT), start)

    def writes(self, after: int | None = None) -> list[Asked]:
        """Their writes, without leases and events."""
        return [
            call for call in self.calls(after) if call.verb in WRITES and call.resource not in BOOKKEEPING
        ]

    def _grant(self, account: str) -> Path:
        meta = {"name": account, "namespace": self.namespace}
        self.kube.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta})
        role = {"kind": "ClusterRole", "name": "cluster-admin", "apiGroup": "rbac.authorization.k8s.io"}
        self.kube.apply(
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "RoleBinding",
                "metadata": meta,
                "roleRef": role,
                "subjects": [{"kind": "ServiceAccount", **meta}],
            }
        )
        return self.bed.plane.for_service_account(self.namespace, account, server=self._server)


def is_serving(pod: Object) -> bool:
    """Ready, and not on its way out."""
    return condition_of(pod, "Ready") == "True" and "deletionTimestamp" not in pod["metadata"]


def names_of(bodies: Sequence[Object]) -> list[str]:
    """Their names, sorted."""
    return sorted(str(body["metadata"]["name"]) for body in bodies)


def settled(writes: Callable[[], Sequence[object]], quiet_s: float = 1.2) -> None:
    """Wait until operators have written nothing for a while."""
    last = (-1, time.monotonic())

    def quiet() -> bool:
        nonlocal last
        count = len(writes())
        if count != last[0]:
            last = (count, time.monotonic())
        return time.monotonic() - last[1] > quiet_s

    until(quiet, 60, what="the operators to have nothing more to write")
