"""The secret that every node signs keys and sessions with: sealed in the database, or the same in each node's settings.

In the database it is readable with a key of `POOL_STORE_KEY` alone, and comes to each node with the news of people. A
mark made of the secret tells nodes apart that were given different ones, before either serves anybody.
"""

from __future__ import annotations

import secrets

import msgspec

from pool_server.accounts.credentials.sealing import SealKeys
from pool_server.cluster.people.database_people import keep_trail
from pool_server.core.settings import ConfigError, Settings
from pool_server.storage import Store
from pool_server.storage.postgres.connection import Connection, DatabasePool
from pool_server.users.identity.tokens import KeptSecret, Signer, rotated
from pool_server.users.ports import SecretPort, Trail
from pool_server.users.replica import SECRET, keep_secret, shared_secret

_MARK = "signing mark"
_PURPOSE = b"pool-server signing secret"
_MAKE = "select pool.secret_make_1($1, $2)"
_PUT = "select pool.secret_put_1($1, $2, $3, $4)"


class SharedSecret(SecretPort):
    """One node's. `sealed` is what the database had at the start."""

    def __init__(self, pool: DatabasePool, keys: SealKeys, sealed: bytes) -> None:
        self._pool = pool
        self._keys = keys
        self._sealed = sealed
        self._store: Store | None = None

    def follow(self, store: Store) -> None:
        """From now on what news have brought into this machine's store counts. Raises StoreError."""
        self._store = store
        keep_secret(store, self._sealed)

    def accepted(self) -> tuple[str, list[tuple[str, float]]]:
        kept = self.kept()
        return kept.current, kept.previous

    def kept(self) -> KeptSecret:
        """As it came here last. Raises SealError, StoreError."""
        if self._store is not None:
            self._sealed = shared_secret(self._store) or self._sealed
        return opened(self._keys, self._sealed)

    async def rotate(self, now: float, trail: Trail) -> None:
        before, had = self.kept(), self._sealed
        kept = rotated(before, now)
        sealed = seal(self._keys, kept)
        async with self._pool.connection() as connection, connection.transaction():
            seq = await connection.value("select pool.people_begin_1()")
            if await connection.value(_PUT, seq, SECRET, had, sealed):  # else another node was first
                await connection.value(_PUT, seq, _MARK, mark_of(before.current), mark_of(kept.current))
                await keep_trail(connection, trail)


def mark_of(secret: str) -> bytes:
    """Tells two secrets apart, and nothing of either."""
    return Signer(secret).fingerprint("nodes of one pool").encode()


def seal(keys: SealKeys, kept: KeptSecret) -> bytes:
    return msgspec.json.encode(keys.seal(msgspec.json.encode(kept), _PURPOSE))


def opened(keys: SealKeys, sealed: bytes) -> KeptSecret:
    """Raises SealError where no key opens it."""
    return msgspec.json.decode(keys.open(msgspec.json.decode(sealed), _PURPOSE), type=KeptSecret)


async def take_over(connection: Connection, keys: SealKeys, kept: KeptSecret) -> bool:
    """Moves the secret of one machine there, so that the keys it has signed go on; False where the pool signs with
    another one by now. Raises SealError, StoreError."""
    sealed = await connection.value(_MAKE, SECRET, seal(keys, kept))
    current = opened(keys, sealed).current
    await connection.value(_MAKE, _MARK, mark_of(current))
    return current == kept.current


async def agree(pool: DatabasePool, keys: SealKeys, settings: Settings) -> SharedSecret | None:
    """The secret of the pool, made by the first node that asks; None where each node's settings hold it. Raises
    ConfigError for another one than the other nodes have, SealError, StoreError."""
    given, shared = settings.pool_users, None
    if given.jwt_secret:
        current, before = given.jwt_secret, [given.jwt_secret_previous] if given.jwt_secret_previous else []
    else:
        made = seal(keys, KeptSecret(secrets.token_urlsafe(48)))
        shared = SharedSecret(pool, keys, await pool.value(_MAKE, SECRET, made))
        kept = shared.kept()
        current, before = kept.current, [secret for secret, _ in kept.previous]
    mark = mark_of(current)
    there = await pool.value(_MAKE, _MARK, mark)
    if there != mark:
        if there not in map(mark_of, before):
            raise ConfigError(
                "the other machines of this pool sign keys with another secret: give this one the same POOL_JWT_SECRET"
                " (while it is changed, with theirs as pool_users.jwt_secret_previous), or POOL_STORE_KEY where they"
                " have that alone"
            )
        async with pool.connection() as connection, connection.transaction():
            seq = await connection.value("select pool.people_begin_1()")
            await connection.value(_PUT, seq, _MARK, there, mark)
    return shared
