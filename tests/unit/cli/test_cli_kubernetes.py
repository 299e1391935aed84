"""Commands that look at Kubernetes: one clear message and exit code 2 whatever is missing, and what they print."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from dualpath_cli.main import main
from dualpath_operator import uninstall

COMMANDS = (["status", "c"], ["top", "c", "--once"], ["drain", "c", "p"], ["explain", "r", "--cluster", "c"])
GROUP = "/apis/dualpath.io/v1alpha1"
STATUS = {
    "observedGeneration": 1,
    "conditions": [
        {
            "type": "Ready",
            "status": "False",
            "reason": "DecodeNotReady",
            "message": "1 of 2 [decode] groups are ready",
        },
        {"type": "Stalled", "status": "False", "reason": "Progressing"},
    ],
    "roles": {"prefill": {"desired": 1, "ready": 1}, "decode": {"desired": 2, "ready": 1, "gpus": 8}},
    "revision": {"current": "aaaaaaaa", "updated": "bbbbbbbb"},
    "paths": {"mode": "Auto", "decodeSharePermille": {"target": 505, "observed": 490}, "kvHitPermille": 875},
    "balance": {"pdPermille": 500, "lowerPermille": 143, "upperPermille": 3500},
    "endpoints": [{"name": "openai", "url": "http://c.team-a.svc:8000/v1"}],
}
CLUSTER = {"metadata": {"name": "c", "namespace": "team-a", "generation": 2}, "status": STATUS}


class ApiServer(ThreadingHTTPServer):
    """Answers by path; all else is not found. Keeps what was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, Any]] = {}
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, *_: object) -> None:
        """Clients that go are no news."""


class _Handler(BaseHTTPRequestHandler):
    server: ApiServer

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server.asked.append((self.command, path, dict(self.headers)))
        status, body = self.server.answers.get(path, (404, {"reason": "NotFound", "message": f"no {path}"}))
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_: object) -> None:
        """No log."""


@pytest.fixture
def server() -> Iterator[ApiServer]:
    running = ApiServer()
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    yield running
    running.shutdown()
    running.server_close()
    thread.join()


def kubeconfig(file: Path, url: str, namespace: str = "team-a") -> Path:
    context = {"cluster": "k", "user": "u", "namespace": namespace}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "k", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": {"token": "person"}}],
        "contexts": [
            {"name": "k", "context": context},
            {"name": "other", "context": {**context, "namespace": "b"}},
        ],
        "current-context": "k",
    }
    file.write_text(yaml.safe_dump(config))
    return file


@pytest.fixture
def known(server, tmp_path, monkeypatch) -> ApiServer:
    """The kubeconfig leads to the server, which knows our kinds."""
    file = kubeconfig(tmp_path / "config", f"http://127.0.0.1:{server.server_address[1]}")
    use(monkeypatch, file)
    server.answers[GROUP] = (200, {"resources": [{"kind": "DualPathCluster"}]})
    return server


def use(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    """The client reads KUBECONFIG once, when it is imported."""
    from kubernetes.aio.config import kube_config

    monkeypatch.setenv("KUBECONFIG", str(file))
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(file))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments), env={"COLUMNS": "160"})


def refused(*arguments: str) -> str:
    found = run(*arguments)
    assert found.exit_code == 2, found.output
    assert found.output.startswith("error: ")
    assert "remedy:" in found.output
    assert "Traceback" not in found.output
    return found.output


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_without_a_kubeconfig_one_message_says_what_to_set(command, tmp_path, monkeypatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    use(monkeypatch, tmp_path / "none")
    assert "no Kubernetes cluster is known" in refused(*command)


@pytest.mark.parametrize("text", ["{", "[]", "text", "apiVersion: v1\nkind: Config\ncontexts: 3\n"])
def test_a_broken_kubeconfig_is_told(text, tmp_path, monkeypatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    file = tmp_path / "config"
    file.write_text(text)
    use(monkeypatch, file)
    assert "no Kubernetes cluster is known" in refused("status", "c")


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_an_api_server_that_does_not_answer_is_told(command, tmp_path, monkeypatch):
    use(monkeypatch, kubeconfig(tmp_path / "config", "http://127.0.0.1:9"))
    assert "http://127.0.0.1:9 does not answer" in refused(*command)


def test_an_unknown_context_is_told(known):
    assert "no Kubernetes cluster is known" in refused("status", "c", "--context", "none")


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_a_kubernetes_without_our_kinds_is_told(command, known):
    del known.answers[GROUP]
    assert "install the chart dualpath-crds" in refused(*command)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_a_cluster_that_is_not_there_is_told_with_those_that_are(command, known):
    items = [{"metadata": {"name": "qwen"}}]
    known.answers[f"{GROUP}/namespaces/team-a/dualpathclusters"] = (200, {"items": items})
    told = refused(*command)
    assert "no DualPathCluster c in namespace team-a" in told
    assert "it has qwen" in told


def test_missing_rights_are_told(known):
    forbidden = {"reason": "Forbidden", "message": "user person cannot get"}
    known.answers[f"{GROUP}/namespaces/team-a/dualpathclusters/c"] = (403, forbidden)
    told = refused("status", "c")
    assert "does not let you" in told
    assert "user person cannot get" in told


@pytest.mark.parametrize(
    ("options", "namespace"), [([], "team-a"), (["-n", "x"], "x"), (["--context", "other"], "b")]
)
def test_the_namespace_is_that_of_the_context_unless_given(known, options, namespace):
    known.answers[f"{GROUP}/namespaces/{namespace}/dualpathclusters/c"] = (200, CLUSTER)
    assert json.loads(run("status", "c", "--json", *options).output) == CLUSTER


def test_the_status_tells_what_people_ask(known):
    known.answers[f"{GROUP}/namespaces/team-a/dualpathclusters/c"] = (200, CLUSTER)
    told = run("status", "c").output
    for part in (
        "team-a/c: not ready (1 of 2 [decode] groups are ready)",
        "has not been seen by the operator yet",
        "aaaaaaaa, rolling to bbbbbbbb",
        "target 50.5 %, observed 49 %",
        "87.5 % of prompts from storage",
        "P/D 0.50, free of bottlenecks from 0.14 to 3.50",
        "http://c.team-a.svc:8000/v1 (openai)",
        "Stalled",
    ):
        assert part in told


@pytest.mark.parametrize("status", [None, {}, {"conditions": [], "roles": {}}])
def test_a_cluster_that_no_operator_has_seen_is_shown_too(known, status):
    bare = {"metadata": CLUSTER["metadata"], "status": status}
    known.answers[f"{GROUP}/namespaces/team-a/dualpathclusters/c"] = (200, bare)
    assert "no operator has looked at it yet" in run("status", "c").output


def with_gateway(known: ApiServer, path: str, answer: tuple[int, Any]) -> str:
    known.answers[f"{GROUP}/namespaces/team-a/dualpathclusters/c"] = (200, CLUSTER)
    secret = {"data": {"token": "c2VjcmV0"}}
    known.answers["/api/v1/namespaces/team-a/secrets/c-control"] = (200, secret)
    proxied = f"/api/v1/namespaces/team-a/services/c:8000/proxy{path}"
    known.answers[proxied] = answer
    return proxied


def test_the_gateway_is_asked_through_the_api_server_with_the_token_of_the_secret(known):
    report = {"queue": {"running": 3}, "sides": {"prefill": {"engines": 2, "kvCachePermille": 125}}}
    path = with_gateway(known, "/control/v1/report", (200, report))
    told = run("top", "c", "--once")
    assert told.exit_code == 0, told.output
    assert "3 running, 0 waiting" in told.output
    assert "12 %" in told.output
    headers = next(headers for _, asked, headers in known.asked if asked == path)
    assert headers["X-DualPath-Token"] == "secret"
    assert headers["Authorization"] == "Bearer person"
    assert json.loads(run("top", "c", "--json").output) == report


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (
            (503, {"reason": "ServiceUnavailable", "message": "no endpoints"}),
            "the gateway of c does not answer",
        ),
        ((401, {"error": {"message": "a bearer token is needed"}}), "does not take the token"),
        ((403, {"reason": "Forbidden", "message": "no services/proxy"}), "does not let you"),
    ],
)
def test_a_gateway_that_cannot_be_asked_is_told(known, answer, told):
    with_gateway(known, "/control/v1/report", answer)
    assert told in refused("top", "c", "--once")


def test_a_request_that_the_gateway_does_not_know_is_told(known):
    with_gateway(known, "/debug/requests/r", (404, {"error": {"message": "no request"}}))
    assert "does not know the request r" in refused("explain", "r", "--cluster", "c")


def test_only_engine_pods_of_the_cluster_can_be_drained(known):
    with_gateway(known, "/control/v1/report", (200, {}))
    pod = {
        "metadata": {"name": "p", "labels": {"dualpath.io/cluster": "other", "dualpath.io/role": "decode"}}
    }
    known.answers["/api/v1/namespaces/team-a/pods/p"] = (200, pod)
    assert "p is no engine Pod of c" in refused("drain", "c", "p")
    assert "none is no engine Pod of c" in refused("drain", "c", "none")


@pytest.mark.parametrize("command", ["status", "top", "drain", "explain"])
def test_help_has_an_example(command):
    assert "Example:" in run(command, "--help").output


# ---------------------------------------------------------------- the guard before an uninstall


def test_the_operator_may_go_when_no_cluster_is_left(known, capsys):
    known.answers[f"{GROUP}/dualpathclusters"] = (200, {"items": []})
    assert uninstall.main(["--all"]) == 0
    assert "the operator may go" in capsys.readouterr().out


def test_the_operator_may_go_when_the_kind_is_gone(known):
    assert uninstall.main(["--all"]) == 0
    assert uninstall.main(["--namespaces", "a,b"]) == 0


def test_clusters_stop_the_uninstall_and_are_named(known, capsys):
    items = [{"metadata": {"namespace": "b", "name": f"c{i:02}"}} for i in range(25)]
    known.answers[f"{GROUP}/namespaces/b/dualpathclusters"] = (200, {"items": items})
    known.answers[f"{GROUP}/namespaces/a/dualpathclusters"] = (200, {"items": None})
    assert uninstall.main(["--namespaces", " a, b,"]) == 1
    told = capsys.readouterr().err
    assert "25 DualPathClusters exist" in told
    assert "b/c00" in told
    assert "and 5 more" in told
    assert "kubectl delete dualpathcluster -n b c00" in told
    assert uninstall.main(["--namespaces", "b", "--force"]) == 0
    assert "exist" in capsys.readouterr().err


def test_what_cannot_be_known_stops_the_uninstall(known, capsys):
    known.answers[f"{GROUP}/dualpathclusters"] = (403, {"reason": "Forbidden", "message": "cannot list"})
    assert uninstall.main(["--all"]) == 2
    assert "cannot list" in capsys.readouterr().err
    assert uninstall.main(["--all", "--force"]) == 0


@pytest.mark.parametrize("arguments", [[], ["--namespaces", ","], ["--all", "--namespaces", "a"]])
def test_where_to_look_has_to_be_said(arguments):
    with pytest.raises(SystemExit) as ended:
        uninstall.main(arguments)
    assert ended.value.code == 2
