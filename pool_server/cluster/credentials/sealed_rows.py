"""Credentials in PostgreSQL, sealed with keys that the nodes' environment alone holds. What is sealed names its account
and version, so that rows cannot be exchanged for each other, or for older ones, in the database.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from pool_server.accounts.credentials.sealing import SealError, SealKeys, key_name
from pool_server.language import lazy_of
from pool_server.storage.postgres.connection import DatabasePool, ResultRow


class StoredCredential(NamedTuple):
    """A credential as the database has it, opened. `own`: the pool wrote it, nobody signed in; `digest`: of the file it
    came from; `removed`: when it was taken out of the pool (unix seconds), and without a `secret` for good."""

    account: str
    provider: str
    version: int
    secret: bytes
    own: bool = False
    digest: str = ""
    removed: float | None = None

    def __repr__(self) -> str:
        return f"StoredCredential({self.account!r}, version {self.version})"


class CredentialNews(NamedTuple):
    """What was written after a moment, up to `upto`; `closed` are the accounts whose rows no key opens."""

    upto: int
    rows: list[StoredCredential]
    closed: list[str]


class DatabaseCredentials:
    """`put` compares versions, never terms of leases: whose token is the newest counts, however late it comes."""

    def __init__(self, pool: DatabasePool, keys: SealKeys) -> None:
        """Raises SealError without a key."""
        if not keys.names:
            raise SealError(
                lazy_of("credentials in a database must be sealed, and there is no key: set POOL_STORE_KEY")
            )
        self._pool = pool
        self._keys = keys

    async def news(self, since: int) -> CredentialNews:
        """What was written after the number `since`. Raises StoreError."""
        rows = await self._pool.rows("select * from pool.credentials_1($1)", since)
        opened, closed = self._open(rows)
        return CredentialNews(max((row["seq"] for row in rows), default=since), opened, closed)

    async def all(self) -> list[StoredCredential]:
        """All that are in the pool. Raises SealError, which names those that no key opens: never half a pool. Raises
        StoreError."""
        return [one for one in whole(await self.news(0)).rows if one.removed is None]

    def _open(self, rows: Sequence[ResultRow]) -> tuple[list[StoredCredential], list[str]]:
        opened, closed = [], []
        for row in rows:
            try:
                opened.append(self._opened(row))
            except SealError:
                closed.append(row["account"])
        return opened, closed

    async def get(self, account: str) -> StoredCredential | None:
        """One, as it is now, also when it was taken out. Raises SealError and StoreError."""
        rows = await self._pool.rows("select * from pool.credential_1($1)", account)
        return self._opened(rows[0]) if rows else None

    async def put(
        self,
        account: str,
        provider: str,
        from_version: int,
        secret: bytes,
        *,
        own: bool = False,
        digest: str | None = None,
        anew: bool = True,
    ) -> int | None:
        """The new version; None when somebody has written since `from_version` (0 = none was ever there), or has taken
        it out and this is not `anew`. Raises StoreError."""
        sealed = self._sealed(account, from_version + 1, secret)
        found: int | None = await self._pool.value(
            "select pool.credential_put_2($1, $2, $3, $4, $5, $6, $7)",
            account, provider, from_version, sealed, own, digest, anew,
        )  # fmt: skip
        return found

    async def remove(self, account: str, at: float, *, wipe: bool) -> bool:
        """Take one out, at unix seconds; `wipe`: nothing is left to bring back. Raises StoreError."""
        return bool(await self._pool.value("select pool.credential_remove_1($1, $2, $3)", account, at, wipe))

    async def restore(self, account: str) -> bool:
        """Bring back what was taken out; False when there is nothing. Raises StoreError."""
        return bool(await self._pool.value("select pool.credential_restore_1($1)", account))

    async def sweep(self, before: float) -> None:
        """Delete what was taken out before that moment. Raises StoreError."""
        await self._pool.value("select pool.credential_sweep_1($1)", before)

    async def reseal(self) -> int:
        """Seals with the first key what another one sealed; returns how many. Raises SealError and StoreError."""
        done = 0
        for row in await self._pool.rows("select * from pool.credentials_1(0) where sealed is not null"):
            if key_name(_object(row["sealed"])) == self._keys.names[0]:
                continue
            one = self._opened(row)
            anew = self._sealed(one.account, one.version, one.secret)
            done += await self._pool.value(
                "select pool.credential_reseal_1($1, $2, $3, $4)", one.account, one.version, row["sealed"], anew
            )
        return done

    def _sealed(self, account: str, version: int, secret: bytes) -> bytes:
        return msgspec.json.encode(self._keys.seal(secret, _purpose(account, version)))

    def _opened(self, row: ResultRow) -> StoredCredential:
        account, version, sealed = row["account"], row["version"], row["sealed"]
        secret = b"" if sealed is None else self._keys.open(_object(sealed), _purpose(account, version))
        return StoredCredential(account, row["provider"], version, secret, row["own"], row["digest"], row["removed"])


def whole(news: CredentialNews) -> CredentialNews:
    """The same. Raises SealError, which names the accounts that no key opens."""
    if news.closed:
        raise SealError(lazy_of(f"no key of POOL_STORE_KEY opens the credentials of {', '.join(news.closed)}"))
    return news


def _object(sealed: bytes) -> dict[str, Any]:
    """What was sealed, still closed; nothing of what is none."""
    try:
        found = msgspec.json.decode(sealed)
    except msgspec.DecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _purpose(account: str, version: int) -> bytes:
    return b"pool-server credential row\0" + account.encode() + b"\0" + str(version).encode()
