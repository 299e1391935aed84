"""Who an engine says it is, and where it can be reached."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from dualpath_api.errors import SpecError
from dualpath_worker.addresses import advertised, compute_device, device_of
from dualpath_worker.settings import Place, read_settings

POD = {
    "DUALPATH_POD_NAME": "c-decode-0a1b2c3d-0",
    "DUALPATH_POD_UID": "u",
    "DUALPATH_POD_IP": "127.0.0.1",
    "DUALPATH_REVISION": "0a1b2c3d",
    "DUALPATH_NODE_NAME": "n",
}


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    role = {"resources": {"dramBuffer": "1Mi", "kvCache": "1Mi"}, "parallelism": {"data": 2}}
    spec = {
        "model": {"uri": "file:///none", "servedName": "tiny"},
        "prefill": role,
        "decode": role,
        "storage": {"files": {"path": "/none", "size": "1Gi"}},
    }
    head = {"apiVersion": "dualpath.io/v1alpha1", "kind": "DualPathCluster", "metadata": {"name": "t"}}
    file = tmp_path / "cluster.json"
    file.write_text(json.dumps({**head, "spec": spec}))
    return ["--config", str(file), "--role", "decode", "--scheduler", "ws://none"]


def test_outside_of_kubernetes_engines_are_numbered(arguments):
    settings = read_settings([*arguments, "--group", "3", "--rank", "1"], {})
    assert (settings.engine, settings.group_id, settings.host) == ("decode-3-1", "decode-3", "127.0.0.1")
    assert settings.place == Place()


def test_in_a_pod_the_pod_names_the_engine_so_that_revisions_never_meet(arguments):
    settings = read_settings([*arguments, "--rank", "1"], POD)
    assert (settings.engine, settings.group_id) == ("c-decode-0a1b2c3d-0-1", "c-decode-0a1b2c3d-0")
    assert settings.place.revision == "0a1b2c3d"


@pytest.mark.parametrize(("rank", "first"), [(0, True), (1, False), (2, True), (3, False)])
def test_one_rank_of_each_node_reports_its_nics(arguments, rank, first):
    assert read_settings([*arguments, "--rank", str(rank)], POD).first_of_group is first


def test_the_port_of_the_probes_comes_from_the_flag_before_the_environment(arguments):
    env = {"DUALPATH_METRICS_PORT": "9100"}
    assert read_settings(arguments, {}).metrics_port == 0
    assert read_settings(arguments, env).metrics_port == 9100
    assert read_settings([*arguments, "--metrics-port", "9101", "--host", "::"], env).metrics_port == 9101
    with pytest.raises(SpecError, match="METRICS_PORT=many"):
        read_settings(arguments, {"DUALPATH_METRICS_PORT": "many"})


def test_a_pod_is_reached_by_the_device_of_its_address(tmp_path):
    assert compute_device((), 0, "") == "lo"
    assert compute_device((), 0, "127.0.0.1") == device_of("127.0.0.1") == "lo"
    assert compute_device((), 0, "192.0.2.1") is None
    (tmp_path / "net").mkdir()
    row = "20010db8000000000000000000000001 02 40 00 80     eth1\n"
    (tmp_path / "net" / "if_inet6").write_text(row)
    assert device_of("2001:db8::1", tmp_path) == "eth1"
    assert device_of("2001:db8::2", tmp_path) is None
    assert device_of("2001:db8::1", tmp_path / "none") is None


@pytest.mark.parametrize(
    ("host", "pod_ip", "url"),
    [
        ("127.0.0.1", "192.0.2.1", "127.0.0.1"),
        ("0.0.0.0", "192.0.2.1", "192.0.2.1"),
        ("::", "2001:db8::1", "[2001:db8::1]"),
        ("0.0.0.0", "", socket.gethostname()),
    ],
)
def test_a_url_names_an_address_that_others_can_ask(host, pod_ip, url):
    assert advertised(host, pod_ip) == url
