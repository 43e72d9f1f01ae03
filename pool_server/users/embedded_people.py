"""`PeoplePort` over the embedded store."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

from pool_server.core.enums import Denial
from pool_server.language import gettext as _
from pool_server.storage import Reader, Store, Txn
from pool_server.users.changes import audit_page, keep_trail
from pool_server.users.models import (
    ADMIN_TOKENS,
    ALIASES,
    CHOICES,
    CODES,
    KEYS,
    META,
    NAMES,
    PEOPLE,
    USER_KEYS,
    AdminToken,
    AuditRow,
    Code,
    Key,
    NewPerson,
    RefusedError,
    User,
    bad_value,
    decode_code,
    decode_key,
    decode_user,
    encode,
    id_key,
    not_found,
    user_key_index,
)
from pool_server.users.ports import Arrival, PeoplePort, Person, Trail
from pool_server.users.user_names import skeleton

T = TypeVar("T")
_NEW_PEOPLE = b"new people"
_encode_new = msgspec.msgpack.Encoder().encode
_decode_new = msgspec.msgpack.Decoder(list[NewPerson]).decode


class EmbeddedPeople(PeoplePort):
    """Each change is one durable transaction."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def create(self, person: Person, trail: Trail, arrival: Arrival) -> None:
        user = person.user

        def make(txn: Txn) -> None:
            _take_name(txn, user)
            if arrival.code:
                _spend(txn, arrival.code, user)
            if arrival.counted is not None:
                raw = txn.get(META, _NEW_PEOPLE)
                txn.put(META, _NEW_PEOPLE, _encode_new(arrival.counted(_decode_new(raw) if raw is not None else [])))
            if arrival.identity:
                txn.put(META, _identity(arrival.identity), user.id.encode())
            txn.put(PEOPLE, user.id.encode(), encode(user))
            for key in person.keys:
                put_key(txn, key)
            keep_trail(txn, trail.audit, trail.changes)

        await self._store.submit(make)

    async def change(self, user_id: str, change: Callable[[Person], Trail]) -> Person:
        def alter(txn: Txn) -> Person:
            person = Person(_living(txn, user_id), keys_of(txn, user_id))
            name, user = person.user.name, encode(person.user)
            keys = {key.id: (key, encode(key)) for key in person.keys}
            trail = change(person)
            if person.user.name != name or person.user.deleted is not None:
                _rename(txn, person.user, name)
            if (after := encode(person.user)) != user:
                txn.put(PEOPLE, person.user.id.encode(), after)
            for key in person.keys:
                before = keys.pop(key.id, None)
                if before is None or before[1] != encode(key):
                    put_key(txn, key)
            for key, _raw in keys.values():
                drop_key(txn, key)
            keep_trail(txn, trail.audit, trail.changes)
            return person

        return await self._store.submit(alter)

    async def link(self, identity: bytes, user_id: str) -> None:
        await self._store.submit(lambda txn: txn.put(META, _identity(identity), user_id.encode()))

    async def linked(self, identity: bytes) -> str | None:
        raw = self._store.get(META, _identity(identity))
        return raw.decode() if raw is not None else None

    async def code_make(self, code: Code, trail: Trail) -> None:
        def make(txn: Txn) -> None:
            if not txn.put_new(CODES, code.prefix.encode(), encode(code)):
                raise RefusedError(Denial.BAD_VALUE, _("this code exists by chance; make another"), 409)
            keep_trail(txn, trail.audit, trail.changes)

        await self._store.submit(make)

    async def code_change(self, prefix: str, change: Callable[[Code], T]) -> T | None:
        def alter(txn: Txn) -> T | None:
            raw = txn.get(CODES, id_key(prefix))
            if raw is None:
                return None
            code = decode_code(raw)
            result = change(code)
            txn.put(CODES, id_key(prefix), encode(code))
            return result

        return await self._store.submit(alter)

    async def code_end(self, prefix: str, trail: Trail) -> None:
        await self._end(CODES, prefix, "code", trail)

    async def token_make(self, token: AdminToken, most: int, trail: Trail) -> None:
        def make(txn: Txn) -> None:
            if sum(1 for _token in txn.scan(ADMIN_TOKENS)) >= most:
                raise bad_value(_("there are {most} tokens: revoke one that is not used", most=most))
            txn.put(ADMIN_TOKENS, token.id.encode(), encode(token))
            keep_trail(txn, trail.audit, trail.changes)

        await self._store.submit(make)

    async def token_end(self, token_id: str, trail: Trail) -> None:
        await self._end(ADMIN_TOKENS, token_id, "token", trail)

    async def _end(self, table: str, ident: str, what: str, trail: Trail) -> None:
        def drop(txn: Txn) -> None:
            if not txn.delete(table, id_key(ident)):
                raise not_found(what)
            keep_trail(txn, trail.audit, trail.changes)

        await self._store.submit(drop)

    async def choose(self, user_id: str, kind: str, value: bytes | None, trail: Trail, *, anew: bool = True) -> None:
        def keep(txn: Txn) -> None:
            if anew or value is None or txn.get(CHOICES[kind], id_key(user_id)) is None:
                put_choice(txn, user_id, kind, value)
            keep_trail(txn, trail.audit, trail.changes)

        await self._store.submit(keep)

    async def tell(self, trail: Trail) -> None:
        await self._store.submit(lambda txn: keep_trail(txn, trail.audit, trail.changes))

    async def audit_page(
        self, before: int | None, limit: int, *, actor: str, action: str, target: str
    ) -> tuple[list[AuditRow], int | None]:
        return audit_page(self._store, before, limit, actor=actor, action=action, target=target)

    async def catch_up(self) -> None:
        """The store read here is the store written to."""


def keys_of(txn: Reader, user_id: str) -> list[Key]:
    """The keys of a user, by the index of them."""
    prefix = user_key_index(user_id)
    index = txn.scan(USER_KEYS, prefix, prefix[:-1] + b"\1")
    found = [txn.get(KEYS, id_key(entry[len(prefix) :].decode())) for entry, _raw in index]
    return [decode_key(raw) for raw in found if raw is not None]


def put_key(txn: Txn, key: Key) -> None:
    txn.put(KEYS, key.id.encode(), encode(key))
    txn.put(USER_KEYS, user_key_index(key.user, key.id), b"")


def drop_key(txn: Txn, key: Key) -> None:
    for mark in key.aliases:
        txn.delete(ALIASES, mark)
    txn.delete(KEYS, key.id.encode())
    txn.delete(USER_KEYS, user_key_index(key.user, key.id))


def _living(txn: Reader, user_id: str) -> User:
    raw = txn.get(PEOPLE, id_key(user_id))
    user = decode_user(raw) if raw is not None else None
    if user is None or user.deleted is not None:
        raise not_found("user")
    return user


def _take_name(txn: Txn, user: User) -> None:
    if not txn.put_new(NAMES, skeleton(user.name).encode(), user.id.encode()):
        raise RefusedError(Denial.NAME_TAKEN, _("this name, or one that looks like it, is taken"), 409)


def _rename(txn: Txn, user: User, name: str) -> None:
    if user.deleted is None and skeleton(user.name) == skeleton(name):
        return
    if user.deleted is None:
        _take_name(txn, user)
    txn.delete(NAMES, skeleton(name).encode())


def _spend(txn: Txn, prefix: str, user: User) -> None:
    raw = txn.get(CODES, prefix.encode())
    code = decode_code(raw) if raw is not None else Code(prefix, "", 0.0, 0)
    code.spend(user.id)
    txn.put(CODES, prefix.encode(), encode(code))


def _identity(mark: bytes) -> bytes:
    return b"identity " + mark


def put_choice(txn: Txn, user_id: str, kind: str, value: bytes | None) -> None:
    """What somebody decided for themselves, None = no more."""
    if value is None:
        txn.delete(CHOICES[kind], id_key(user_id))
    else:
        txn.put(CHOICES[kind], id_key(user_id), value)
