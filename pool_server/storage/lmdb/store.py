"""The store: named tables of bytes, read on the event loop, written with or without waiting for the disk."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

from pool_server.storage.errors import StoreDamagedError, StoreError, StoreVersionError
from pool_server.storage.folder_lock import lock_folder
from pool_server.storage.lmdb.change_frames import Position
from pool_server.storage.lmdb.engine import META, Engine
from pool_server.storage.lmdb.group_commit import Channel, Committer
from pool_server.storage.lmdb.log_file import orphans
from pool_server.storage.lmdb.transaction import Reader, Txn
from pool_server.storage.lmdb.write_ahead_log import Sender, WriteAheadLog

T = TypeVar("T")
R = TypeVar("R")

FORMAT = 1  # raise it with a migration from the format before
MAP_SIZE = 1 << 30
MAX_SIZE = 1 << 42
_VERSION = b"version"
_USABLE_FROM = b"usable-from"  # the oldest format whose programs can use the store; absent: its own alone
Migrations = Mapping[int, Callable[[Txn], None]]


class Store:
    """One environment in one folder. Several processes may open the same folder, each once.

    A durable store has everything on the disk before it says so; the other kind survives a crash of the process,
    may lose the last moments in a power cut, and starts empty (the old files set aside) when it is damaged.
    """

    def __init__(self, engine: Engine, *, durable: bool, set_aside: Path | None = None) -> None:
        self._engine = engine
        self._committer = Committer(engine)
        self._closures: Channel[Callable[[Txn], Any], Any] = Channel(self._committer, _run_all)
        self.durable = durable
        self.set_aside = set_aside

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        tables: Sequence[str],
        durable: bool,
        map_size: int = MAP_SIZE,
        max_size: int = MAX_SIZE,
        version: int = FORMAT,
        usable_from: int | None = None,
        migrations: Migrations | None = None,
    ) -> Store:
        """Open or make the store in `folder`, bringing an older format forward first.

        `migrations[n]` turns format n into n + 1, each in a transaction of its own. `usable_from` is the oldest format
        whose programs can use a store as this program writes it (None: this one alone); a store of a newer format is
        opened where that is said of it. Sizes are bytes. Raises StoreDamagedError, StoreVersionError, StoreFullError or
        StoreError.
        """
        aside = None
        with lock_folder(folder, name="open.lock", wait=True):
            try:
                engine = Engine(folder, tables, durable=durable, map_size=map_size, max_size=max_size)
            except StoreDamagedError:
                if durable:
                    raise
                aside = _move_aside(folder)
                engine = Engine(folder, tables, durable=durable, map_size=map_size, max_size=max_size)
            try:
                _migrate(engine, version, version if usable_from is None else usable_from, migrations or {})
            except BaseException:
                engine.close()
                raise
        return cls(engine, durable=durable, set_aside=aside)

    @property
    def folder(self) -> Path:
        return self._engine.folder

    def read(self) -> AbstractContextManager[Reader]:
        """A consistent view for a `with` block without an `await` in it."""
        return self._engine.read()

    def get(self, table: str, key: bytes) -> bytes | None:
        """One value, about a microsecond."""
        return self._engine.get(table, key)

    def last(self, table: str) -> bytes | None:
        """A table's greatest key, about a microsecond; None where it is empty."""
        return self._engine.last(table)

    def after(self, table: str, key: bytes) -> list[tuple[bytes, bytes]]:
        """The pairs whose keys are greater."""
        with self.read() as reader:
            return list(reader.scan(table, key + b"\0"))

    def write(self, fn: Callable[[Txn], T]) -> T:
        """Run `fn` in a transaction now, in this thread, and commit it. Raises what `fn` raises, or StoreError.

        `fn` may run more than once (when the store has to grow); what it does besides the transaction must bear
        that. On a durable store this waits for the disk: not for the event loop's hot path.
        """
        return self._engine.run(fn)

    def submit(self, fn: Callable[[Txn], T]) -> asyncio.Future[T]:
        """Run `fn` in the writer thread, together with what others submit, and commit all of it at once.

        The future resolves on the running loop with `fn`'s result after the commit. When `fn` raises, only its own
        changes are undone and only its future fails. `fn` may run more than once.
        """
        return self._closures.send(fn)

    def channel(
        self,
        apply: Callable[[Txn, Sequence[T]], Sequence[R]],
        failed: Callable[[T, BaseException], R] | None = None,
    ) -> Channel[T, R]:
        """`submit` for many like items: `apply` gets all items of a batch at once. See `Channel`."""
        return Channel(self._committer, apply, failed)

    def write_ahead_log(
        self,
        channel: Sender[T],
        content: Callable[[T], bytes],
        owing: Callable[[], bool],
        adopted: Callable[[list[bytes]], None] | None = None,
        *,
        size: int = 0,
        within_s: float = 0.0,
    ) -> WriteAheadLog[T]:
        """Makes a channel's items durable in a log first, in this folder. See `WriteAheadLog`."""
        return WriteAheadLog(self.folder, channel, content, owing, adopted, size=size, within_s=within_s)

    def orphans(self, *, everywhere: bool = False) -> Iterator[list[bytes]]:
        """What the logs of processes that died have to tell; each is removed when the next one is asked for.
        `everywhere`: also those that had to be left outside of this folder."""
        return orphans(self.folder, everywhere=everywhere)

    async def flush(self) -> None:
        """Returns when everything submitted before is committed."""
        await self.submit(_no_change)

    def keep_log(self, keep: bool) -> None:
        """Whether every change is noted beside the store, for a `Shipper`. Raises StoreError."""
        if keep:
            self._engine.keep_log()
        else:
            self._engine.end_log()

    def begin_log(self) -> None:
        """Begin another generation of the log: there is a hole in this one. Raises StoreError."""
        self._engine.begin_log()

    def position(self) -> Position | None:
        """Where the store stands in its log; None where none is kept. Raises StoreError."""
        return self._engine.position()

    def copy(self, dest: Path) -> None:
        """A consistent, compacted copy into the new folder `dest`, while writing goes on. Blocks; use a thread."""
        dest.mkdir(parents=True, mode=0o700)
        self._engine.copy(dest)

    def free_readers(self) -> int:
        """Free what readers of dead processes hold; returns how many there were. Raises StoreError."""
        return self._engine.free_readers()

    def size(self) -> int:
        """Bytes on disk."""
        return self._engine.size()

    def close(self) -> None:
        """Commit what was submitted, then close."""
        self._committer.close()
        self._engine.close()


def _run_all(txn: Txn, fns: Sequence[Callable[[Txn], Any]]) -> list[Any]:
    return [fn(txn) for fn in fns]


def _no_change(_: Txn) -> None:
    return None


def outgrows(folder: Path, usable_from: int) -> bool:
    """Whether to open the store in `folder` would take it from a program that may be using it: it can be used by
    programs of a format before `usable_from`. Raises StoreError."""
    engine = Engine(folder, (), durable=True, map_size=MAP_SIZE, max_size=MAX_SIZE)
    try:
        raw = engine.get(META, _VERSION)
        return raw is not None and _usable_from(engine, _number(raw, folder)) < usable_from
    finally:
        engine.close()


def _usable_from(engine: Engine, found: int) -> int:
    raw = engine.get(META, _USABLE_FROM)
    return found if raw is None else _number(raw, engine.folder)


def _migrate(engine: Engine, version: int, usable_from: int, migrations: Migrations) -> None:
    raw = engine.get(META, _VERSION)
    if raw is None:
        engine.run(lambda txn: _stamp(txn, version, usable_from))
        return
    found = _number(raw, engine.folder)
    usable = _usable_from(engine, found)
    if found > version:
        if usable > version:
            raise StoreVersionError(
                f"the store in {engine.folder} has format {found}, this program knows up to {version}: "
                "update pool-server or restore an older backup"
            )
        return
    for step in range(found, version):
        if step not in migrations:
            raise StoreVersionError(f"no migration leads from format {step} of the store in {engine.folder}")
    for step in range(found, version):
        _step(engine, migrations[step], step + 1, min(step + 1, usable_from))
    if found == version and usable < usable_from:
        engine.run(lambda txn: _stamp(txn, version, usable_from))


def _step(engine: Engine, step: Callable[[Txn], None], version: int, usable_from: int) -> None:
    def apply(txn: Txn) -> None:
        step(txn)
        _stamp(txn, version, usable_from)

    engine.run(apply)


def _stamp(txn: Txn, version: int, usable_from: int) -> None:
    txn.put(META, _VERSION, str(version).encode())
    if usable_from == version:
        txn.delete(META, _USABLE_FROM)
    else:
        txn.put(META, _USABLE_FROM, str(usable_from).encode())


def _number(raw: bytes, folder: Path) -> int:
    try:
        return int(raw)
    except ValueError:
        raise StoreError(f"the store in {folder} has an unreadable format number") from None


def _move_aside(folder: Path) -> Path:
    """Rename the engine's files, so that a fresh store can start beside them."""
    aside = folder / f"damaged-{int(time.time())}"
    aside.mkdir(exist_ok=True, mode=0o700)
    for name in ("data.mdb", "lock.mdb"):
        if (folder / name).exists():
            os.replace(folder / name, aside / name)
    return aside
