"""A handful of primitives over an embedded engine. Knows tables of bytes, not what they mean."""

from pool_server.storage.backup import (
    ENVIRONMENTS,
    LEDGER,
    STATE,
    Manifest,
    Restored,
    backup,
    backup_folder,
    prove,
    rescue,
    restore,
    sweep_scratch,
)
from pool_server.storage.errors import (
    StoreDamagedError,
    StoreError,
    StoreFullError,
    StoreLockedError,
    StoreVersionError,
)
from pool_server.storage.folder_identity import FolderIdentity
from pool_server.storage.folder_lock import FolderLock, adopt_lock, join_folder, lock_folder, wait_for_workers
from pool_server.storage.lmdb.group_commit import Channel
from pool_server.storage.lmdb.integrity import verify
from pool_server.storage.lmdb.store import FORMAT, Store, outgrows
from pool_server.storage.lmdb.transaction import Reader, Txn
from pool_server.storage.lmdb.write_ahead_log import Leftover, Sender

__all__ = [
    "ENVIRONMENTS",
    "FORMAT",
    "LEDGER",
    "STATE",
    "Channel",
    "FolderIdentity",
    "FolderLock",
    "Leftover",
    "Manifest",
    "Reader",
    "Restored",
    "Sender",
    "Store",
    "StoreDamagedError",
    "StoreError",
    "StoreFullError",
    "StoreLockedError",
    "StoreVersionError",
    "Txn",
    "adopt_lock",
    "backup",
    "backup_folder",
    "join_folder",
    "lock_folder",
    "outgrows",
    "prove",
    "rescue",
    "restore",
    "sweep_scratch",
    "verify",
    "wait_for_workers",
]
