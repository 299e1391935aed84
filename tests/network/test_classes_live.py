"""Traffic classes over real NICs: set, read back, counted, and of effect."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from class_tools import ALL_OVER_TCP, FABRIC, cluster, fabric, found, serving_probes
from programs import ensure

from dualpath_api.spec.fabric import TrafficClasses
from dualpath_worker.fabric.classes import both
from dualpath_worker.fabric.queues import HANDLE

AGENTS = Path(__file__).with_name("marked_agents.py")
NOT_MARKED = "TCP is not known to be marked with the traffic classes"
NOT_WEIGHED = "cnic0 is not known to weigh the traffic classes"


@pytest.fixture(autouse=True, scope="module")
def _nft():
    ensure("nft", "nftables")


def test_the_check_misses_classes_until_they_are_applied_and_again_when_they_are_removed(net, tmp_path):
    config = cluster(tmp_path, net, "p0")
    assert found(net, "p0", config) == (0, [], [NOT_MARKED, NOT_WEIGHED])
    for _ in range(2):  # again changes nothing
        assert fabric(net, "p0", "classes", "apply", "--config", config) == (0, "")
        assert found(net, "p0", config) == (0, [], [])
    assert fabric(net, "p0", "classes", "remove", "--config", config) == (0, "")
    assert found(net, "p0", config) == (0, [], [NOT_MARKED, NOT_WEIGHED])


def test_the_lines_that_are_missing_can_be_applied_as_they_are_printed(net, tmp_path):
    config = cluster(tmp_path, net, "p0")
    _, told = fabric(net, "p0", "--config", config, "--json")
    for finding in told["findings"]:
        subprocess.run(net.command("p0", ["sh", "-ec", finding["remedy"]]), check=True)
    assert found(net, "p0", config) == (0, [], [])


def test_transfers_between_agents_are_in_the_class_of_kv(net, tmp_path):
    config = {node: cluster(tmp_path, net, node) for node in ("p0", "d0")}
    for node, file in config.items():
        assert fabric(net, node, "classes", "apply", "--config", file) == (0, "")
    pipe = subprocess.PIPE
    serve = [sys.executable, "-P", str(AGENTS), "serve", "cnic0"]
    serving = net.run("d0", serve, env=ALL_OVER_TCP, stdin=pipe, stdout=pipe, text=True)
    peer = serving.stdout.readline().strip()
    pull = [sys.executable, "-P", str(AGENTS), "pull", "cnic0", peer]
    pulling = net.run("p0", pull, env=ALL_OVER_TCP, stdout=pipe, text=True)
    moved = int(pulling.communicate(timeout=120)[0])
    serving.communicate("\n", timeout=60)
    assert moved == 128 * (64 << 10)
    _, told = fabric(net, "d0", "classes", "show", "--config", config["d0"])
    kv = told["queues"]["cnic0"]["kv"]
    print(f"{moved} bytes of KV: marked {told['marked']['kv']}, queued as kv {kv['bytes']}")
    assert moved < told["marked"]["kv"] < 1.1 * moved
    assert moved < kv["bytes"] < 1.1 * moved
    assert told["marked"]["inference"] == 0
    assert told["queues"]["cnic0"]["inference"]["bytes"] < 0.01 * moved


def test_inference_is_ahead_of_kv_and_each_alone_has_the_link(net, tmp_path):
    config = cluster(tmp_path, net, "p0")
    assert fabric(net, "p0", "classes", "apply", "--config", config) == (0, "")
    with serving_probes(net, "d0", "cnic0") as address:
        code, told = fabric(net, "p0", "probe", "--config", config, "send", "--to", address)
    assert code == 0
    rates = {(when, name): flow["bytes_per_s"] for when in told for name, flow in told[when].items()}
    print({key: round(rate / 1e6, 1) for key, rate in rates.items()})
    assert rates["alone", "kv"] == pytest.approx(rates["alone", "inference"], rel=0.2)
    assert rates["together", "inference"] > 0.8 * rates["alone", "inference"]
    assert rates["together", "kv"] < 0.15 * rates["alone", "kv"]
    _, shown = fabric(net, "p0", "classes", "show", "--config", config)
    sent = shown["queues"]["cnic0"]
    assert sent["inference"]["bytes"] > 2 * rates["together", "inference"]
    assert sent["kv"]["bytes"] > 1.5 * rates["alone", "kv"]
    assert all(0 <= flow["loss"] < 0.2 for when in told for flow in told[when].values())


def test_a_peer_that_does_not_serve_is_one_clear_message(net, tmp_path):
    code, told = fabric(net, "p0", "probe", "send", "--to", net.address("d0", "cnic0"))
    assert code == 1
    assert "probe serve" in told


def roots(net, node: str, nic: str) -> list[str]:
    """Kind and handle of a NIC's root queue."""
    line = ["tc", "-j", "qdisc", "show", "dev", nic, "root"]
    done = subprocess.run(net.command(node, line), capture_output=True, check=True)
    return [f"{one['kind']} {one['handle']}" for one in json.loads(done.stdout)]


def test_queues_of_somebody_else_are_replaced_when_asked_for_and_never_removed(net, tmp_path):
    config = cluster(tmp_path, net, "p0")
    theirs = [
        "qdisc replace dev cnic0 root handle 1: htb default 10",
        "class replace dev cnic0 parent 1: classid 1:10 htb rate 8mbit",
        "qdisc replace dev cnic0 parent 1:10 handle 10: bfifo limit 100000",
    ]
    for line in theirs:
        subprocess.run(net.command("p0", ["tc", *line.split()]), check=True)
    code, told = fabric(net, "p0", "classes", "remove", "--config", config)
    assert code == 2
    assert "somebody else has made them" in told
    assert roots(net, "p0", "cnic0") == ["htb 1:"]
    assert found(net, "p0", config)[2] == [NOT_MARKED, NOT_WEIGHED]
    assert fabric(net, "p0", "classes", "apply", "--config", config) == (0, "")
    assert roots(net, "p0", "cnic0") == [f"htb {HANDLE}"]
    assert found(net, "p0", config) == (0, [], [])


def test_queues_that_were_half_made_are_made_anew_and_can_be_removed(net, tmp_path):
    config = cluster(tmp_path, net, "p0")
    half = net.command("p0", ["tc", "qdisc", "replace", "dev", "cnic0", "root", "handle", HANDLE, "htb"])
    subprocess.run(half, check=True)
    assert fabric(net, "p0", "classes", "apply", "--config", config) == (0, "")
    assert found(net, "p0", config) == (0, [], [])
    assert fabric(net, "p0", "classes", "remove", "--config", config) == (0, "")
    subprocess.run(half, check=True)
    assert fabric(net, "p0", "classes", "remove", "--config", config) == (0, "")
    assert f"htb {HANDLE}" not in roots(net, "p0", "cnic0")


def test_probes_carry_the_mark_of_their_class_over_ipv6_as_well(net):
    rules = [f"tcp dport {each.ports[1]} ip6 dscp {each.dscp} counter" for each in both(TrafficClasses())]
    chain = "\n".join(["type filter hook output priority 0;", *rules])
    table = f"table inet seen {{\nchain sent {{\n{chain}\n}}\n}}"
    subprocess.run(net.command("p0", ["nft", table]), check=True)
    serve = [*FABRIC, "probe", "serve", "--address", "::1"]
    serving = net.run("p0", serve, stdout=subprocess.PIPE, text=True)
    assert serving.stdout.readline() == "serving\n"
    assert fabric(net, "p0", "probe", "send", "--to", "::1")[0] == 0
    serving.terminate()
    serving.communicate(timeout=30)
    listed = subprocess.run(
        net.command("p0", ["nft", "-j", "list", "table", "inet", "seen"]), capture_output=True, check=True
    )
    rules = [item["rule"]["expr"] for item in json.loads(listed.stdout)["nftables"] if "rule" in item]
    counted = [part["counter"]["bytes"] for rule in rules for part in rule if "counter" in part]
    assert len(counted) == 2
    assert all(count > 1 << 20 for count in counted)
