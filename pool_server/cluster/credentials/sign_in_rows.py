"""Sign-ins under way in PostgreSQL: begun on one machine, gone on with and ended on any other. What of them nobody may
read is sealed with keys that the nodes' environment alone holds.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from pool_server.accounts.credentials.sealing import SealError, SealKeys
from pool_server.accounts.sign_in.records import SignInStore
from pool_server.storage.postgres.connection import DatabasePool, storable

KEPT_S = 86_400.0  # after its last change; tokens that nobody took up are in it
_PURPOSE = b"pool-server sign-in "
_GET = "select version, body from pool.sign_ins_1($1)"
_PUT = "select pool.sign_in_put_1($1, $2, $3, $4)"


class DatabaseSignIns(SignInStore):
    """Rows by id. A change compares versions: whoever was later makes it again on what the other has left."""

    def __init__(self, pool: DatabasePool, keys: SealKeys) -> None:
        self._pool = pool
        self._keys = keys

    async def get(self, ident: str) -> bytes | None:
        found = await self._row(ident)
        return None if found is None else found[1]

    async def _row(self, ident: str) -> tuple[int, bytes] | None:
        if not storable(ident) or not 0 < len(ident) <= 200:
            return None
        for row in await self._pool.rows(_GET, ident):
            return row["version"], row["body"]
        return None

    async def all(self) -> list[bytes]:
        return [row["body"] for row in await self._pool.rows(_GET, None)]

    async def change(self, ident: str, work: Callable[[bytes | None], bytes | None]) -> bool:
        while True:
            found = await self._row(ident)
            version, had = found or (0, None)
            made = work(had)
            if made is None:
                return False
            if await self._pool.value(_PUT, ident, version, made, KEPT_S):
                return True

    async def drop(self, ident: str) -> None:
        await self._pool.value("select pool.sign_in_drop_1($1)", ident)

    def seal(self, ident: str, plain: bytes) -> bytes:
        return msgspec.json.encode(self._keys.seal(plain, _PURPOSE + ident.encode()))

    def opened(self, ident: str, sealed: bytes) -> bytes | None:
        try:
            return self._keys.open(msgspec.json.decode(sealed), _PURPOSE + ident.encode())
        except (SealError, msgspec.DecodeError):
            return None
