"""One LMDB environment within this process: opening, checking, growing, translating its errors.

The map (address space, not disk) grows when it is full. LMDB lets the map change only while this process has no
transaction open, so every transaction passes a gate that counts them.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import lmdb

from pool_server.core.disk import is_read_only, sync_folder
from pool_server.storage.errors import StoreDamagedError, StoreError, StoreFullError, damaged, translate, translate_os
from pool_server.storage.lmdb.change_capture import Capture, CapturingTxn
from pool_server.storage.lmdb.change_frames import POSITION, Position, read_position
from pool_server.storage.lmdb.integrity import DATA_FILE, verify
from pool_server.storage.lmdb.transaction import Reader, Txn
from pool_server.storage.scratch import scratch_folder, sweep

log = logging.getLogger(__name__)

T = TypeVar("T")

META = "_meta"
GROW_WAIT_S = 1.0  # how long growing waits for this process's other transactions
KEEP_FREE_BYTES = 16 << 20  # the map does not grow into the last of the disk
LOCK_FILE = "lock.mdb"
_MAX_READERS = 512
_PAGE = 4096  # bytes, the least a page of the engine has
_LOCK_BYTES = 128 + 64 * _MAX_READERS


class Engine:
    """Opens and keeps one environment. All methods may be called from any thread."""

    def __init__(self, folder: Path, tables: Sequence[str], *, durable: bool, map_size: int, max_size: int) -> None:
        self.folder = folder
        self._names = (*tables, META)
        self._durable = durable
        self._map_size = map_size
        self._max_size = max(max_size, map_size)
        self._lock = threading.Lock()
        self._gate = threading.Condition(self._lock)
        self._open = 0
        self._waiting = 0  # threads that want to be alone
        self._closed = False
        self._capture: Capture | None = None
        self._env, self._tables = self._open_env()
        if self.position() is not None:
            self._capture = Capture(folder)

    def position(self) -> Position | None:
        """Where the store stands in its log of changes; None where it keeps none."""
        return read_position(self.get(META, POSITION))

    def keep_log(self) -> None:
        """Note every change from now on, in a generation that is going on or begins."""
        self._capture = self._capture or Capture(self.folder)
        if self.position() is None:
            self.begin_log()

    def begin_log(self) -> None:
        """Begin another generation."""
        self.run(lambda txn: txn.put(META, POSITION, b""))

    def end_log(self) -> None:
        """Keep no log any more."""
        if self._capture is not None:
            self._capture.close()
            self._capture = None
        if self.get(META, POSITION) is not None:
            self.run(lambda txn: txn.delete(META, POSITION))

    def _open_env(self) -> tuple[lmdb.Environment, dict[str, Any]]:
        try:
            if (self.folder / DATA_FILE).exists() and is_read_only(self.folder):
                return self._open_read_only()
            _prepare(self.folder)
        except OSError as exc:
            raise translate_os(exc, self.folder) from exc
        except lmdb.Error as exc:
            raise translate(exc, self.folder) from exc
        try:
            env = lmdb.open(
                str(self.folder),
                map_size=self._map_size,
                max_dbs=len(self._names) + 4,
                mode=0o600,
                sync=self._durable,
                metasync=self._durable,
                readahead=False,
                max_readers=_MAX_READERS,
                max_spare_txns=4,
            )
        except lmdb.Error as exc:
            raise translate(exc, self.folder) from exc
        try:
            env.reader_check()  # slots of killed processes would keep old pages alive
            _check_length(env, self.folder)
            with env.begin(write=True) as txn:  # in one, so that a new store is synced once
                tables = {name: env.open_db(name.encode(), txn=txn) for name in self._names}
        except lmdb.Error as exc:
            env.close()
            raise translate(exc, self.folder) from exc
        except StoreDamagedError:
            env.close()
            raise
        return env, tables

    def _open_read_only(self) -> tuple[lmdb.Environment, dict[str, Any]]:
        """Where nothing can be written, what is there can be read. Without locks: nobody else writes it either."""
        _check_beginning(self.folder)
        env = lmdb.open(
            str(self.folder),
            map_size=self._map_size,
            max_dbs=len(self._names) + 4,
            readonly=True,
            lock=False,
            create=False,
            readahead=False,
            max_spare_txns=4,
        )
        try:
            _check_length(env, self.folder)
            tables = {name: env.open_db(name.encode(), create=False) for name in self._names}
        except BaseException:
            env.close()
            raise
        log.error("the file system of %s is read-only: what is there is served, nothing is written", self.folder)
        return env, tables

    @contextmanager
    def read(self) -> Iterator[Reader]:
        """A consistent view; errors of the engine come out as StoreError."""
        self._enter()
        try:
            txn = self._begin_read()
            try:
                yield Reader(txn, self._tables)
            finally:
                txn.abort()
        except lmdb.Error as exc:
            raise translate(exc, self.folder) from exc
        finally:
            self._leave()

    def get(self, table: str, key: bytes) -> bytes | None:
        """One read in a transaction of its own."""
        return self._once(_get, table, key)

    def last(self, table: str) -> bytes | None:
        """A table's greatest key, likewise."""
        return self._once(_last, table, b"")

    def _once(
        self, fn: Callable[[lmdb.Transaction[bytes], Any, bytes], bytes | None], table: str, key: bytes
    ) -> bytes | None:
        """`read` for one look, without what its context costs."""
        self._enter()
        try:
            txn = self._begin_read()
            try:
                return fn(txn, self._tables[table], key)
            finally:
                txn.abort()
        except lmdb.Error as exc:
            raise translate(exc, self.folder) from exc
        finally:
            self._leave()

    def _begin_read(self) -> lmdb.Transaction[bytes]:
        try:
            return self._env.begin()
        except lmdb.MapResizedError:
            self._leave()
            try:
                self._alone(self._adopt_map)
            finally:
                self._enter()
            return self._env.begin()

    def write(self, fn: Callable[[Txn, Callable[[], Txn]], T]) -> T:
        """`run` for a `fn(txn, child)`, where `child()` begins a nested transaction, which `fn` ends."""
        return self.run(lambda txn: fn(txn, lambda: txn.nested(self._env)))

    def run(self, fn: Callable[[Txn], T]) -> T:
        """Run `fn` in one write transaction and commit it; it runs again when the map had to grow.

        Raises what `fn` raises (nothing is then written), or StoreError.
        """
        while True:
            try:
                return self._run_once(fn)
            except lmdb.MapFullError as exc:
                self._alone(self._grow, exc)
            except lmdb.MapResizedError:
                self._alone(self._adopt_map)
            except lmdb.ReadonlyError as exc:
                if is_read_only(self.folder):
                    raise translate(exc, self.folder) from exc
                self._alone(self._reopen)
            except lmdb.PanicError as exc:
                # After a failed write of its meta page the engine refuses everything until it is opened again.
                self._alone(self._reopen)
                raise StoreFullError(f"the store in {self.folder} broke off a write and was opened anew") from exc
            except lmdb.Error as exc:
                raise translate(exc, self.folder) from exc

    def _run_once(self, fn: Callable[[Txn], T]) -> T:
        self._enter()
        try:
            txn = self._env.begin(write=True)
            try:
                capture = self._capture
                changing = Txn(txn, self._tables) if capture is None else CapturingTxn(txn, self._tables)
                result = fn(changing)
                sealed = capture.seal(changing, META) if isinstance(changing, CapturingTxn) and capture else None
                txn.commit()
            except BaseException:
                txn.abort()
                raise
            if capture is not None and sealed is not None:
                capture.keep(sealed)
            return result
        finally:
            self._leave()

    def _enter(self) -> None:
        with self._lock:
            if self._closed:
                raise StoreError(f"the store in {self.folder} is closed")
            self._open += 1

    def _leave(self) -> None:
        with self._lock:
            self._open -= 1
            if self._waiting and not self._open:
                self._gate.notify_all()

    def _alone(self, fn: Callable[..., None], *args: object) -> None:
        """Run `fn` while no transaction of this process is open; gives up after GROW_WAIT_S."""
        with self._lock:
            if not self._all_left():
                raise StoreFullError(f"the store in {self.folder} must grow and waits for a long read to end")
            fn(*args)

    def _all_left(self) -> bool:
        """Waits, the lock held, until no transaction of this process is open; False after GROW_WAIT_S."""
        self._waiting += 1
        try:
            return self._gate.wait_for(lambda: not self._open, GROW_WAIT_S)
        finally:
            self._waiting -= 1

    def _grow(self, exc: lmdb.Error) -> None:
        size = int(self._env.info()["map_size"])
        free = shutil.disk_usage(self.folder).free
        bigger = min(size * 2, self._max_size, size + max(0, free - KEEP_FREE_BYTES))
        if bigger <= size:
            raise translate(exc, self.folder) from exc
        self._env.set_mapsize(bigger)
        self._map_size = bigger

    def _adopt_map(self) -> None:
        self._env.set_mapsize(0)
        self._map_size = int(self._env.info()["map_size"])

    def _reopen(self) -> None:
        self._env.close()
        self._env, self._tables = self._open_env()

    def copy(self, dest: Path) -> None:
        """Write a consistent, compacted copy into the empty folder `dest` while others go on writing."""
        self._enter()
        try:
            self._begin_read().abort()  # follows a map that another process let grow
            self._env.copy(str(dest), compact=True)
        except lmdb.Error as exc:
            raise translate(exc, dest) from exc
        finally:
            self._leave()

    def free_readers(self) -> int:
        """Free the places of readers whose processes died: each would keep all pages since then from being used again.
        Returns how many there were."""
        self._enter()
        try:
            return int(self._env.reader_check())
        except lmdb.Error as exc:
            raise translate(exc, self.folder) from exc
        finally:
            self._leave()

    def size(self) -> int:
        """Bytes of the data file on disk."""
        return (self.folder / DATA_FILE).stat().st_size

    def close(self) -> None:
        """Close the environment; waits a moment for transactions of other threads."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._all_left()
            self._env.close()
        if self._capture is not None:
            self._capture.close()


def _get(txn: lmdb.Transaction[bytes], table: Any, key: bytes) -> bytes | None:
    return txn.get(key, db=table)


def _last(txn: lmdb.Transaction[bytes], table: Any, _: bytes) -> bytes | None:
    cursor = txn.cursor(db=table)
    return cursor.key() if cursor.last() else None


def _prepare(folder: Path) -> None:
    """Make the environment's files where there are none, each whole or not at all. An empty or cut-off first page is
    refused before the engine maps it. Raises OSError, lmdb.Error and StoreDamagedError."""
    try:
        (folder / DATA_FILE).stat()
    except FileNotFoundError:
        sweep(folder, ".new-", (DATA_FILE,))
        with scratch_folder(folder, ".new-") as scratch:
            lmdb.open(str(scratch), map_size=1 << 20, mode=0o600, lock=False).close()
            os.replace(scratch / DATA_FILE, folder / DATA_FILE)
            sync_folder(folder)
    else:
        _check_beginning(folder)
    _take_room_for_locks(folder)


def _check_beginning(folder: Path) -> None:
    size = (folder / DATA_FILE).stat().st_size
    if size < 2 * _PAGE:
        raise damaged(folder, f"{DATA_FILE} has only {size} bytes")


def _take_room_for_locks(folder: Path) -> None:
    """The engine maps its lock file and touches a page of it when a reader needs one: where the disk has no room for
    that page then, the kernel kills the process. Raises OSError."""
    if not hasattr(os, "posix_fallocate"):
        return
    descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        seen = os.fstat(descriptor)
        if seen.st_size < _LOCK_BYTES or seen.st_blocks * 512 < _LOCK_BYTES:
            os.posix_fallocate(descriptor, 0, _LOCK_BYTES)
    except OSError:
        if seen.st_size < _LOCK_BYTES or seen.st_blocks * 512 < _PAGE:
            raise
        log.warning("the store in %s has no room for more than a few readers: free disk space on that volume", folder)
    finally:
        os.close(descriptor)


def _check_length(env: lmdb.Environment, folder: Path) -> None:
    """A file shorter than its own table of contents says is read in another process before this one relies on it.

    Cut off, it would kill the process on the first read of what is missing. But it may be whole: pages that were
    given out and back within one transaction are counted, yet never written.
    """
    needed, actual = _lengths(env, folder)
    if actual >= needed:
        return
    try:
        verify(folder, live=True)
    except StoreDamagedError as exc:
        raise damaged(folder, f"{DATA_FILE} has {actual} of {needed} bytes") from exc
    if not env.flags()["readonly"]:
        _extend(env, folder)


def _lengths(env: lmdb.Environment, folder: Path) -> tuple[int, int]:
    """How long the data file is said to be, and is, in bytes."""
    needed = (int(env.info()["last_pgno"]) + 1) * int(env.stat()["psize"])
    return needed, os.stat(folder / DATA_FILE).st_size


def _extend(env: lmdb.Environment, folder: Path) -> None:
    """Give the file the length it is said to have, so that it is read through once and not at every opening.

    Holds the write transaction meanwhile: another process could make the file longer in between.
    """
    txn = env.begin(write=True)
    try:
        needed, actual = _lengths(env, folder)
        if actual < needed:
            with (folder / DATA_FILE).open("r+b") as file:
                file.truncate(needed)
                os.fsync(file.fileno())
    except OSError as exc:
        log.info("%s stays shorter than it could be: %s", folder / DATA_FILE, exc.strerror)
    finally:
        txn.abort()
