"""Which back end a spec asks for."""

from __future__ import annotations

from pathlib import Path

from dualpath_api.cluster import StorageSpec
from dualpath_api.errors import UnsupportedError
from dualpath_api.keys import KvLayout
from dualpath_worker.storage.base import BlockStore
from dualpath_worker.storage.files import FilesStore


def open_store(spec: StorageSpec, layout: KvLayout) -> BlockStore:
    """The store that the spec asks for. Raises SpecError or UnsupportedError if it cannot be used."""
    if spec.files is None:
        raise UnsupportedError(
            f"spec.storage.{'managed' if spec.managed else 'external'} cannot be used yet",
            cause="this version has no client of a distributed store",
            remedy="use spec.storage.files on a shared file system",
        )
    return FilesStore(Path(spec.files.path), spec.files.size, layout)
