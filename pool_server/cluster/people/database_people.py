"""`PeoplePort` over PostgreSQL: each change is one transaction, on the synchronous standby too when it returns."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import msgspec

from pool_server.core.enums import Denial
from pool_server.language import gettext as _
from pool_server.storage.errors import StoreError, StoreRefusedError
from pool_server.storage.postgres.connection import Connection, DatabasePool, storable
from pool_server.users.models import (
    AdminToken,
    AuditRow,
    Code,
    Key,
    NewPerson,
    RefusedError,
    User,
    bad_value,
    decode_audit,
    decode_code,
    decode_key,
    decode_user,
    encode,
    not_found,
)
from pool_server.users.ports import Arrival, PeopleNews, PeoplePort, Person, Trail
from pool_server.users.replica import SECRET
from pool_server.users.user_names import skeleton

log = logging.getLogger(__name__)

T = TypeVar("T")
_NEW_PEOPLE = "new people"
_UNIQUE = "23505"
_encode_new = msgspec.msgpack.Encoder().encode
_decode_new = msgspec.msgpack.Decoder(list[NewPerson]).decode
_decode_token = msgspec.msgpack.Decoder(AdminToken).decode


class DatabasePeople(PeoplePort):
    """`apply` takes news into what this node reads; it is called before a change returns, so that whoever made it sees
    it."""

    def __init__(
        self, pool: DatabasePool, apply: Callable[[PeopleNews], Awaitable[None]], known: Callable[[], int]
    ) -> None:
        """`known`: the number of the last change of people that this machine was told. `followed`: the same of this
        process, which remembers some of what it has read before."""
        self._pool = pool
        self._apply = apply
        self._known = known
        self.followed = 0

    async def create(self, person: Person, trail: Trail, arrival: Arrival) -> None:
        async with self._change(trail) as (connection, seq):
            await _put_user(connection, seq, person.user)
            if arrival.code:
                await _spend(connection, seq, arrival.code, person.user)
            if arrival.counted is not None:
                raw = await connection.value("select pool.note_read_1($1)", _NEW_PEOPLE)
                counted = arrival.counted(_decode_new(raw) if raw is not None else [])
                await connection.value("select pool.note_put_1($1, $2)", _NEW_PEOPLE, _encode_new(counted))
            if arrival.identity:
                await connection.value("select pool.identity_put_1($1, $2)", arrival.identity, person.user.id)
            for key in person.keys:
                await _put_key(connection, seq, key)

    async def change(self, user_id: str, change: Callable[[Person], Trail]) -> Person:
        async with self._change() as (connection, seq):
            person = await _person(connection, user_id)
            user, keys = encode(person.user), {key.id: (key.user, encode(key)) for key in person.keys}
            trail = change(person)
            if encode(person.user) != user:
                await _put_user(connection, seq, person.user)
            for key in person.keys:
                if keys.pop(key.id, (key.user, b""))[1] != encode(key):
                    await _put_key(connection, seq, key)
            for ended, (owner, _) in keys.items():
                await connection.value("select pool.key_put_1($1, $2, $3, null, null)", seq, ended, owner)
            await keep_trail(connection, trail)
        return person

    async def link(self, identity: bytes, user_id: str) -> None:
        await self._pool.value("select pool.identity_put_1($1, $2)", identity, user_id)

    async def linked(self, identity: bytes) -> str | None:
        found: str | None = await self._pool.value("select pool.identity_read_1($1)", identity)
        return found

    async def code_make(self, code: Code, trail: Trail) -> None:
        async with self._change(trail) as (connection, seq):
            if await connection.value("select pool.code_read_1($1)", code.prefix) is not None:
                raise RefusedError(Denial.BAD_VALUE, _("this code exists by chance; make another"), 409)
            await connection.value("select pool.code_put_1($1, $2, $3)", seq, code.prefix, encode(code))

    async def code_change(self, prefix: str, change: Callable[[Code], T]) -> T | None:
        async with self._change() as (connection, seq):
            raw = await _code(connection, prefix)
            if raw is None:
                return None
            code = decode_code(raw)
            result = change(code)
            await connection.value("select pool.code_put_1($1, $2, $3)", seq, prefix, encode(code))
        return result

    async def code_end(self, prefix: str, trail: Trail) -> None:
        async with self._change(trail) as (connection, seq):
            if await _code(connection, prefix) is None:
                raise not_found("code")
            await connection.value("select pool.code_put_1($1, $2, null)", seq, prefix)

    async def token_make(self, token: AdminToken, most: int, trail: Trail) -> None:
        async with self._change(trail) as (connection, seq):
            if await connection.value("select pool.token_count_1()") >= most:
                raise bad_value(_("there are {most} tokens: revoke one that is not used", most=most))
            await connection.value("select pool.token_put_1($1, $2, $3)", seq, token.id, encode(token))

    async def token_end(self, token_id: str, trail: Trail) -> None:
        async with self._change(trail) as (connection, seq):
            if not storable(token_id) or not await connection.value(
                "select pool.token_put_1($1, $2, null)", seq, token_id
            ):
                raise not_found("token")

    async def choose(self, user_id: str, kind: str, value: bytes | None, trail: Trail, *, anew: bool = True) -> None:
        async with self._change(trail) as (connection, seq):
            if storable(user_id):
                keep = anew or value is None
                await connection.value("select pool.choice_put_1($1, $2, $3, $4, $5)", seq, user_id, kind, value, keep)

    async def tell(self, trail: Trail) -> None:
        async with self._change(trail):
            pass

    async def audit_page(
        self, before: int | None, limit: int, *, actor: str, action: str, target: str
    ) -> tuple[list[AuditRow], int | None]:
        if not all(map(storable, (actor, action, target))):
            return [], None
        found = await self._pool.rows(
            "select * from pool.audit_page_1($1, $2, $3, $4, $5)", before, limit + 1, actor, action, target
        )
        rows = [msgspec.structs.replace(decode_audit(row["body"]), seq=row["seq"]) for row in found]
        return rows[:limit], rows[limit - 1].seq if len(rows) > limit else None

    async def catch_up(self) -> None:
        """Takes in what others have changed. Raises StoreError."""
        async with self._pool.connection() as connection:
            news = await _news(connection, self._known())
        await self._apply(news)

    def follow(self, take_in: Callable[[], None]) -> None:
        told = self._known()
        take_in()
        self.followed = told

    @contextlib.asynccontextmanager
    async def _change(self, trail: Trail | None = None) -> AsyncIterator[tuple[Connection, int]]:
        """A transaction with the number of its change; what it wrote, and others before it, is taken in after it. Where
        that fails, the change is made all the same, and the next look takes it in."""
        try:
            async with self._pool.connection() as connection, connection.transaction():
                seq = await connection.value("select pool.people_begin_1()")
                yield connection, seq
                if trail is not None:
                    await keep_trail(connection, trail)
        except StoreRefusedError as exc:
            if exc.state == _UNIQUE:
                raise RefusedError(
                    Denial.NAME_TAKEN, _("this name, or one that looks like it, is taken"), 409
                ) from None
            raise
        try:
            await self.catch_up()
        except StoreError as exc:
            log.warning("a change of people that was made is not read here yet: %s", exc)


async def _person(connection: Connection, user_id: str) -> Person:
    rows = await connection.rows("select * from pool.person_read_1($1)", user_id) if storable(user_id) else []
    users = [decode_user(row["body"]) for row in rows if row["jti"] is None]
    if not users or users[0].deleted is not None:
        raise not_found("user")
    return Person(users[0], [decode_key(row["body"]) for row in rows if row["jti"] is not None])


async def _put_user(connection: Connection, seq: int, user: User) -> None:
    gone = user.deleted is not None
    mark = None if gone else skeleton(user.name)
    await connection.value(
        "select pool.person_put_1($1, $2, $3, $4, $5)", seq, user.id, mark, gone or user.disabled, encode(user)
    )


async def _put_key(connection: Connection, seq: int, key: Key) -> None:
    await connection.value("select pool.key_put_1($1, $2, $3, $4, $5)", seq, key.id, key.user, key.expires, encode(key))


async def _code(connection: Connection, prefix: str) -> bytes | None:
    found: bytes | None = None
    if storable(prefix):
        found = await connection.value("select pool.code_read_1($1)", prefix)
    return found


async def _spend(connection: Connection, seq: int, prefix: str, user: User) -> None:
    raw = await _code(connection, prefix)
    code = decode_code(raw) if raw is not None else Code(prefix, "", 0.0, 0)
    code.spend(user.id)
    await connection.value("select pool.code_put_1($1, $2, $3)", seq, prefix, encode(code))


async def keep_trail(connection: Connection, trail: Trail) -> None:
    for row in trail.audit:
        await keep_line(connection, row)


async def keep_line(connection: Connection, row: AuditRow) -> None:
    """One line of the audit log."""
    await connection.value(
        "select pool.audit_add_1($1, $2, $3, $4, $5, $6)",
        row.actor, *map(_shown, (row.actor_id, row.actor_name, row.action, row.target)), encode(row),
    )  # fmt: skip


async def _news(connection: Connection, since: int) -> PeopleNews:
    choices: list[tuple[str, str, bytes | None]] = []
    news = PeopleNews(since, since, [], [], [], [], [], [], [], choices)
    for row in await connection.rows("select * from pool.people_news_2($1)", since):
        body, ident = row["body"], row["id"]
        match row["kind"]:
            case "feed":
                news = news._replace(upto=row["upto"])
            case "choice":
                choices.append((row["usr"], ident, body))
            case "secret":
                news = news._replace(secret=body if ident == SECRET else news.secret)
            case "person":
                news.people.append(decode_user(body))
            case "key" if body is None:
                news.ended_keys.append((row["usr"], ident))
            case "key":
                news.keys.append(decode_key(body))
            case "code" if body is None:
                news.ended_codes.append(ident)
            case "code":
                news.codes.append(decode_code(body))
            case _ if body is None:
                news.ended_tokens.append(ident)
            case _:
                news.tokens.append(_decode_token(body))
    return news


def _shown(text: str) -> str:
    """What the columns that are searched can hold of a text; the body has all of it."""
    return text if storable(text) else text.encode("utf-8", "replace").decode().replace("\0", "")
