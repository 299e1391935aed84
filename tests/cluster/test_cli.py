"""The commands for people and the uninstall guard on a real API server, with a real gateway behind its Service."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from controlplane import ControlPlane
from gateway_cluster import GatewayCluster, Pod, gateway_with_engines
from kube_api import ApiError, Kube
from kube_objects import MakeNamespace, pod
from samples import MINIMAL
from waiting import until

NAME, TOKEN = "qwen", "secret"
P = Pod(name="qwen-prefill-aaaaaaaa-0", revision="aaaaaaaa")
BODY = {"model": "tiny", "prompt": list(range(100, 230)), "max_tokens": 2}

pytestmark = pytest.mark.usefixtures("definitions")


@dataclass
class Shell:
    """Where commands run."""

    kubeconfig: Path
    namespace: str

    async def run(self, *command: str, module: str = "dualpath_cli") -> tuple[int, str]:
        """Exit code and output of a command."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", module, *command),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={"KUBECONFIG": str(self.kubeconfig), "PATH": "/usr/bin:/bin", "COLUMNS": "160"},
        )
        output, _ = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode is not None
        return process.returncode, output.decode()

    async def ask(self, *command: str) -> str:
        """The output of a `dualpath` command that succeeds."""
        code, output = await self.run(*command, "-n", self.namespace)
        assert code == 0, output
        return output


@pytest.fixture
def shell(control_plane: ControlPlane, kube: Kube, namespace: str) -> Shell:
    """A cluster whose status a test has written."""
    head = {"apiVersion": "dualpath.io/v1alpha1", "kind": "DualPathCluster"}
    meta = {"name": NAME, "namespace": namespace}
    kube.create({**head, "metadata": meta, "spec": MINIMAL})
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "AllRolesServing",
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
        "observedGeneration": 1,
    }
    status = {"observedGeneration": 1, "conditions": [ready], "revision": {"current": "r1", "updated": "r1"}}
    kube.patch("dualpathclusters.dualpath.io", NAME, {"status": status}, namespace, "status")
    return Shell(control_plane.admin, namespace)


def address() -> str:
    """One of this machine that is not on the loopback, which an API server refuses to pass calls on to."""
    every = [one for addresses in psutil.net_if_addrs().values() for one in addresses]
    own = [one.address for one in every if one.family is socket.AF_INET]
    return next(one for one in own if not one.startswith(("127.", "169.254.")))


@asynccontextmanager
async def service_of(gateway: GatewayCluster, kube: Kube, namespace: str) -> AsyncIterator[None]:
    """The cluster's Service, which leads to the gateway, and its Secret."""
    port = int(gateway.url.rpartition(":")[2])

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
        writer.close()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pump(reader, inner[1]), pump(inner[0], writer))

    meta = {"name": NAME, "namespace": namespace}
    async with await asyncio.start_server(forward, address(), 0) as outer:
        target = {"port": outer.sockets[0].getsockname()[1]}
        spec = {"ports": [{"port": 8000, "targetPort": target["port"]}]}
        kube.create({"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec})
        kube.create(pod(f"{NAME}-gateway", namespace, schedulerName="nobody"))
        where = {"podIP": address(), "podIPs": [{"ip": address()}]}
        kube.patch("pods", f"{NAME}-gateway", {"status": where}, namespace, "status")
        # an API server passes calls on to Pods only, at the address that they have
        ref = {"kind": "Pod", "namespace": namespace, "name": f"{NAME}-gateway"}
        subsets = [{"addresses": [{"ip": address(), "targetRef": ref}], "ports": [target]}]
        kube.create({"apiVersion": "v1", "kind": "Endpoints", "metadata": meta, "subsets": subsets})
        data = {"token": base64.b64encode(TOKEN.encode()).decode()}
        secret = {"name": f"{NAME}-control", "namespace": namespace}
        kube.create({"apiVersion": "v1", "kind": "Secret", "metadata": secret, "data": data})
        await asyncio.to_thread(until, lambda: _reached(kube, namespace), 30)
        yield


def _reached(kube: Kube, namespace: str) -> bool:
    """Whether the API server knows the Service's address: then it is the gateway that answers."""
    try:
        kube.request("GET", f"/api/v1/namespaces/{namespace}/services/{NAME}:8000/proxy/healthz")
    except ApiError as error:
        assert error.code not in {404, 503}, error
        raise
    return True


async def test_the_status_of_a_cluster_is_shown(shell: Shell) -> None:
    assert f"{shell.namespace}/{NAME}: ready (AllRolesServing)" in await shell.ask("status", NAME)
    found = json.loads(await shell.ask("status", NAME, "--json"))
    assert found["metadata"]["name"] == NAME


async def test_what_is_not_there_is_told_in_one_message(shell: Shell) -> None:
    code, told = await shell.run("status", "other", "-n", shell.namespace)
    assert code == 2
    assert f"it has {NAME}" in told
    code, told = await shell.run("top", NAME, "--once", "-n", shell.namespace)
    assert code == 2
    assert "Traceback" not in told


async def test_the_gateway_is_asked_through_the_api_server(shell: Shell, kube: Kube, tmp_path: Path) -> None:
    labels = {"dualpath.io/cluster": NAME, "dualpath.io/role": "decode"}
    body = pod("qwen-decode-aaaaaaaa-0", shell.namespace)
    body["metadata"]["labels"] = labels
    uid = kube.create(body)["metadata"]["uid"]
    decode = Pod(name="qwen-decode-aaaaaaaa-0", revision="aaaaaaaa", uid=uid)
    async with (
        gateway_with_engines(tmp_path, prefill=[P], decode=[decode], token=TOKEN) as gateway,
        service_of(gateway, kube, shell.namespace),
    ):
        assert "0 running, 0 waiting" in await shell.ask("top", NAME, "--once")
        report = json.loads(await shell.ask("top", NAME, "--json"))
        assert {engine["id"] for engine in report["engines"]} == {P.engine, decode.engine}

        answer = (await gateway.call("POST", "/v1/completions", BODY))[1]
        told = await shell.ask("explain", answer["id"], "--cluster", NAME)
        assert "130 prompt tokens" in told

        assert "takes nothing new" in await shell.ask("drain", NAME, decode.name)
        await gateway.until(lambda report: not report["engines"][0]["acceptNew"])
        assert _mark(kube, decode.name, shell.namespace) == "true"
        assert "takes requests again" in await shell.ask("drain", NAME, decode.name, "--resume")
        await gateway.until(lambda report: report["engines"][0]["acceptNew"])
        assert _mark(kube, decode.name, shell.namespace) is None


def _mark(kube: Kube, name: str, namespace: str) -> str | None:
    annotations = kube.get("pods", name, namespace)["metadata"].get("annotations", {})
    found: str | None = annotations.get("dualpath.io/drain")
    return found


async def test_clusters_stop_the_uninstall_of_the_operator(
    shell: Shell, make_namespace: MakeNamespace
) -> None:
    guard = "dualpath_operator.uninstall"
    empty = make_namespace()
    code, told = await shell.run("--namespaces", f"{empty},{shell.namespace}", module=guard)
    assert code == 1
    assert f"{shell.namespace}/{NAME}" in told
    assert (await shell.run("--all", module=guard))[0] == 1
    assert (await shell.run("--all", "--force", module=guard))[0] == 0
    assert (await shell.run("--namespaces", empty, module=guard))[0] == 0
