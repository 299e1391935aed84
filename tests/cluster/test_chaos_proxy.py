"""The chaos proxy: faults reach the caller as Kubernetes would send them, everything else passes through."""

from __future__ import annotations

import json
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3
from chaos_proxy import ChaosProxy, Fault
from controlplane import ControlPlane
from kube_api import ApiError, Kube, Object
from object_listing import names
from processes import Process
from waiting import until

NAMESPACE_ADMIN = {"kind": "ClusterRole", "name": "admin", "apiGroup": "rbac.authorization.k8s.io"}


def config_map(name: str, namespace: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}}


@pytest.fixture
def proxy(control_plane: ControlPlane) -> Iterator[ChaosProxy]:
    with control_plane.chaos_proxy() as running:
        yield running


@pytest.fixture
def kubeconfig(control_plane: ControlPlane, proxy: ChaosProxy, namespace: str) -> Path:
    """A way through the proxy, as a service account that may do everything in its namespace."""
    control_plane.kube.create(
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "admin", "namespace": namespace},
            "roleRef": NAMESPACE_ADMIN,
            "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": namespace}],
        }
    )
    return control_plane.for_service_account(namespace, "default", server=proxy.url)


@pytest.fixture
def through(kubeconfig: Path) -> Kube:
    return Kube(kubeconfig)


class Watch:
    """A watch on the config maps of a namespace, through a client of its own."""

    def __init__(self, kube: Kube, namespace: str) -> None:
        path = kube.resource("configmaps").path(namespace)
        self._answer = kube.stream(path, watch="true", resourceVersion="0")

    def next(self) -> Any:
        return json.loads(self._answer.readline())


def test_calls_pass_and_are_recorded(proxy: ChaosProxy, through: Kube, namespace: str) -> None:
    through.create(config_map("a", namespace))
    assert "a" in names(through, "configmaps", namespace)
    assert [(call.method, call.status) for call in proxy.writes()] == [("POST", 201)]


@pytest.mark.parametrize(
    ("status", "reason"), [(409, "Conflict"), (429, "TooManyRequests"), (500, "InternalError")]
)
def test_a_refusal_looks_like_the_api_servers(
    proxy: ChaosProxy, through: Kube, namespace: str, status: int, reason: str
) -> None:
    fault = proxy.inject(Fault(status=status, methods={"POST"}, path="/configmaps$", times=1, retry_after=1))
    with pytest.raises(ApiError) as refused:
        through.create(config_map("a", namespace))
    assert (refused.value.code, refused.value.reason) == (status, reason)
    through.create(config_map("a", namespace))
    assert fault.used == 1


def test_a_lost_answer_hides_a_write_that_was_done(proxy: ChaosProxy, through: Kube, namespace: str) -> None:
    proxy.inject(Fault(lost_answer=True, methods={"POST"}))
    with pytest.raises(urllib3.exceptions.HTTPError):
        through.create(config_map("a", namespace))
    assert "a" in names(through, "configmaps", namespace)


def test_a_watch_is_told_of_changes_as_they_come(through: Kube, namespace: str) -> None:
    watch = Watch(through, namespace)
    assert watch.next()["object"]["metadata"]["name"] == "kube-root-ca.crt"
    through.create(config_map("a", namespace))
    assert watch.next()["object"]["metadata"]["name"] == "a"


def test_watches_are_cut_expired_and_muted_on_command(
    proxy: ChaosProxy, through: Kube, namespace: str
) -> None:
    watch = Watch(through, namespace)
    watch.next()
    until(proxy.cut_watches, 10)
    with pytest.raises((urllib3.exceptions.HTTPError, json.JSONDecodeError, OSError)):
        watch.next()
    proxy.inject(Fault(status=410, watch=True))
    expired = Watch(through, namespace).next()
    assert (expired["type"], expired["object"]["reason"]) == ("ERROR", "Expired")
    watch = Watch(through, namespace)
    watch.next()
    proxy.mute_watches()
    through.create(config_map("unseen", namespace))
    with pytest.raises(urllib3.exceptions.ReadTimeoutError):
        watch.next()


def test_a_process_dies_after_its_nth_write_and_before_the_answer(
    proxy: ChaosProxy, kubeconfig: Path, through: Kube, namespace: str, tmp_path: Path
) -> None:
    program = (
        "import pathlib, time; from kube_api import Kube\n"
        f"kube = Kube(pathlib.Path({str(kubeconfig)!r}))\n"
        "for number in range(9):\n"
        "    body = {'apiVersion': 'v1', 'kind': 'ConfigMap'}\n"
        f"    kube.create({{**body, 'metadata': {{'name': f'm{{number}}', 'namespace': {namespace!r}}}}})\n"
        "    print(number, flush=True)\n"
    )
    log = tmp_path / "writer.log"
    crash = proxy.crash_after_write(3, pid=0)
    writer = Process("writer", [sys.executable, "-c", program], log, env={"PYTHONPATH": ":".join(sys.path)})
    crash.pid = writer.pid
    until(lambda: writer.exit_code is not None, 60)
    assert (writer.exit_code, crash.fired) == (-signal.SIGKILL, True)
    assert re.findall(r"^\d$", log.read_text(), re.MULTILINE) == ["0", "1"]
    assert [name for name in names(through, "configmaps", namespace) if name.startswith("m")] == [
        "m0",
        "m1",
        "m2",
    ]
