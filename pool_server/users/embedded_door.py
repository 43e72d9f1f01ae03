"""`DoorPort` over the embedded stores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from pool_server.storage import Reader, Store, Txn
from pool_server.users.changes import keep_trail
from pool_server.users.models import (
    SESSIONS,
    THROTTLE,
    TICKETS,
    Session,
    Ticket,
    Tries,
    decode_session,
    decode_ticket,
    encode,
)
from pool_server.users.ports import DoorPort, Trail

T = TypeVar("T")
_NOTHING = Tries()
_encode = msgspec.msgpack.Encoder().encode
_decode_tries = msgspec.msgpack.Decoder(Tries).decode


class EmbeddedDoor(DoorPort):
    """Sessions last; tries and tickets are in the store that may start empty."""

    instant = True

    def __init__(self, store: Store, state: Store) -> None:
        self._store = store
        self._state = state

    async def tries(self, keys: Sequence[bytes], change: Callable[[list[Tries]], T]) -> T:
        def alter(txn: Txn) -> T:
            records = _read(txn, keys)
            result = change(records)
            for key, record in zip(keys, records, strict=True):
                if record == _NOTHING:
                    txn.delete(THROTTLE, key)
                else:
                    txn.put(THROTTLE, key, _encode(record))
            return result

        return self._state.write(alter)

    async def read_tries(self, keys: Sequence[bytes]) -> list[Tries]:
        return _read(self._state, keys)

    async def session_open(self, mark: bytes, session: Session, trail: Trail) -> None:
        def keep(txn: Txn) -> None:
            txn.put(SESSIONS, mark, encode(session))
            keep_trail(txn, trail.audit, trail.changes)

        await self._store.submit(keep)

    async def session(self, mark: bytes) -> Session | None:
        raw = self._store.get(SESSIONS, mark)
        return decode_session(raw) if raw is not None else None

    async def session_end(self, mark: bytes, trail: Trail) -> None:
        def drop(txn: Txn) -> None:
            if txn.delete(SESSIONS, mark):
                keep_trail(txn, trail.audit, trail.changes)

        await self._store.submit(drop)

    async def ticket_make(self, mark: bytes, ticket: Ticket) -> None:
        self._state.write(lambda txn: txn.put(TICKETS, mark, encode(ticket)))

    async def ticket_take(self, mark: bytes) -> Ticket | None:
        def take(txn: Txn) -> bytes | None:
            raw = txn.get(TICKETS, mark)
            txn.delete(TICKETS, mark)
            return raw

        raw = self._state.write(take)
        return decode_ticket(raw) if raw is not None else None

    async def ticket_drop(self, mark: bytes) -> None:
        self._state.write(lambda txn: txn.delete(TICKETS, mark))

    async def once(self, mark: bytes, now: float, until: float) -> bool:
        def note(txn: Txn) -> bool:
            raw = txn.get(TICKETS, mark)
            if raw is not None and decode_ticket(raw).expires > now:
                return False
            txn.put(TICKETS, mark, encode(Ticket("", until)))
            return True

        return self._state.write(note)


def _read(reader: Reader | Store, keys: Sequence[bytes]) -> list[Tries]:
    found = (reader.get(THROTTLE, key) for key in keys)
    return [_decode_tries(raw) if raw is not None else Tries() for raw in found]
