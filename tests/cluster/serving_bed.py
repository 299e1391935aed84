"""A DualPathCluster that really serves: operator by its chart, gateway and engines in pods of a real node.

Volumes are directories of this machine that an administrator has made: the pods' own namespace enforces Pod Security
`restricted`. The one thing that is not as in production: the packages that engines need are mounted, as torch is too
large for an image that is made by a test.
"""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import urllib3
from charts_bed import OPERATOR
from container_images import PACKAGES, SITE
from kube_api import Object
from kube_objects import condition_of, install_definitions
from real_nodes import RealNodes
from waiting import until

from dualpath_api.report import ControlReport, decode_report

CLUSTERS = "dualpathclusters.dualpath.io"
GROUPS = "dualpathenginegroups.dualpath.io"
SPACE, NAME, SERVED = "serving", "tiny", "tiny-random"
SYSTEM, RELEASE = "dualpath-system", "dp"
OPERATOR_NAME = "dp-dualpath-operator"
CLASS = "directory"
USER = 10001
QUICK: Object = {
    "replicaCount": 1,
    "leaderElection": {"leaseDuration": "6s", "renewDeadline": "4s", "retryPeriod": "0.5s"},
    "config": {"statusInterval": "1s"},
    "log": {"format": "text"},
}
MOUNTED = "/opt/engine-packages"
TEMPLATE: Object = {
    "spec": {
        "volumes": [
            {"name": "packages", "persistentVolumeClaim": {"claimName": "packages", "readOnly": True}}
        ],
        "containers": [
            {
                "name": "engine",
                "env": [
                    {"name": "PYTHONPATH", "value": f"/{SITE}:{MOUNTED}"},
                    {
                        "name": "OMP_NUM_THREADS",
                        "value": "1",
                    },  # threads that wait for each other crawl when busy
                ],
                "volumeMounts": [{"name": "packages", "mountPath": MOUNTED, "readOnly": True}],
            }
        ],
    }
}


def spec(checkpoint: Path) -> Object:
    """One prefill and one decode engine on the CPU."""
    return {
        "model": {"uri": f"pvc://models/{checkpoint.name}", "servedName": SERVED, "dtype": "float32"},
        "prefill": {"resources": {"dramBuffer": "64Mi", "kvCache": "1Mi"}, "podTemplate": TEMPLATE},
        "decode": {"resources": {"dramBuffer": "64Mi", "kvCache": "64Mi"}, "podTemplate": TEMPLATE},
        "storage": {"files": {"size": "1Gi", "storageClassName": CLASS}},
        "pathPolicy": {"mode": "Split"},
        "drain": {"deadline": "60s"},
        "observability": {"logFormat": "text"},
    }


class ServingBed:
    """The namespaces, the volumes and the operator; the cluster is made by `apply`."""

    def __init__(self, nodes: RealNodes, folder: Path, checkpoint: Path) -> None:
        self.nodes, self.plane, self.kube = nodes, nodes.control_plane, nodes.kube
        self.checkpoint = checkpoint
        self.store = folder / "store"
        self._folder = folder
        self._http = urllib3.PoolManager(retries=False, maxsize=8)

    # ------------------------------------------------------------ made and removed

    def install(self) -> None:
        """Everything that is there before a cluster."""
        install_definitions(self.kube)
        self.plane.learn_kinds()
        for name in (SPACE, SYSTEM):
            labels = {"pod-security.kubernetes.io/enforce": "restricted"}
            metadata = {"name": name, "labels": labels}
            self.kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        for body in self._volumes():
            self.kube.apply(body)
        values = self._folder / "values.json"
        values.write_text(json.dumps(QUICK))
        command = ("upgrade", "--install", RELEASE, OPERATOR, "--namespace", SYSTEM, "--values", values)
        self.plane.helm(*command, "--wait", "--timeout", "120s")

    def remove(self) -> None:
        """Whatever there still is of it."""
        self.plane.helm("uninstall", RELEASE, "--namespace", SYSTEM, "--no-hooks", check=False)
        for body in self.kube.all(CLUSTERS, SPACE):
            self.kube.patch(CLUSTERS, body["metadata"]["name"], {"metadata": {"finalizers": None}}, SPACE)
        for name in (SPACE, SYSTEM):
            for pod in self.kube.all("pods", name):
                self.kube.delete("pods", pod["metadata"]["name"], name, gracePeriodSeconds=0)
            self.kube.delete("namespaces", name)
        for name in ("models", "packages", "store"):
            self.kube.delete("persistentvolumes", name)
        until(lambda: self.kube.find("namespaces", SPACE) is None, 90, what="the namespaces to be gone")

    def _volumes(self) -> Iterator[Object]:
        """Three directories as volumes; the operator makes the claim of the store."""
        models = self._folder / "models"
        shutil.copytree(self.checkpoint, models / self.checkpoint.name)
        for file in (models / self.checkpoint.name).iterdir():
            file.chmod(0o644)  # weights are written for their owner alone
        self.store.mkdir()
        self.store.chmod(0o750)
        shutil.chown(self.store, USER, USER)
        for name, place in (("models", models), ("packages", PACKAGES)):
            yield volume(name, place, name)
            yield claim(name)
        yield volume("store", self.store, f"{NAME}-store")

    # ------------------------------------------------------------ the cluster

    def apply(self) -> None:
        """`kubectl apply` of the cluster."""
        body = {
            "apiVersion": "dualpath.io/v1alpha1",
            "kind": "DualPathCluster",
            "metadata": {"name": NAME, "namespace": SPACE},
            "spec": spec(self.checkpoint),
        }
        self.kubectl("apply", "-f", "-", stdin=json.dumps(body))

    def change(self, **fields: Any) -> None:
        """Merge fields into its spec."""
        self.kube.patch(CLUSTERS, NAME, {"spec": fields}, SPACE)

    def kubectl(self, *arguments: str, **options: Any) -> str:
        """kubectl in the cluster's namespace."""
        return self.plane.kubectl(*arguments, "-n", SPACE, **options)

    def ready(self, within: int = 120) -> None:
        """`kubectl wait` for it."""
        self.kubectl("wait", "--for=condition=Ready", f"dpc/{NAME}", f"--timeout={within}s")

    def get(self) -> Object:
        """The cluster."""
        return self.kube.get(CLUSTERS, NAME, SPACE)

    def revision(self) -> Any:
        """The cluster's status.revision."""
        return self.get()["status"]["revision"]

    def pods(self, role: str = "") -> list[Object]:
        """The engine Pods, by name."""
        labels = {"dualpath.io/cluster": NAME} | ({"dualpath.io/role": role} if role else {})
        found = [
            pod
            for pod in self.kube.all("pods", SPACE, labels)
            if "dualpath.io/role" in pod["metadata"]["labels"]
        ]
        return sorted(found, key=lambda pod: str(pod["metadata"]["name"]))

    def pod(self, role: str) -> Object:
        """The only Pod of a role that is to stay."""
        found = [pod for pod in self.pods(role) if "deletionTimestamp" not in pod["metadata"]]
        assert len(found) == 1, [pod["metadata"]["name"] for pod in found]
        return found[0]

    def serving(self) -> bool:
        """Whether there is one engine of each role, Ready and here to stay, and the status says so."""
        staying = [pod for pod in self.pods() if "deletionTimestamp" not in pod["metadata"]]
        seen = [condition_of(pod, "Ready") for pod in staying]
        assert seen == ["True", "True"], seen
        return condition_of(self.get(), "Ready") == "True"

    def gateway(self) -> Object:
        """The gateway's Pod that is to stay."""
        labels = {"dualpath.io/cluster": NAME, "app.kubernetes.io/component": "gateway"}
        found = [
            pod for pod in self.kube.all("pods", SPACE, labels) if "deletionTimestamp" not in pod["metadata"]
        ]
        assert len(found) == 1, [pod["metadata"]["name"] for pod in found]
        return found[0]

    def budget(self) -> int:
        """How many engines may be evicted now."""
        body = self.kube.get("poddisruptionbudgets.policy", f"{NAME}-engines", SPACE)
        return int(body["status"]["disruptionsAllowed"])

    def evict(self, pod: str) -> None:
        """What `kubectl drain` asks for. Raises ApiError 429 where the budget does not allow it."""
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": pod, "namespace": SPACE},
        }
        self.kube.request("POST", f"/api/v1/namespaces/{SPACE}/pods/{pod}/eviction", body)

    def scale_operator(self, replicas: int) -> None:
        """Stop or start the operator, and wait for it."""
        self.plane.kubectl("scale", "-n", SYSTEM, f"deployment/{OPERATOR_NAME}", f"--replicas={replicas}")
        until(lambda: len(self.kube.all("pods", SYSTEM)) == replicas, 60)

    # ------------------------------------------------------------ what it answers

    @property
    def url(self) -> str:
        """Of the Service, by its address: reached from this machine through the node's kube-proxy."""
        return f"http://{self.kube.get('services', NAME, SPACE)['spec']['clusterIP']}:8000"

    def complete(self, prompt: Sequence[int], count: int = 16) -> tuple[list[int], int]:
        """Greedy tokens of a completion, and how many of the prompt's were cached."""
        answer = self._post(prompt, count)
        assert answer.status == 200, answer.data
        body = answer.json()
        return body["choices"][0]["token_ids"], body["usage"]["prompt_tokens_details"]["cached_tokens"]

    def stream(self, prompt: Sequence[int], count: int) -> Iterator[list[int]]:
        """The tokens of a streamed completion as they come; raises where it breaks off."""
        answer = self._post(prompt, count, stream=True)
        assert answer.status == 200, answer.read()
        for line in answer:
            text = line.decode().strip().removeprefix("data: ")
            if text == "[DONE]":
                return
            if text:
                yield json.loads(text)["choices"][0]["token_ids"]
        raise AssertionError("the stream broke off")

    def _post(self, prompt: Sequence[int], count: int, *, stream: bool = False) -> urllib3.BaseHTTPResponse:
        body = {
            "model": SERVED, "prompt": list(prompt), "max_tokens": count, "temperature": 0, "ignore_eos": True,
            "return_token_ids": True, "stream": stream,
        }  # fmt: skip
        url = f"{self.url}/v1/completions"
        return self._http.request("POST", url, json=body, timeout=120, preload_content=not stream)

    def token(self) -> str:
        """The control token, from its Secret."""
        return base64.b64decode(self.kube.get("secrets", f"{NAME}-control", SPACE)["data"]["token"]).decode()

    def report(self) -> ControlReport:
        """What the gateway tells who has the token."""
        headers = {"Authorization": f"Bearer {self.token()}"}
        answer = self._http.request("GET", f"{self.url}/control/v1/report", headers=headers, timeout=30)
        assert answer.status == 200, answer.data
        return decode_report(answer.data)


def volume(name: str, place: Path, claimed_by: str) -> Object:
    """A directory of the node as a volume for one claim."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "10Gi"},
            "accessModes": ["ReadWriteMany"],
            "storageClassName": CLASS,
            "hostPath": {"path": str(place), "type": "Directory"},
            "claimRef": {"namespace": SPACE, "name": claimed_by},
        },
    }


def claim(name: str) -> Object:
    """A claim of a volume of that name."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": SPACE},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "storageClassName": CLASS,
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }


def blocks(folder: Path) -> list[Path]:
    """The files of Full Blocks in the store."""
    return sorted(file for file in folder.rglob("blocks/*/*/*") if file.is_file())
