"""Credentials in PostgreSQL, sealed with keys that the nodes' environment alone holds. What is sealed names its account
and version, so that rows cannot be exchanged for each other, or for older ones, in the database.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from pool_server.accounts.credentials.sealing import SealError, SealKeys, key_name
from pool_server.storage.postgres.connection import DatabasePool, ResultRow


class StoredCredential(NamedTuple):
    """A credential as the database has it, opened. `due` and `tries` are of its refresh."""

    account: str
    provider: str
    version: int
    secret: bytes
    due: float | None
    tries: int

    def __repr__(self) -> str:
        return f"StoredCredential({self.account!r}, version {self.version})"


class DatabaseCredentials:
    """`put` compares versions, never terms of leases: whose token is the newest counts, however late it comes."""

    def __init__(self, pool: DatabasePool, keys: SealKeys) -> None:
        """Raises SealError without a key."""
        if not keys.names:
            raise SealError("credentials in a database must be sealed, and there is no key: set POOL_STORE_KEY")
        self._pool = pool
        self._keys = keys

    async def all(self) -> list[StoredCredential]:
        """All of them. Raises SealError, which names those that no key opens: never half a pool. Raises StoreError."""
        opened, closed = [], []
        for row in await self._pool.rows("select * from pool.credentials_1(0) where sealed is not null"):
            try:
                opened.append(self._opened(row))
            except SealError:
                closed.append(row["account"])
        if closed:
            raise SealError(f"no key of POOL_STORE_KEY opens the credentials of {', '.join(closed)}")
        return opened

    async def get(self, account: str) -> StoredCredential | None:
        """One, as it is now. Raises SealError and StoreError."""
        rows = await self._pool.rows("select * from pool.credential_1($1) where sealed is not null", account)
        return self._opened(rows[0]) if rows else None

    async def put(self, account: str, provider: str, from_version: int, secret: bytes) -> int | None:
        """The new version; None when somebody has written since `from_version` (0 = none is there yet). Raises
        StoreError."""
        sealed = self._sealed(account, from_version + 1, secret)
        found: int | None = await self._pool.value(
            "select pool.credential_put_1($1, $2, $3, $4)", account, provider, from_version, sealed
        )
        return found

    async def take_in(self, account: str, provider: str, secret: bytes) -> int | None:
        """A file that was put into a node's pool folder is a new sign-in, unless it says what is there already: then
        None. Raises SealError and StoreError."""
        while True:
            there = await self.get(account)
            if there is not None and there.secret == secret:
                return None
            version = await self.put(account, provider, there.version if there else 0, secret)
            if version is not None:
                return version

    async def put_off(self, stored: StoredCredential, due: float, tries: int) -> bool:
        """A refresh failed: when it is tried again, by whichever node. Raises StoreError."""
        return bool(
            await self._pool.value(
                "select pool.credential_due_1($1, $2, $3, $4)", stored.account, stored.version, due, tries
            )
        )

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
        account, version = row["account"], row["version"]
        secret = self._keys.open(_object(row["sealed"]), _purpose(account, version))
        return StoredCredential(account, row["provider"], version, secret, row["due"], row["tries"])


def _object(sealed: bytes) -> dict[str, Any]:
    """What was sealed, still closed; nothing of what is none."""
    try:
        found = msgspec.json.decode(sealed)
    except msgspec.DecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _purpose(account: str, version: int) -> bytes:
    return b"pool-server credential row\0" + account.encode() + b"\0" + str(version).encode()
