"""Which back end a spec asks for."""

from __future__ import annotations

from pathlib import Path

from dualpath_api.cluster import ClusterSpec, StorageSpec
from dualpath_api.keys import KvLayout
from dualpath_worker.nics import discover
from dualpath_worker.storage.base import BlockStore
from dualpath_worker.storage.files import FilesStore
from dualpath_worker.storage.mooncake import MooncakeStore
from dualpath_worker.storage.mooncake_client import TCP, StoreNetwork
from dualpath_worker.storage.mooncake_link import StoreLink
from dualpath_worker.storage.tier import DramTier

JOIN_S = 5.0
EXTERNAL_COPIES = 2
DEFAULT_DOMAIN = "default"


def open_store(
    spec: StorageSpec,
    layout: KvLayout,
    *,
    network: StoreNetwork = TCP,
    ranks: int = 1,
    join_s: float = JOIN_S,
) -> BlockStore:
    """The store that the spec asks for. Raises SpecError or UnsupportedError if it cannot be used.

    A distributed store that does not answer within `join_s` seconds is joined later: until then it is empty.
    `ranks` is among how many processes a tier of memory is divided.
    """
    store = _back_end(spec, layout, network, join_s)
    if spec.dram_tier is None:
        return store
    return DramTier(store, spec.dram_tier.size // ranks, layout)


def _back_end(spec: StorageSpec, layout: KvLayout, network: StoreNetwork, join_s: float) -> BlockStore:
    if spec.files is not None:
        return FilesStore(Path(spec.files.path), spec.files.size, layout)
    endpoints, copies = distributed(spec)
    link = StoreLink(endpoints, network, copies=copies)
    link.wait(join_s)
    return MooncakeStore(link, layout, domain=spec.domain or DEFAULT_DOMAIN)


def store_network(spec: ClusterSpec, *, degraded: bool = False) -> StoreNetwork:
    """RDMA over the storage NICs where the spec asks for it and there are such devices, otherwise TCP."""
    if degraded or not spec.fabric.rdma:
        return TCP
    storage = tuple(d.name for d in discover(spec.nics) if d.role == "storage" and d.infiniband)
    return StoreNetwork(protocol="rdma", devices=storage) if storage else TCP


def distributed(spec: StorageSpec) -> tuple[tuple[str, ...], int]:
    """Addresses of a distributed store, and how many copies of a block it shall keep."""
    if spec.external is not None:
        return spec.external.endpoints, EXTERNAL_COPIES
    assert spec.managed is not None  # exactly one of the three, says the spec's rule
    return spec.managed.etcd.endpoints, spec.managed.copies
