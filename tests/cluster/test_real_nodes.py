"""Real nodes: pods run our image, find each other by name, end in order, and leave nothing on the machine."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest
import urllib3
from fake_nodes import FakeNodes
from kube_api import Kube, Object
from kube_objects import has_condition, pod
from object_listing import names
from real_nodes import RealNodes
from waiting import until

NUMBERS = count()
SERVE = (
    "import http.server as s; s.ThreadingHTTPServer(('', 8000), s.SimpleHTTPRequestHandler).serve_forever()"
)


@pytest.fixture
def real(real_nodes: RealNodes) -> Kube:
    return real_nodes.kube


@pytest.fixture
def other_node(real: Kube) -> Iterator[str]:
    """A node that takes no pods: when all nodes are lost at once, Kubernetes takes it for its own fault and waits."""
    nodes = FakeNodes(real)
    name = nodes.add(1)[0]
    real.patch("nodes", name, {"spec": {"unschedulable": True}})
    yield name
    nodes.remove(name)


@pytest.fixture
def space(real: Kube) -> Iterator[str]:
    """A restricted namespace on the real nodes."""
    name = f"real-{next(NUMBERS)}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    real.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    until(lambda: real.find("serviceaccounts", "default", name), 30)
    yield name
    real.delete("namespaces", name)
    until(lambda: names(real, "pods", name) == [], 90)


def python(name: str, namespace: str, program: str, grace: int = 1, **container: object) -> Object:
    """A pod that runs a Python program in our image."""
    body = pod(name, namespace, terminationGracePeriodSeconds=grace)
    main = body["spec"]["containers"][0]
    main |= {"image": "dualpath/gateway:0.1.0", "command": ["python", "-P", "-c", program], **container}
    main["securityContext"]["readOnlyRootFilesystem"] = True
    body["metadata"]["labels"] = {"app": name}
    return body


def once(body: Object) -> Object:
    """The pod, but not started again when it has ended."""
    return body | {"spec": body["spec"] | {"restartPolicy": "Never"}}


def service(name: str, namespace: str, **spec: object) -> Object:
    ports = [{"port": 80, "targetPort": 8000}]
    metadata = {"name": name, "namespace": namespace}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {"selector": {"app": name}, "ports": ports, **spec},
    }


def answers(url: str) -> bool:
    """Whether this machine gets an answer; until kube-proxy knows a service, it refuses."""
    try:
        return urllib3.request("GET", url, timeout=5, retries=False).status == 200
    except urllib3.exceptions.HTTPError:
        return False


def test_pods_reach_services_by_name_and_so_does_this_machine(
    real_nodes: RealNodes, real: Kube, space: str
) -> None:
    real.create(service("web", space))
    real.create(service("each", space, clusterIP="None", selector={"app": "web"}))
    real.create(
        python(
            "web", space, SERVE, readinessProbe={"httpGet": {"path": "/", "port": 8000}, "periodSeconds": 1}
        )
    )
    until(lambda: has_condition(real, space, "web", "True"), 60)
    address = real.get("services", "web", space)["spec"]["clusterIP"]
    until(lambda: answers(f"http://{address}/"), 30)
    ask = "import urllib.request as r; print(*(r.urlopen(u, timeout=9).status for u in {urls}))"
    urls = [f"http://web.{space}.svc/", f"http://each.{space}.svc.cluster.local:8000/"]
    real.create(once(python("ask", space, ask.format(urls=urls))))
    until(lambda: real.get("pods", "ask", space)["status"]["phase"] in ("Succeeded", "Failed"), 60)
    assert real_nodes.control_plane.kubectl("logs", "-n", space, "ask").split() == ["200", "200"]


def test_our_packages_run_in_a_pod_as_a_plain_user(real_nodes: RealNodes, real: Kube, space: str) -> None:
    command = ["python", "-P", "-m", "dualpath_gateway", "--help"]
    real.create(once(python("gateway", space, "", command=command)))
    until(lambda: real.get("pods", "gateway", space)["status"]["phase"] == "Succeeded", 60)
    assert "DualPathCluster" in real_nodes.control_plane.kubectl("logs", "-n", space, "gateway")


def test_a_pods_hook_ends_before_its_process_is_told_to(
    real_nodes: RealNodes, real: Kube, space: str
) -> None:
    program = """
import http.server, os, signal, threading
class Hook(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        print("hook", flush=True)
        self.send_response(200)
        self.end_headers()
signal.signal(signal.SIGTERM, lambda *_: (print("term", flush=True), gone.wait(3), os._exit(0)))
gone = threading.Event()
server = http.server.ThreadingHTTPServer(("", 8000), Hook)
threading.Thread(target=server.serve_forever).start()
signal.pause()
"""
    hook = {
        "preStop": {
            "exec": {
                "command": ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000')"]
            }
        }
    }
    real.create(python("drained", space, program, 20, lifecycle=hook))
    until(lambda: has_condition(real, space, "drained", "True"), 60)
    real.delete("pods", "drained", space)
    until(lambda: "term" in real_nodes.control_plane.kubectl("logs", "-n", space, "drained", check=False), 30)
    said = real_nodes.control_plane.kubectl("logs", "-n", space, "drained", check=False)
    assert said.index("hook") < said.index("term")


@pytest.mark.usefixtures("other_node")
def test_a_node_without_power_strands_its_pods_until_it_is_back(
    real_nodes: RealNodes, real: Kube, space: str
) -> None:
    node = real_nodes.nodes[0]
    real.create(python("web", space, SERVE))
    until(lambda: has_condition(real, space, "web", "True"), 60)
    node.power_off()
    try:
        until(lambda: not node.ready(), 90)
        until(lambda: "deletionTimestamp" in real.get("pods", "web", space)["metadata"], 90)
    finally:
        node.start()
    until(node.ready, 90)
    until(lambda: names(real, "pods", space) == [], 90)
