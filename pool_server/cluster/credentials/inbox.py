"""The pool folder of a machine among several: what is put there is taken into the database, and the file set aside."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Protocol

import msgspec

from pool_server.accounts.credentials import files
from pool_server.accounts.credentials.look import token_of
from pool_server.accounts.credentials.scan import CredentialFile, RejectedFile, scan, shown
from pool_server.cluster.credentials.sealed_rows import StoredCredential
from pool_server.core.disk import sync_folder, try_hold
from pool_server.language import lazy_of
from pool_server.providers import Credential, CredentialRejectedError

log = logging.getLogger(__name__)

IMPORTED = ".imported"  # is appended to the name of a file that was taken in


class Receiver(Protocol):
    """Who has the credentials. All raise StoreError."""

    async def fetch(self, account_id: str) -> StoredCredential | None:
        """One as it is now."""

    async def put(
        self, row: StoredCredential | None, file: CredentialFile, secret: bytes, *, digest: str | None, anew: bool
    ) -> int | None:
        """The new version of what was made from `row`; None when somebody was faster."""

    def tokens(self, now: float) -> dict[str, str]:
        """Whose a sign-in is, by what it is refreshed with."""


class Inbox:
    """A file of another content is a new sign-in. `look_up` and `spent_by` tell of tokens that were traded, by
    whichever node: an old copy of a file must not show them again."""

    def __init__(self, folder: Path, source: Receiver, clock: Callable[[], float]) -> None:
        self._folder = folder
        self._source = source
        self._clock = clock
        self._turn = asyncio.Lock()
        self.look_up: Callable[[Iterable[Credential]], Awaitable[None]] | None = None
        self.spent_by: Callable[[Credential], str] = lambda _: ""

    async def take(self) -> list[RejectedFile]:
        """Take in what is there; returns what cannot be, with the reasons. Raises StoreError."""
        async with self._turn:
            if not self._folder.is_dir():
                return []
            seen = await asyncio.to_thread(scan, self._folder)
            rejected = [*seen.rejected, *(RejectedFile(shown(name), lazy_of(why)) for name, why in seen.unread.items())]
            holders = await asyncio.to_thread(self._source.tokens, self._clock()) if seen.found else {}
            told = {file.name: await self._take(file, holders) for file in seen.found}
            return rejected + [RejectedFile(name, lazy_of(reason)) for name, reason in told.items() if reason]

    async def _take(self, file: CredentialFile, holders: dict[str, str]) -> str:
        """Why a file was not taken in; "" when it was, or another process does. `holders`: whose a token is."""
        try:
            held = await asyncio.to_thread(try_hold, file.path)
        except OSError:
            return ""  # it went away meanwhile, or is looked at again
        if held is None:
            return ""
        try:
            if not _same(held, file.path):
                return ""
            data, digest = await asyncio.to_thread(files.read, file.path)
            files.options(data)
            credential = files.parse(data, file, now=self._clock())
            row = await self._source.fetch(file.account)
            known = row is not None and row.removed is None and row.digest == digest
            if not known:
                token = token_of(credential)
                if reason := await self._old(file.account, credential, holders.get(token, "")):
                    return reason
                if await self._source.put(row, file, msgspec.json.encode(data), digest=digest, anew=True) is None:
                    return ""  # somebody else wrote at this moment: it is looked at again
                log.info("%s was taken in from %s", file.account, self._folder)
                holders |= {token: file.account} if token else {}
            await asyncio.to_thread(_set_aside, file.path)
        except CredentialRejectedError as wrong:
            return str(wrong)
        finally:
            os.close(held)
        return ""

    async def _old(self, account: str, credential: Credential, holder: str) -> str:
        """Why a sign-in is none that may be used; "" when it may."""
        if holder not in ("", account):
            return f"the same sign-in as {holder}"
        if self.look_up is not None:
            await self.look_up([credential])
        spender = self.spent_by(credential)
        return f"an old copy: its sign-in was renewed since, as {spender}" if spender else ""


def _same(descriptor: int, path: Path) -> bool:
    """Whether the name still leads to the file that is held."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except OSError:
        return False


def _set_aside(path: Path) -> None:
    try:
        os.replace(path, path.with_name(path.name + IMPORTED))
        sync_folder(path.parent)
    except OSError as exc:
        log.warning("%s was taken in and cannot be renamed: %s", path.name, exc.strerror)
