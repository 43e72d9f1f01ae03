"""A handful of primitives over an embedded engine. Knows tables of bytes, not what they mean."""

from pool_server.store.committer import Channel
from pool_server.store.errors import (
    StoreDamaged,
    StoreError,
    StoreFull,
    StoreLocked,
    StoreVersion,
)
from pool_server.store.lock import FolderLock, lock_folder
from pool_server.store.store import FORMAT, Store
from pool_server.store.txn import Reader, Txn

__all__ = [
    "FORMAT",
    "Channel",
    "FolderLock",
    "Reader",
    "Store",
    "StoreDamaged",
    "StoreError",
    "StoreFull",
    "StoreLocked",
    "StoreVersion",
    "Txn",
    "lock_folder",
]
