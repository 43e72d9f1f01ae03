"""What the pool has to write into credential files, and does not give up when it cannot.

While a file cannot be written (a full disk, a permission) its new token serves from memory, the escrow has it for the
next start, and the write is tried again until it succeeds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from pool_server.accounts.credentials.store import CredentialStore, ReplacedError
from pool_server.core.tasks import Timers
from pool_server.providers import Credential, CredentialRejectedError

log = logging.getLogger(__name__)

_Write = Callable[[str, dict[str, Any], Credential], str]

FIRST_S = 1.0  # the first wait, doubled with each failure …
LONGEST_S = 60.0  # … up to this


class CredentialWriter:
    """Writes owned fields of one worker's accounts. Times are those of `clock` (unix seconds).

    `reread` takes an account's file in as it is now, `note_own_file` tells other workers the digest of one that
    this worker wrote, `written` hears of an account that was owed something and is owed nothing any more.
    """

    def __init__(
        self,
        credentials: CredentialStore,
        *,
        reread: Callable[[str], None],
        note_own_file: Callable[[str, str], None],
        written: Callable[[str], Awaitable[None]],
        clock: Callable[[], float],
    ) -> None:
        self._credentials = credentials
        self._reread, self._note_own_file = reread, note_own_file
        self._clock = clock
        self._written = written
        self._tries: dict[str, int] = {}
        self._timers = Timers(self.timed, clock=clock, at_once=1)
        self.start = self._timers.start
        self.due = self._timers.due

    async def write(self, account_id: str, updates: dict[str, Any], stale: Credential) -> str:
        """Write `updates` (nested as in the file) while the file has the token of `stale`; returns the digest of the
        file as it is now, written or not. Raises KeyError for an account that is gone, and ReplacedError."""
        return await self._write(self._credentials.write, account_id, updates, stale)

    async def rotate(self, account_id: str, updates: dict[str, Any], spent: Credential) -> str:
        """The same for what a token endpoint gave for `spent`, which is made durable in the escrow first."""
        return await self._write(self._credentials.rotate, account_id, updates, spent)

    async def _write(self, write: _Write, account_id: str, updates: dict[str, Any], stale: Credential) -> str:
        credentials = self._credentials
        digest = credentials.items[account_id].digest
        try:
            return await asyncio.to_thread(write, account_id, updates, stale)
        except (OSError, CredentialRejectedError) as exc:
            if account_id not in credentials.owed:
                log.error("%s: its file could not be written, it serves from memory until it can: %s", account_id, exc)
            credentials.owe(account_id, updates, stale)
            self.plan(account_id)
            return digest

    def plan(self, account_id: str) -> None:
        """See to it that what an account's file is owed is tried again."""
        credentials, timers = self._credentials, self._timers
        if account_id not in credentials.items or account_id not in credentials.owed:
            return
        if timers.due(account_id) is None and not timers.running(account_id):
            timers.set(account_id, self._again(account_id))

    def _again(self, account_id: str) -> float:
        tries = self._tries[account_id] = self._tries.get(account_id, 0) + 1
        return self._clock() + min(LONGEST_S, FIRST_S * 2.0 ** min(tries - 1, 10))

    async def timed(self, account_id: str) -> float | None:
        """Try again; returns when to try the next time, None when nothing is owed any more."""
        if await self._pay(account_id) is None:
            self._tries.pop(account_id, None)
            await self._written(account_id)
            return None
        return self._again(account_id)

    async def _pay(self, account_id: str) -> Exception | None:
        """Write what the account's file is owed; what went wrong, None when nothing is to be done (now)."""
        credentials = self._credentials
        self._reread(account_id)  # somebody may have signed in anew: then nothing is owed
        if account_id not in credentials.items or account_id not in credentials.owed:
            return None
        try:
            digest = await asyncio.to_thread(credentials.write, account_id, {})
        except ReplacedError:
            credentials.forget_owed(account_id)
            self._reread(account_id)
            return None
        except (OSError, CredentialRejectedError, KeyError) as exc:
            return exc
        item = credentials.items.get(account_id)
        if item is not None:
            digest = credentials.adopt(account_id, item.credential, digest, self._clock())
            self._note_own_file(account_id, digest)
        log.info("%s: its file could be written again", account_id)
        return None

    async def close(self) -> None:
        """Stop, after one more try."""
        await self._timers.close()
        for account_id in list(self._credentials.owed):
            failure = await self._pay(account_id)
            if failure is not None:
                log.error("%s: its file could not be written (%s); the next start has the new token from %s",
                          account_id, failure, self._credentials.escrow.folder)  # fmt: skip
            else:
                await self._written(account_id)
