"""A handful of primitives over an embedded engine. Knows tables of bytes, not what they mean."""

from pool_server.store.backup import (
    ENVIRONMENTS,
    LEDGER,
    STATE,
    Manifest,
    Restored,
    backup,
    backup_folder,
    restore,
)
from pool_server.store.committer import Channel
from pool_server.store.errors import (
    StoreDamaged,
    StoreError,
    StoreFull,
    StoreLocked,
    StoreVersion,
)
from pool_server.store.lock import FolderLock, lock_folder
from pool_server.store.schedule import BackupSchedule
from pool_server.store.store import FORMAT, Store
from pool_server.store.txn import Reader, Txn
from pool_server.store.verify import verify

__all__ = [
    "ENVIRONMENTS",
    "FORMAT",
    "LEDGER",
    "STATE",
    "BackupSchedule",
    "Channel",
    "FolderLock",
    "Manifest",
    "Reader",
    "Restored",
    "Store",
    "StoreDamaged",
    "StoreError",
    "StoreFull",
    "StoreLocked",
    "StoreVersion",
    "Txn",
    "backup",
    "backup_folder",
    "lock_folder",
    "restore",
    "verify",
]
