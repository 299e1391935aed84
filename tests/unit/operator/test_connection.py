"""Where the API server is: every program that asks for it says plainly when nobody knows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from kubernetes.aio.config import incluster_config, kube_config

from dualpath_api.errors import SpecError
from dualpath_operator.connection import configuration_of, namespace_of

PROGRAMS = {
    "operator": ["dualpath_operator"],
    "guard": ["dualpath_operator.uninstall", "--all"],
    "cli": ["dualpath_cli", "status", "c"],
}
POD = ("KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT")
GOOD = """
current-context: a
clusters: [{name: k, cluster: {server: "https://k:6443"}}]
users: [{name: u, user: {token: person}}]
contexts: [{name: a, context: {cluster: k, user: u, namespace: team-a}}, {name: b, context: {cluster: k, user: u}}]
"""


def use(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    """The client reads KUBECONFIG once, when it is imported."""
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(file))


@pytest.mark.parametrize("text", [None, "{", "contexts: 3"], ids=["missing", "broken", "strange"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_without_an_api_server_says_so_once_and_ends_with_2(program, text, tmp_path):
    file = tmp_path / "config"
    if text is not None:
        file.write_text(text)
    env = {name: value for name, value in os.environ.items() if name not in POD} | {"KUBECONFIG": str(file)}
    command = [sys.executable, "-P", "-m", *PROGRAMS[program]]
    ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr.startswith("error: no Kubernetes cluster is known\n  cause: ")
    assert ended.stderr.count("\n") == 3
    assert "remedy: set KUBECONFIG" in ended.stderr


async def test_a_pod_is_known_by_its_service_account_without_a_word(tmp_path, monkeypatch, caplog):
    for name, content in (("token", "pod"), ("ca.crt", "authority")):
        (tmp_path / name).write_text(content)
    monkeypatch.setenv(POD[0], "10.96.0.1")
    monkeypatch.setenv(POD[1], "443")
    # where the kubelet puts them cannot be written here
    given = {"token_filename": str(tmp_path / "token"), "cert_filename": str(tmp_path / "ca.crt")}
    loader = incluster_config.InClusterConfigLoader
    monkeypatch.setattr(
        incluster_config, "InClusterConfigLoader", lambda **options: loader(**options | given)
    )
    use(monkeypatch, tmp_path / "none")
    found = await configuration_of(None)
    assert found.host == "https://10.96.0.1:443"
    assert (await found.get_api_key_with_prefix("BearerToken")).lower() == "bearer pod"
    assert caplog.records == []


async def test_a_kubeconfig_comes_before_the_service_account(tmp_path, monkeypatch):
    file = tmp_path / "config"
    file.write_text(GOOD)
    use(monkeypatch, file)
    monkeypatch.setenv(POD[0], "10.96.0.1")
    assert (await configuration_of(None)).host == "https://k:6443"
    assert [namespace_of(context) for context in (None, "a", "b")] == ["team-a", "team-a", "default"]


async def test_a_context_is_never_looked_for_elsewhere(tmp_path, monkeypatch):
    use(monkeypatch, tmp_path / "none")
    monkeypatch.setenv(POD[0], "10.96.0.1")
    with pytest.raises(SpecError, match="there is no kubeconfig at"):
        await configuration_of("a")
