"""Before an engine registers: links, routes, peers and bandwidth, in a network whose faults are known."""

from __future__ import annotations

import subprocess

from class_tools import FABRIC, cluster, fabric, found, serving_probes
from waiting import until


def preflight(net, tmp_path, node="p0", peers=(), **more):
    config = cluster(tmp_path, net, node, **more)
    code, wrong, _ = found(net, node, config, *(f"--peer={peer}" for peer in peers))
    return code, wrong


def stored_at(address):
    return {"storage": {"external": {"endpoints": [f"{address}:2379"]}}}


def test_all_is_well_in_a_network_as_the_spec_says(net, tmp_path):
    peers = [f"cnic0={net.address('d0', 'cnic0')}", f"snic0={net.address('s0', 'snic0')}"]
    assert preflight(net, tmp_path, peers=peers, **stored_at(net.address("s0", "snic0"))) == (0, [])


def test_a_route_to_storage_over_another_nic_is_found(net, tmp_path):
    other = net.address("d0", "cnic0")
    wrong = f"the route to storage at {other} leaves by cnic0"
    assert preflight(net, tmp_path, **stored_at(other)) == (1, [wrong])
    degrade = {"mode": "HostNetwork", "onMismatch": "Degrade"}
    assert preflight(net, tmp_path, fabric=degrade, **stored_at(other)) == (0, [wrong])


def test_a_cable_that_is_pulled_is_found_at_either_end(net, tmp_path):
    peer = net.address("d0", "cnic0")
    net.cut("d0.cnic0")
    assert preflight(net, tmp_path, peers=[f"cnic0={peer}"]) == (
        1,
        [f"{peer} does not answer through cnic0"],
    )
    net.restore("d0.cnic0")
    net.cut("p0.snic0")
    (what,) = until(lambda: preflight(net, tmp_path)[1], what="the link is seen down")
    assert what == "no storage NIC that matches 'snic0' is up"


def test_a_peer_must_answer_through_the_nic_that_was_named(net, tmp_path):
    peer = net.address("s0", "snic0")
    wrong = f"{peer} does not answer through cnic0"
    assert preflight(net, tmp_path, peers=[f"cnic0={peer}"]) == (1, [wrong])


def test_a_link_that_carries_less_than_it_should_is_found(net, tmp_path):
    least = {"fabric": {"mode": "HostNetwork", "leastBandwidthPermille": 700}}
    with serving_probes(net, "d0", "cnic0") as address:
        peer = f"cnic0={address}"
        assert preflight(net, tmp_path, peers=[peer], **least) == (0, [])
        net.set_rate("d0.cnic0", "100mbit")
        code, (what,) = preflight(net, tmp_path, peers=[peer], **least)
    assert code == 1
    assert what.startswith("cnic0 carries 1")
    assert what.endswith("MB/s to " + address + ", 35.0 are wanted")


def test_an_engine_with_a_broken_network_never_registers(net, tmp_path):
    config = cluster(tmp_path, net, "p0", **stored_at(net.address("d0", "cnic0")))
    command = ["-m", "dualpath_worker", "--config", config, "--role", "prefill"]
    argv = [*FABRIC[:2], *command, "--scheduler", "ws://127.0.0.1:9/engines"]
    done = subprocess.run(net.command("p0", argv), capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2
    assert "leaves by cnic0" in done.stderr
    assert "Traceback" not in done.stderr


def test_wrong_words_are_one_message(net, tmp_path):
    config = cluster(tmp_path, net, "p0")
    code, told = fabric(net, "p0", "--config", config, "--peer", "10.0.0.1")
    assert code == 2
    assert "NIC=ADDRESS" in told
