"""Full Blocks that outlive the engines: the store, its back ends, and the queues in front of it."""

from __future__ import annotations

from pathlib import Path

from dualpath_api.cluster import StorageSpec
from dualpath_api.keys import KvLayout
from dualpath_worker.storage.base import BlockStore, Buffer, ReadResult, StoreStats, WriteResult
from dualpath_worker.storage.files import FilesStore

__all__ = ["BlockStore", "Buffer", "FilesStore", "ReadResult", "StoreStats", "WriteResult", "open_store"]


def open_store(spec: StorageSpec, layout: KvLayout) -> BlockStore:
    """The store that the spec asks for. Raises SpecError if it cannot be used."""
    return FilesStore(Path(spec.files.path), spec.files.size, layout)
