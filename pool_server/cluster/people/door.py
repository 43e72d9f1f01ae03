"""`DoorPort` over PostgreSQL: what the door keeps for a while is the same for every node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from pool_server.cluster.people.database_people import keep_trail
from pool_server.storage.postgres.connection import DatabasePool
from pool_server.users.models import Session, Ticket, Tries, decode_session, decode_ticket, encode
from pool_server.users.ports import DoorPort, Trail

T = TypeVar("T")
_decode_tries = msgspec.msgpack.Decoder(Tries).decode


class DatabaseDoor(DoorPort):
    """Marks and keys are hashes; nothing here lets anybody in."""

    instant = False

    def __init__(self, pool: DatabasePool) -> None:
        self._pool = pool

    async def tries(self, keys: Sequence[bytes], change: Callable[[list[Tries]], T]) -> T:
        async with self._pool.connection() as connection, connection.transaction():
            rows = await connection.rows("select * from pool.throttle_lock_1($1)", list(keys))
            found = {row["mark"]: _tries(row["body"]) for row in rows}
            several = [found[key] for key in keys]
            result = change(several)
            for key, one in zip(keys, several, strict=True):
                body = b"" if one == Tries() else encode(one)
                await connection.value("select pool.throttle_put_1($1, $2)", key, body)
        return result

    async def read_tries(self, keys: Sequence[bytes]) -> list[Tries]:
        rows = await self._pool.rows("select * from pool.throttle_read_1($1)", list(keys))
        found = {row["mark"]: row["body"] for row in rows}
        return [_tries(found.get(key, b"")) for key in keys]

    async def session_open(self, mark: bytes, session: Session, trail: Trail) -> None:
        async with self._pool.connection() as connection, connection.transaction():
            await connection.value("select pool.session_put_1($1, $2, $3)", mark, session.expires, encode(session))
            await keep_trail(connection, trail)

    async def session(self, mark: bytes) -> Session | None:
        raw = await self._pool.value("select pool.session_read_1($1)", mark)
        return decode_session(raw) if raw is not None else None

    async def session_end(self, mark: bytes, trail: Trail) -> None:
        async with self._pool.connection() as connection, connection.transaction():
            if await connection.value("select pool.session_end_1($1)", mark):
                await keep_trail(connection, trail)

    async def ticket_make(self, mark: bytes, ticket: Ticket) -> None:
        await self._pool.value("select pool.ticket_put_1($1, $2, $3)", mark, ticket.expires, encode(ticket))

    async def ticket_take(self, mark: bytes) -> Ticket | None:
        raw = await self._pool.value("select pool.ticket_take_1($1)", mark)
        return decode_ticket(raw) if raw is not None else None

    async def ticket_drop(self, mark: bytes) -> None:
        await self.ticket_take(mark)

    async def once(self, mark: bytes, now: float, until: float) -> bool:
        return bool(await self._pool.value("select pool.once_1($1, $2, $3)", mark, now, until))

    async def sweep(self, now: float) -> None:
        """Drops sessions, tickets and marks that have run out. Raises StoreError."""
        await self._pool.value("select pool.door_sweep_1($1)", now)


def _tries(body: bytes) -> Tries:
    return _decode_tries(body) if body else Tries()
