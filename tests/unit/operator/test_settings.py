"""The operator's settings: a bad file gives one clear message that names the place."""

from __future__ import annotations

import subprocess
import sys

import pytest

from dualpath_api.errors import SpecError
from dualpath_operator.settings import Settings, read_settings

BAD = {
    "a: [": "YAML",
    "- 1": "not a mapping",
    "\0": "YAML",
    "unknown: 1": "unknown is not acceptable",
    "leader_election: {}": "there is no such key",
    "http: {port: 1}\nhttp: {port: 2}": "stands twice",
    "http: {port: 70000}": "http.port",
    "workers: many": "workers",
    "workers: 0": "workers",
    "webhook: 3": "webhook",
    "log: {level: LOUD}": "log.level",
    "resync: 5 parsecs": "resync",
    "resync: -1s": "resync",
    "watchNamespaces: ['']": "watchNamespaces.0",
    "watchNamespaces: [a, B_]": "watchNamespaces.1",
    "leaderElection: {leaseDuration: 1s}": "leaseDuration > renewDeadline",
    "gatewayUrl: 'http://{0}'": "gatewayUrl",
    "gatewayUrl: 'http://{name.x}'": "gatewayUrl",
    "gatewayUrl: 'http://{other}'": "gatewayUrl",
    "gatewayUrl: 'http://{'": "gatewayUrl",
    "gatewayUrl: name": "http URL",
}


@pytest.mark.parametrize(("text", "told"), BAD.items(), ids=[text[:30] for text in BAD])
def test_a_bad_file_is_refused_with_its_name_and_what_to_do(tmp_path, text, told):
    file = tmp_path / "operator.yaml"
    file.write_text(text)
    with pytest.raises(SpecError) as refused:
        read_settings(file)
    message = str(refused.value)
    assert told in message
    assert str(file) in message
    assert "remedy:" in message
    assert "Value error" not in message


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"a: " + b"1" * (5 << 20)])
def test_what_is_no_text_or_far_too_long_is_refused(tmp_path, content):
    file = tmp_path / "operator.yaml"
    file.write_bytes(content)
    with pytest.raises(SpecError):
        read_settings(file)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(SpecError, match="cannot be read"):
            read_settings(path)


def test_nothing_is_needed(tmp_path):
    file = tmp_path / "empty.yaml"
    file.write_text("")
    assert read_settings(None) == read_settings(file) == Settings()


def test_what_is_given_counts(tmp_path):
    file = tmp_path / "operator.yaml"
    file.write_text(
        "resync: 2m\nwatchNamespaces: [a, b]\nnamespace: ops\nleaderElection: {namespace: other}\n"
    )
    found = read_settings(file)
    assert (found.resync, found.watch_namespaces) == (120.0, ("a", "b"))
    assert (found.own_namespace(), found.lease_namespace()) == ("ops", "other")


def test_the_process_says_so_in_one_message(tmp_path):
    file = tmp_path / "operator.yaml"
    file.write_text("workers: many\n")
    command = [sys.executable, "-P", "-m", "dualpath_operator", "--config", str(file)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"error: {file}: workers is not acceptable")
    assert "Traceback" not in ended.stderr
