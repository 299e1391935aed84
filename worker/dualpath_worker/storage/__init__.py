"""Full Blocks that outlive the engines: the store, its back ends, and the queues in front of it."""

from dualpath_worker.storage.base import BlockStore, Buffer, ReadResult, StoreStats, WriteResult
from dualpath_worker.storage.factory import open_store
from dualpath_worker.storage.files import FilesStore

__all__ = ["BlockStore", "Buffer", "FilesStore", "ReadResult", "StoreStats", "WriteResult", "open_store"]
