"""The command lines of a store's processes: what is understood, what is refused, what the library is told."""

import asyncio
import os

import pytest
from aiohttp import web

from dualpath_api.cluster import ClusterSpec
from dualpath_api.errors import SpecError
from dualpath_worker.storage.__main__ import main
from dualpath_worker.storage.factory import distributed, store_network
from dualpath_worker.storage.master import MasterSettings, command
from dualpath_worker.storage.mooncake_client import TCP, own_address
from dualpath_worker.storage.mooncake_link import masters
from dualpath_worker.storage.node import NodeSettings, environment
from dualpath_worker.storage.storage_nics import store_network_of

SPEC = {
    "model": {"uri": "file:///m", "servedName": "m"},
    "prefill": {"resources": {"dramBuffer": "1Mi", "kvCache": "1Mi"}},
    "decode": {"resources": {"dramBuffer": "1Mi", "kvCache": "1Mi"}},
}


def spec_of(**sections):
    return ClusterSpec.model_validate(SPEC | sections)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["node", "--size", "1"], "a node needs either an etcd or masters"),
        (
            ["node", "--size", "1", "--etcd", "a:1", "--master", "b:1"],
            "a node needs either an etcd or masters",
        ),
        (["node", "--size", "1", "--master", "a:1", "--medium", "NVMe"], "needs a directory"),
        (["node", "--size", "1", "--master", "a:1", "--port", "50052"], "port 50052 cannot be used"),
        (
            ["node", "--size", "1", "--master", "a:1", "--protocol", "rdma", "--nics", "none*"],
            "no RDMA device",
        ),
        (["node", "--master", "a:1"], "--size"),
        (["master", "--port", "70000"], "--port"),
        (["master", "--metrics-host", "203.0.113.1", "--host", "203.0.113.1"], "the master cannot listen on"),
        ([], "verb"),
    ],
)
def test_what_cannot_be_done_is_said_with_exit_code_2(arguments, complaint, capfd, monkeypatch):
    codes = []

    def leave(code):
        codes.append(code)
        raise SystemExit(code)

    monkeypatch.setattr("os._exit", leave)
    monkeypatch.setattr("logging.shutdown", lambda: None)
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    told = capfd.readouterr().err
    assert complaint in told
    assert "Traceback" not in told


def test_a_master_is_elected_only_where_there_is_an_etcd():
    alone = command(MasterSettings(port=7000, lease_s=0.5, node_ttl_s=3), 7001)
    assert alone[0].endswith("/mooncake_master")
    assert {"--rpc_port=7000", "--client_ttl=3", "--default_kv_lease_ttl=500ms"} <= set(alone)
    assert not any("etcd" in word or "enable_ha" in word or "offload" in word for word in alone)
    one_of_many = command(MasterSettings(etcd=("a:1", "b:2"), host="10.0.0.1", offload=True), 7001)
    wanted = {"--enable_ha=true", "--enable_oplog=true", "--etcd_endpoints=a:1;b:2", "--enable_offload=true"}
    assert wanted | {"--rpc_address=10.0.0.1"} <= set(one_of_many)


def test_a_node_with_a_directory_bounds_it(tmp_path, monkeypatch):
    for name in (
        "MOONCAKE_OFFLOAD_FILE_STORAGE_PATH",
        "MOONCAKE_OFFLOAD_TOTAL_SIZE_LIMIT_BYTES",
        "MC_MIN_RPC_PORT",
    ):
        monkeypatch.setenv(name, "")
    environment(
        NodeSettings(endpoints=("a:1",), medium="NVMe", path=str(tmp_path / "d"), size=77, port=15000)
    )
    assert (tmp_path / "d").is_dir()
    assert os.environ["MOONCAKE_OFFLOAD_TOTAL_SIZE_LIMIT_BYTES"] == "77"
    assert (os.environ["MC_MIN_RPC_PORT"], os.environ["MC_MAX_RPC_PORT"]) == ("15000", "15015")
    (tmp_path / "file").touch()
    with pytest.raises(SpecError, match="cannot use"):
        environment(NodeSettings(endpoints=("a:1",), medium="NVMe", path=str(tmp_path / "file")))


async def test_an_etcd_is_told_from_masters_by_asking():
    async def version(_):
        return web.json_response({"etcdserver": "3.6.0", "etcdcluster": "3.6.0"})

    app = web.Application()
    app.add_routes([web.get("/version", version)])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    here = f"127.0.0.1:{runner.addresses[0][1]}"
    assert await asyncio.to_thread(masters, [here, "127.0.0.1:1"]) == [f"etcd://{here};127.0.0.1:1"]
    await runner.cleanup()
    assert await asyncio.to_thread(masters, ["127.0.0.1:1", "127.0.0.1:2"]) == ["127.0.0.1:1", "127.0.0.1:2"]
    assert masters(["etcd://a:1", "etcd://b:2"]) == ["etcd://a:1;b:2"]


def test_the_spec_names_the_store_and_its_copies():
    external = spec_of(storage={"external": {"endpoints": ["a:1", "b:2"]}})
    assert distributed(external.storage) == (("a:1", "b:2"), 2)
    managed = spec_of(storage={"managed": {"size": "1Mi", "copies": 3, "etcd": {"endpoints": ["e:2379"]}}})
    assert distributed(managed.storage) == (("e:2379",), 3)


def test_rdma_is_used_where_the_spec_asks_for_it_and_a_storage_nic_has_it():
    storage = {"external": {"endpoints": ["a:1"]}}
    assert store_network(spec_of(storage=storage)) == TCP
    nics = [{"role": "storage", "match": "no-such-nic"}]
    assert (
        store_network(spec_of(storage=storage, nics=nics, fabric={"mode": "HostNetwork", "rdma": True}))
        == TCP
    )


def test_the_storage_nics_give_address_and_rdma_devices(tmp_path):
    assert store_network_of(["lo"], rdma=False, host="10.0.0.9").host == "127.0.0.1"
    assert store_network_of([], rdma=False, host="10.0.0.9").host == "10.0.0.9"
    for name in ("mlx5_0", "mlx5_8", "mlx5_9"):
        (tmp_path / name).mkdir()
    network = store_network_of(["mlx5_[89]"], rdma=True, host="10.0.0.9", infiniband=tmp_path)
    assert (network.protocol, network.devices, network.host) == ("rdma", ("mlx5_8", "mlx5_9"), "10.0.0.9")


def test_the_own_address_is_that_of_the_route_to_the_master():
    assert own_address("127.0.0.1:50051") == "127.0.0.1"
    assert own_address("nonsense") == "127.0.0.1"
