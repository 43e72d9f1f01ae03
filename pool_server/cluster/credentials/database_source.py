"""`CredentialSource` over PostgreSQL: the table is the truth, memory has what is known of it, the pool folder is where
files are taken from.

What is read is memory. What is written is compared with the row as it is at that moment, and made again where somebody
else wrote in between. The methods that wait are for other threads than the event loop's.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from pool_server.accounts.credentials import files
from pool_server.accounts.credentials.look import token_of
from pool_server.accounts.credentials.removal import KEPT_S, RemovedFile
from pool_server.accounts.credentials.scan import ROOT, CredentialFile, FolderId, RejectedFile, Scan, identify
from pool_server.accounts.credentials.sealing import SealError
from pool_server.accounts.credentials.source import Check, CredentialSource, Signature
from pool_server.cluster.credentials.inbox import Inbox
from pool_server.cluster.credentials.sealed_rows import CredentialNews, DatabaseCredentials, StoredCredential, whole
from pool_server.language import lazy
from pool_server.providers import CredentialRejectedError
from pool_server.providers.json_fields import merge_into
from pool_server.storage.errors import StoreError

log = logging.getLogger(__name__)

T = TypeVar("T")


class DatabaseSource(CredentialSource):
    """The credentials of one process of a pool of several machines. `start` comes before anything else."""

    shares_escrow = False

    def __init__(self, folder: Path, rows: DatabaseCredentials, clock: Callable[[], float]) -> None:
        self.folder = folder
        self.inbox = Inbox(folder, self, clock)
        self._rows = rows
        self._clock = clock
        self._known: dict[str, StoredCredential] = {}
        self._closed: set[str] = set()  # rows no key opens, as when another node seals with a newer one
        self._upto = 0
        self._away = False
        self._rejected: list[RejectedFile] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        try:
            self._take(whole(await self._rows.news(0)))
        except SealError as wrong:
            raise StoreError(str(wrong)) from None  # never half a pool
        self._rejected = await self.inbox.take()

    # -- following

    async def news(self) -> list[str]:
        try:
            news = await self._rows.news(self._upto)
        except StoreError as exc:
            if not self._away:
                log.warning("what others changed of credentials is not seen until the database answers: %s", exc)
            self._away = True
            return []
        self._away = False
        return self._take(news)

    async def gather(self) -> None:
        await self.news()
        try:
            self._rejected = await self.inbox.take()
        except StoreError as exc:
            log.warning("files of %s/ are taken in once the database answers: %s", self.folder, exc)

    async def renew(self, account_id: str) -> None:
        await self.fetch(account_id)

    async def fetch(self, account_id: str) -> StoredCredential | None:
        """The row as it is now. Raises SealError and StoreError."""
        row = await self._rows.get(account_id)
        if row is not None:
            self._keep(row)
        return row

    def _take(self, news: CredentialNews) -> list[str]:
        """Returns the accounts of which something is new here."""
        changed = [row.account for row in news.rows if self._keep(row)]
        for account in set(news.closed) - self._closed:
            log.error("%s: no key of POOL_STORE_KEY opens its credential, it stays as it was known", account)
        self._closed |= set(news.closed)
        self._upto = max(self._upto, news.upto)
        return changed

    def _keep(self, row: StoredCredential) -> bool:
        before = self._known.get(row.account)
        if before == row or (before is not None and before.version > row.version):
            return False
        self._known[row.account] = row
        self._closed.discard(row.account)
        return True

    def own_digest(self, account_id: str) -> str:
        """The digest of the account's content where the pool itself wrote it, else ""."""
        row = self._known.get(account_id)
        return _digest(row.version) if row is not None and row.own else ""

    # -- reading

    def scan(self) -> Scan:
        there = [row.account for row in list(self._known.values()) if row.removed is None]
        unread = {_name(account): lazy("no key of POOL_STORE_KEY opens it") for account in self._closed}
        return Scan(
            [file for account in sorted(there) if (file := self._file(account)) and file.name not in unread],
            self._rejected, unread, {ROOT: FolderId(0, 0)}, frozenset(),
        )  # fmt: skip

    def taken_out(self) -> frozenset[str]:
        return frozenset()

    def exists(self, file: CredentialFile) -> bool:
        row = self._known.get(file.account)
        return row is not None and row.removed is None

    def signature(self, file: CredentialFile) -> Signature:
        return self._there(file).version, 0, 0

    def read(self, file: CredentialFile) -> tuple[dict[str, Any], str]:
        row = self._there(file)
        return _data(row), _digest(row.version)

    def _there(self, file: CredentialFile) -> StoredCredential:
        row = self._known.get(file.account)
        if row is None or row.removed is not None:
            raise files.UnreadFileError(lazy("is not in the pool any more"))
        return row

    def _file(self, account: str) -> CredentialFile | None:
        name = _name(account)
        found = identify(self.folder / name, name, None)
        return found if isinstance(found, CredentialFile) and found.account == account else None

    # -- writing

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Blocks a thread until the event loop has done it. Raises OSError where the database does not answer."""
        if self._loop is None:
            work.close()
            raise OSError(errno.EAGAIN, "the database was not asked yet")
        try:
            return asyncio.run_coroutine_threadsafe(work, self._loop).result()
        except StoreError as exc:
            raise OSError(errno.EAGAIN, str(exc)) from None

    def write_back(self, file: CredentialFile, updates: dict[str, Any], check: Check | None = None) -> str:
        def make(data: dict[str, Any]) -> None:
            if check is not None:
                check(data)
            merge_into(data, updates)

        return self._wait(self._change(file, make, own=True))

    def replace(self, file: CredentialFile, data: dict[str, Any]) -> None:
        def make(there: dict[str, Any]) -> None:
            there.clear()
            there.update(data)

        self._wait(self._change(file, make, own=False))

    async def _change(self, file: CredentialFile, make: Callable[[dict[str, Any]], None], *, own: bool) -> str:
        while True:
            row = await self.fetch(file.account)
            if row is None or row.removed is not None:
                raise files.UnreadFileError(lazy("is not in the pool any more"))
            data = _data(row)
            make(data)
            if (version := await self.put(row, file, _content(data), own=own)) is not None:
                return _digest(version)

    def create(self, file: CredentialFile, data: dict[str, Any]) -> None:
        self._wait(self._create(file, _content(data)))

    async def _create(self, file: CredentialFile, secret: bytes) -> None:
        while True:
            row = await self.fetch(file.account)
            if row is not None and row.removed is None:
                raise FileExistsError(errno.EEXIST, file.name)
            if await self.put(row, file, secret, anew=True) is not None:
                return

    async def put(
        self,
        row: StoredCredential | None,
        file: CredentialFile,
        secret: bytes,
        *,
        own: bool = False,
        digest: str | None = None,
        anew: bool = False,
    ) -> int | None:
        """The new version of what was made from `row` (None: it was never there); None when somebody was faster. Raises
        StoreError."""
        before, provider = 0 if row is None else row.version, file.provider.value
        version = await self._rows.put(file.account, provider, before, secret, own=own, digest=digest, anew=anew)
        if version is not None:
            kept = digest if digest is not None else "" if row is None else row.digest
            self._keep(StoredCredential(file.account, provider, version, secret, own, kept))
        return version

    def take_back(self, file: CredentialFile) -> None:
        self.withdraw(file, self._clock())

    def hold(self, file: CredentialFile) -> int | None:
        raise OSError(errno.ENOTSUP, "the database does not answer")  # a lease alone keeps other machines from it

    def remove(self, file: CredentialFile, now: float) -> None:
        self._wait(self._remove(file.account, now, wipe=False))

    def withdraw(self, file: CredentialFile, now: float) -> None:
        self._wait(self._remove(file.account, now, wipe=True))

    async def _remove(self, account: str, now: float, *, wipe: bool) -> None:
        await self._rows.remove(account, now, wipe=wipe)
        await self.fetch(account)

    def restore(self, account_id: str) -> None:
        self._wait(self._restore(account_id))

    async def _restore(self, account_id: str) -> None:
        row = await self.fetch(account_id)
        if row is not None and row.removed is None:
            raise FileExistsError(errno.EEXIST, account_id)
        if not await self._rows.restore(account_id):
            raise KeyError(account_id)
        await self.fetch(account_id)

    def removed(self) -> list[RemovedFile]:
        found = [
            RemovedFile(row.account, file.name, row.removed, file.path, not row.secret)
            for row in list(self._known.values())
            if row.removed is not None and (file := self._file(row.account)) is not None
        ]
        return sorted(found, key=lambda one: (-one.at, one.name))

    def withdrawn(self, file: CredentialFile) -> bool:
        row = self._known.get(file.account)
        return row is not None and row.removed is not None and not row.secret

    def recover(self, now: float) -> Mapping[str, float]:
        return {}

    def rescue(self, file: CredentialFile, now: float) -> None:
        self._wait(self.fetch(file.account))

    def sweep(self, now: float) -> None:
        self._sweeping = asyncio.get_running_loop().create_task(self._sweep(now))  # held: a task nobody holds may go

    async def _sweep(self, now: float) -> None:
        try:
            await self._rows.sweep(now - KEPT_S)
        except StoreError as exc:
            log.warning("removed accounts are forgotten later: %s", exc)

    def unwritable(self) -> str:
        return ""

    def tokens(self, now: float) -> dict[str, str]:
        """Whose a sign-in is, by what it is refreshed with."""
        found: dict[str, str] = {}
        for file in self.scan().found:
            with suppress(CredentialRejectedError):
                token = token_of(files.parse(self.read(file)[0], file, now=now))
                found[token] = file.account
        found.pop("", None)
        return found


def _name(account: str) -> str:
    provider, _, stem = account.partition(":")
    return f"{provider}_{stem}.json"


def _digest(version: int) -> str:
    return f"v{version}"


def _content(data: dict[str, Any]) -> bytes:
    raw = json.dumps(data, ensure_ascii=False).encode()
    if len(raw) > files.MAX_BYTES:
        raise CredentialRejectedError(lazy("larger than 1 MiB"))
    return raw


def _data(row: StoredCredential) -> dict[str, Any]:
    """Raises BrokenFileError."""
    try:
        data = msgspec.json.decode(row.secret)
    except (msgspec.DecodeError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise files.BrokenFileError(lazy("not a JSON object"))
    return data
