"""What this machine reads of people whose truth is kept by a store on another one.

Changes are decided there and come here as news: rows as they are now, up to a number. So reading costs microseconds,
and goes on while the other machine is away. Who came later has seen more, and an older look never undoes a newer one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

import msgspec

from pool_server.storage import Store, StoreError, Txn
from pool_server.users.changes import append_change
from pool_server.users.embedded_people import drop_key, put_choice, put_key
from pool_server.users.models import (
    ADMIN_TOKENS,
    CHOICES,
    CODES,
    KEYS,
    META,
    NAMES,
    PEOPLE,
    AdminToken,
    Key,
    User,
    UserChange,
    decode_code,
    decode_key,
    decode_user,
    encode,
    id_key,
)
from pool_server.users.ports import PeopleNews, PeoplePort
from pool_server.users.user_names import skeleton

log = logging.getLogger(__name__)

_KNOWN = b"replica"
SECRET = "signing"  # how the pool's secret is called where it is kept
_SECRET = b"replica secret"
_decode_token = msgspec.msgpack.Decoder(AdminToken).decode


class Replica:
    """People, keys, codes and admin tokens in this machine's store. `clock` gives unix seconds."""

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock

    def known(self) -> int:
        """The number up to which changes are here, 0 = none yet. Raises StoreError for a store that holds people of its
        own."""
        raw = self._store.get(META, _KNOWN)
        if raw is None and self._store.last(PEOPLE) is not None:
            raise StoreError(f"{self._store.folder} holds people of a pool of its own; give this machine an empty one")
        return int(raw or 0)

    async def apply(self, news: PeopleNews) -> None:
        """Take news in, and tell the workers of this machine. Raises StoreError."""
        now = self._clock()
        await self._store.submit(lambda txn: _apply(txn, news, now))


class Follower:
    """Takes in what other machines have changed. `taken` brings it to this worker once it is in this machine's store;
    where that store is the pool's own, there is nothing else to do. `elsewhere`: others decide too, so there may be
    something true that was not heard of yet."""

    def __init__(self, people: PeoplePort, taken: Callable[[], None], *, elsewhere: bool = True) -> None:
        self.elsewhere = elsewhere
        self._people = people
        self._taken = taken
        self._failing = False

    async def catch_up(self) -> None:
        """Returns when what was changed before the call can be read here. Raises StoreError."""
        await self._people.catch_up()
        self._taken()

    async def look(self) -> None:
        """The same, now and then; a store that cannot be asked is told once."""
        try:
            await self.catch_up()
        except StoreError as exc:
            if not self._failing:
                log.warning("changes of people are not heard of: %s", exc)
            self._failing = True
        else:
            self._failing = False


def _apply(txn: Txn, news: PeopleNews, now: float) -> None:
    if news.since and news.upto <= int(txn.get(META, _KNOWN) or 0):
        return  # another worker has taken in these, or later ones
    whole = not news.since
    for user in news.people:
        _put_user(txn, user, now)
    for key in news.keys:
        _put_key(txn, key, now)
    txn.put_many(CODES, [(code.prefix.encode(), encode(code)) for code in news.codes])
    txn.put_many(ADMIN_TOKENS, [(token.id.encode(), encode(token)) for token in news.tokens])
    for raw in _ended(txn, KEYS, [key for _, key in news.ended_keys], [key.id for key in news.keys], whole=whole):
        key = decode_key(raw)
        drop_key(txn, key)
        append_change(txn, UserChange("end", now, key.user, key.id))
    for raw in _ended(txn, CODES, news.ended_codes, [code.prefix for code in news.codes], whole=whole):
        txn.delete(CODES, decode_code(raw).prefix.encode())
    for raw in _ended(txn, ADMIN_TOKENS, news.ended_tokens, [token.id for token in news.tokens], whole=whole):
        txn.delete(ADMIN_TOKENS, _decode_token(raw).id.encode())
    for raw in _ended(txn, PEOPLE, (), [user.id for user in news.people], whole=whole):
        _drop_user(txn, decode_user(raw), now)
    _put_choices(txn, news, now)
    if news.secret and txn.get(META, _SECRET) != news.secret:
        txn.put(META, _SECRET, news.secret)
        append_change(txn, UserChange("secret", now))
    txn.put(META, _KNOWN, b"%d" % news.upto)


def _put_choices(txn: Txn, news: PeopleNews, now: float) -> None:
    if not news.since:
        there = {(user, kind) for user, kind, value in news.choices if value is not None}
        for kind, table in CHOICES.items():
            for user in [key.decode() for key, _ in txn.scan(table)]:
                if (user, kind) not in there:
                    put_choice(txn, user, kind, None)
    for user, kind, value in news.choices:
        if kind in CHOICES and txn.get(CHOICES[kind], id_key(user)) != value:
            put_choice(txn, user, kind, value)
            append_change(txn, UserChange("user", now, user))


def shared_secret(store: Store) -> bytes | None:
    """The pool's secret as news have brought it here, sealed. Raises StoreError."""
    return store.get(META, _SECRET)


def keep_secret(store: Store, sealed: bytes) -> None:
    """What the database has of it at the start. Raises StoreError."""
    if shared_secret(store) != sealed:
        store.write(lambda txn: txn.put(META, _SECRET, sealed))


def _ended(txn: Txn, table: str, ended: Iterable[str], there: Iterable[str], *, whole: bool) -> list[bytes]:
    """The records here that have `ended`, or where the news is the `whole` are not among those that are `there`."""
    if not whole:
        return [raw for ident in ended if (raw := txn.get(table, ident.encode())) is not None]
    left = {ident.encode() for ident in there}
    return [raw for key, raw in txn.scan(table) if key not in left]


def _put_user(txn: Txn, user: User, now: float) -> None:
    key = user.id.encode()
    raw, new = txn.get(PEOPLE, key), encode(user)
    if raw == new:
        return
    before = decode_user(raw) if raw is not None else None
    if before is not None:
        _drop_name(txn, before)
    if user.deleted is None:
        txn.put(NAMES, skeleton(user.name).encode(), key)
    txn.put(PEOPLE, key, new)
    ends = before is not None and _is_active(before) and not _is_active(user)
    append_change(txn, UserChange("end" if ends else "user", now, user.id))


def _put_key(txn: Txn, key: Key, now: float) -> None:
    if txn.get(KEYS, key.id.encode()) != encode(key):
        put_key(txn, key)
        append_change(txn, UserChange("user", now, key.user, key.id))


def _drop_user(txn: Txn, user: User, now: float) -> None:
    _drop_name(txn, user)
    txn.delete(PEOPLE, user.id.encode())
    append_change(txn, UserChange("end", now, user.id))


def _drop_name(txn: Txn, user: User) -> None:
    """The name may be somebody else's by now."""
    name = skeleton(user.name).encode()
    if txn.get(NAMES, name) == user.id.encode():
        txn.delete(NAMES, name)


def _is_active(user: User) -> bool:
    return not user.disabled and user.deleted is None
