"""Moves the pool of one machine's data folder into the database. What is there already stays as it is, so that it may
run again, also after the pool has gone on there.
"""

from __future__ import annotations

from pool_server.cluster.people.database_people import keep_line
from pool_server.storage import Store, StoreError
from pool_server.storage.postgres.admission_calls import nano
from pool_server.storage.postgres.connection import Connection
from pool_server.users.limits.counters import BUCKET, COUNTED, ROLLING
from pool_server.users.limits.periods import Calendar
from pool_server.users.limits.rebuild import Used, counters_of
from pool_server.users.models import (
    ADMIN_TOKENS,
    AUDIT,
    CHOICES,
    CODES,
    KEYS,
    META,
    PEOPLE,
    decode_audit,
    decode_code,
    decode_key,
    decode_user,
    encode,
)
from pool_server.users.user_names import skeleton

_BATCH = 500
_IDENTITY = b"identity "
_NODE = "import"


Count = dict[str, int]  # "new" in the database, of "all" in the folder


async def move_people(connection: Connection, store: Store) -> dict[str, Count]:
    """People with their keys, codes, tokens, identities, what they decided for themselves and, into an empty database,
    the audit log; in one transaction. Raises StoreError."""
    async with connection.transaction():
        seq = await connection.value("select pool.people_begin_1()")
        empty = not await connection.value("select exists (select from pool.person)")
        there = {row["id"] for row in await connection.rows("select id from pool.person")}
        people = await _people(connection, store, seq, there)
        keys = await _keys(connection, store, seq)
        codes = await _codes(connection, store, seq)
        await _tokens(connection, store, seq)
        with store.read() as reader:
            marks = [(key, raw) for key, raw in reader.scan(META, _IDENTITY) if key.startswith(_IDENTITY)]
            trail = [decode_audit(raw) for _, raw in reader.scan(AUDIT)] if empty else []
            choices = [(kind, key.decode(), raw) for kind in CHOICES for key, raw in reader.scan(CHOICES[kind])]
        for key, raw in marks:
            mark = key.removeprefix(_IDENTITY)
            if await connection.value("select pool.identity_read_1($1)", mark) is None:
                await connection.value("select pool.identity_put_1($1, $2)", mark, raw.decode())
        for row in trail:
            await keep_line(connection, row)
        for kind, user, raw in choices:
            await connection.value("select pool.choice_put_1($1, $2, $3, $4, false)", seq, user, kind, raw)
    return {"people": people, "keys": keys, "codes": codes}


async def _people(connection: Connection, store: Store, seq: int, there: set[str]) -> Count:
    new = 0
    taken = {
        row["mark"]: row["id"]
        for row in await connection.rows("select mark, id from pool.person where mark is not null")
    }
    with store.read() as reader:
        users = [decode_user(raw) for _, raw in reader.scan(PEOPLE)]
    for user in users:
        if user.id in there:
            continue
        gone = user.deleted is not None
        mark = None if gone else skeleton(user.name)
        if mark in taken:
            raise StoreError(f"somebody else in the database has the name {user.name!r}: rename one of the two")
        await connection.value(
            "select pool.person_put_1($1, $2, $3, $4, $5)", seq, user.id, mark, gone or user.disabled, encode(user)
        )
        new += 1
    return {"new": new, "all": len(users)}


async def _keys(connection: Connection, store: Store, seq: int) -> Count:
    there = {row["jti"] for row in await connection.rows("select jti from pool.key")}
    with store.read() as reader:
        keys = [decode_key(raw) for _, raw in reader.scan(KEYS)]
    missing = [key for key in keys if key.id not in there]
    for key in missing:
        await connection.value(
            "select pool.key_put_1($1, $2, $3, $4, $5)", seq, key.id, key.user, key.expires, encode(key)
        )
    return {"new": len(missing), "all": len(keys)}


async def _codes(connection: Connection, store: Store, seq: int) -> Count:
    there = {row["prefix"] for row in await connection.rows("select prefix from pool.code")}
    with store.read() as reader:
        codes = [decode_code(raw) for _, raw in reader.scan(CODES)]
    missing = [code for code in codes if code.prefix not in there]
    for code in missing:
        await connection.value("select pool.code_put_1($1, $2, $3)", seq, code.prefix, encode(code))
    return {"new": len(missing), "all": len(codes)}


async def _tokens(connection: Connection, store: Store, seq: int) -> None:
    there = {row["id"] for row in await connection.rows("select id from pool.admin_token")}
    with store.read() as reader:
        tokens = [(key.decode(), raw) for key, raw in reader.scan(ADMIN_TOKENS)]
    for ident, raw in tokens:
        if ident not in there:
            await connection.value("select pool.token_put_1($1, $2, $3)", seq, ident, raw)


async def move_counters(connection: Connection, store: Store, used: Used, calendar: Calendar, now: float) -> int:
    """What the limits of people and of keys with limits of their own have counted, as the ledger tells; counters that
    are there stay. Returns how many were new. Raises StoreError."""
    with store.read() as reader:
        owners = [(decode_user(raw).id, "") for _, raw in reader.scan(PEOPLE)]
        keys = [decode_key(raw) for _, raw in reader.scan(KEYS)]
    owners += [(key.user, key.id) for key in keys if any(key.limits.get(name) is not None for name in COUNTED)]
    marks, new = calendar.at(now), 0
    for user, key in owners:
        use = counters_of(used, f"{user}\0{key}" if key else user, "", marks, now)
        slots = [0] * (ROLLING // BUCKET + 1)
        newest = int(now) // BUCKET
        for start, tokens in use.rolling:
            slots[min(len(slots) - 1, max(0, newest - start // BUCKET))] += tokens
        tokens_of = [use.day_tokens, use.week_tokens, use.month_tokens]
        costs = [nano(use.day_cost), nano(use.week_cost), nano(use.month_cost)]
        new += await connection.value(
            "select pool.use_import_1($1, $2, $3, $4, $5, $6, $7, $8)",
            user, key, newest, slots, list(marks[::2]), tokens_of, costs, use.ratio,
        )  # fmt: skip
    return new
