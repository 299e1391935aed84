"""The way to storage, and what an engine does about what is wrong; on this machine's loopback."""

import pytest
from recorded import storage
from test_fabric_classes import spec_of

from dualpath_api.errors import SpecError, UnsupportedError
from dualpath_worker.fabric import Machine
from dualpath_worker.fabric.preflight import (
    PEERS,
    Peer,
    before_register,
    check_routes,
    leaves_by,
    parse_peers,
    storage_hosts,
    unreachable,
)
from dualpath_worker.nics import discover

MOUNTS = """\
/dev/vda / ext4 rw 0 0
10.10.0.9:/export /data nfs4 rw,addr=10.10.0.9 0 0
/dev/vdb /data/local ext4 rw 0 0
10.1.1.1:6789,10.1.1.2:6789:/ /ceph ceph rw 0 0
10.2.0.1@o2ib:10.2.0.2@o2ib:/fs /lustre lustre rw 0 0
[fd00::1]:/x /six nfs4 rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "hosts"),
    [
        ("/var/lib", []),
        ("/data/kv", ["10.10.0.9"]),
        ("/data/local/kv", []),
        ("/ceph/kv", ["10.1.1.1", "10.1.1.2"]),
        ("/lustre/kv", ["10.2.0.1"]),
        ("/six", ["fd00::1"]),
    ],
)
def test_the_servers_of_a_shared_directory_are_those_of_its_mount(tmp_path, path, hosts):
    (tmp_path / "mounts").write_text(MOUNTS)
    spec = spec_of()
    storage_of = spec.storage.model_copy(
        update={"files": spec.storage.files.model_copy(update={"path": path})}
    )
    spec = spec.model_copy(update={"storage": storage_of})
    assert storage_hosts(spec, Machine(mounts=tmp_path / "mounts")) == hosts


def external(*endpoints, nics=()):
    spec = spec_of(*nics, mode="HostNetwork")
    given = spec.storage.model_validate({"external": {"endpoints": endpoints}})
    return spec.model_copy(update={"storage": given})


def test_the_interface_by_which_packets_leave_is_the_kernels_choice():
    assert leaves_by("127.0.0.1") == "lo"
    spec = external("127.0.0.1:2379", "[::1]:2379", "127.0.0.1:2380", nics=[storage("lo")])
    assert storage_hosts(spec, Machine()) == ["127.0.0.1", "::1"]
    assert check_routes(spec, discover(spec.nics), Machine()) == []


def test_a_storage_host_that_is_not_known_is_a_finding():
    spec = external("no-such-host.invalid:2379", nics=[storage("lo")])
    (found,) = check_routes(spec, discover(spec.nics), Machine())
    assert found.what == "there is no route to storage at no-such-host.invalid"


def test_peers_are_pairs_of_a_nic_and_an_address():
    assert parse_peers(" cnic0=10.20.0.3,snic0=fd00::1,") == (
        Peer(nic="cnic0", address="10.20.0.3"),
        Peer(nic="snic0", address="fd00::1"),
    )
    for wrong in ("10.20.0.3", "cnic0=", "=x"):
        with pytest.raises(SpecError, match="NIC=ADDRESS"):
            parse_peers(wrong)


def test_a_peer_that_refuses_or_accepts_answers_and_one_without_a_nic_does_not():
    assert unreachable(Peer(nic="lo", address="127.0.0.1")) is None
    lost = unreachable(Peer(nic="none0", address="127.0.0.1"))
    assert lost is not None
    assert lost.cause == "none0 has no IP address"


def test_an_engine_stops_or_goes_on_as_the_spec_says():
    peers = {PEERS: "none0=127.0.0.1"}
    wrong = spec_of(storage("none1"), mode="HostNetwork")
    with pytest.raises(
        UnsupportedError, match=r"(?s)no storage NIC matches 'none1'.*; and 127\.0\.0\.1 does not"
    ) as told:
        before_register(wrong, peers, in_pod=False)
    assert "spec.nics" in told.value.remedy
    degrading = spec_of(storage("none1"), mode="HostNetwork", onMismatch="Degrade")
    assert len(before_register(degrading, peers, in_pod=False)) == 2
    for quiet in (spec_of(storage("none1")), spec_of(storage("none1"), mode="HostNetwork", preflight=False)):
        assert before_register(quiet, peers, in_pod=False) == []
    assert before_register(wrong, peers, in_pod=True) == []  # a container before it has looked


def test_a_bandwidth_that_nobody_can_measure_is_advice():
    spec = spec_of(storage("lo", 10**12), mode="HostNetwork", leastBandwidthPermille=500)
    (found,) = before_register(spec, {PEERS: "lo=127.0.0.1"}, in_pod=False)
    assert found.advice
    assert "probe serve" in found.remedy
