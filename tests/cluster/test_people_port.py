"""`PeoplePort`: the same histories over the embedded store and over PostgreSQL, and what only several nodes can do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pool_server.cluster.people.database_people import DatabasePeople
from pool_server.core.enums import Denial
from pool_server.storage import Store
from pool_server.storage.errors import StoreAwayError
from pool_server.storage.postgres.connection import connected
from pool_server.users import LEDGER_TABLES
from pool_server.users.embedded_people import EmbeddedPeople
from pool_server.users.models import AdminToken, AuditRow, Code, Key, NewPerson, RefusedError, User
from pool_server.users.ports import Arrival, PeopleNews, PeoplePort, Person, Trail
from tests.cluster.conftest import Database


class Node:
    """What a node knows of people, by its news."""

    def __init__(self) -> None:
        self.upto = 0
        self.people: dict[str, User] = {}
        self.keys: dict[str, Key] = {}
        self.codes: dict[str, Code] = {}
        self.tokens: dict[str, AdminToken] = {}

    async def apply(self, news: PeopleNews) -> None:
        self.upto = news.upto
        self.people |= {user.id: user for user in news.people}
        self.keys |= {key.id: key for key in news.keys}
        self.codes |= {code.prefix: code for code in news.codes}
        self.tokens |= {token.id: token for token in news.tokens}
        for table, ended in (
            (self.keys, [key for _, key in news.ended_keys]),
            (self.codes, news.ended_codes),
            (self.tokens, news.ended_tokens),
        ):
            for ident in ended:
                table.pop(ident, None)


@asynccontextmanager
async def people_of(database: Database, node: Node) -> AsyncIterator[DatabasePeople]:
    async with database.pool() as pool:
        yield DatabasePeople(pool, node.apply, lambda: node.upto)


def trail(action: str, target: str = "") -> Trail:
    return Trail([AuditRow(1.0, "admin", "a1", "root", "192.0.2.1", action, target)])


async def told(call: Awaitable[object]) -> str:
    """What a call was refused with."""
    try:
        await call
    except RefusedError as exc:
        return f"{exc.denied.denial} {exc.denied.status}"
    return "done"


NAMES = st.sampled_from(["ann", "Ann", "bob", "b\u043eb", "carl", "ca rl"])
IDS = st.sampled_from(["u1", "u2", "u3", "nobody", "", "\0", "\ud800", "ü" * 300])
USERS = st.sampled_from(["u1", "u2", "u3"])
ACTORS = st.sampled_from(["", "a1", "root", "admin", "shell", "\0"])
ACTIONS = st.sampled_from(["", "user", "code"])
STEPS = st.one_of(
    st.tuples(st.just("create"), USERS, NAMES, st.sampled_from(["", "c1", "c2"]), st.integers(0, 3)),
    st.tuples(st.just("rename"), IDS, NAMES),
    st.tuples(st.just("disable"), IDS, st.booleans()),
    st.tuples(st.just("delete"), IDS),
    st.tuples(st.just("key"), IDS, st.integers(0, 3)),
    st.tuples(st.just("end key"), IDS, st.integers(0, 3)),
    st.tuples(st.just("raise"), IDS),
    st.tuples(st.just("code"), st.sampled_from(["c1", "c2"]), st.none() | st.integers(0, 2)),
    st.tuples(st.just("change code"), st.sampled_from(["c1", "c2", "c3", "\0", ""]), st.integers(0, 2)),
    st.tuples(st.just("end code"), st.sampled_from(["c1", "c2", "\0"])),
    st.tuples(st.just("token"), st.integers(0, 3)),
    st.tuples(st.just("end token"), st.sampled_from(["t0", "t1", "\0", ""])),
    st.tuples(st.just("link"), st.sampled_from([b"a", b"\0"]), st.sampled_from(["u1", "u2"])),
    st.tuples(st.just("audit"), st.integers(1, 5), ACTORS, ACTIONS),
)  # fmt: skip


class Walk:
    """Runs steps on a port; each answers in words that can be compared."""

    def __init__(self, port: PeoplePort) -> None:
        self.port = port
        self.made: set[str] = set()

    async def step(self, word: str, *rest: object) -> object:
        done: Callable[..., Awaitable[object]] = getattr(self, word.replace(" ", "_"))
        return await done(*rest)

    async def create(self, user: str, name: str, code: str, keys: int) -> object:
        if user in self.made:
            return "there"  # ids are made by chance: none comes twice

        def counted(had: list[NewPerson]) -> list[NewPerson]:
            if len(had) > 3:
                raise RefusedError(Denial.THROTTLED, "too many", 429)
            return [*had, NewPerson(2.0, [name])]

        person = Person(User(user, name, 1.0), [Key(f"{user}-{n}", user, "k", 1.0) for n in range(keys)])
        said = await told(self.port.create(person, trail("user.add", user), Arrival(code, counted, user.encode())))
        self.made |= {user} if said == "done" else set()
        return said, await self.port.linked(user.encode())

    async def alter(self, user: str, change: Callable[[Person], None]) -> object:
        found: list[Person] = []

        def altered(person: Person) -> Trail:
            person.keys.sort(key=lambda key: key.id)
            found.append(person)
            change(person)
            return trail("user.change", user)

        said = await told(self.port.change(user, altered))
        return said, [(one.user, one.keys) for one in found[-1:]]

    async def rename(self, user: str, name: str) -> object:
        return await self.alter(user, lambda person: setattr(person.user, "name", name))

    async def disable(self, user: str, disabled: bool) -> object:
        return await self.alter(user, lambda person: setattr(person.user, "disabled", disabled))

    async def delete(self, user: str) -> object:
        def gone(person: Person) -> None:
            person.user.deleted = 5.0
            person.keys.clear()

        return await self.alter(user, gone)

    async def key(self, user: str, number: int) -> object:
        def add(person: Person) -> None:
            person.keys = [key for key in person.keys if key.id != f"{user}-{number}"]
            person.keys.append(Key(f"{user}-{number}", user, "later", 3.0, expires=9.0))

        return await self.alter(user, add)

    async def end_key(self, user: str, number: int) -> object:
        def end(person: Person) -> None:
            person.keys = [key for key in person.keys if key.id != f"{user}-{number}"]

        return await self.alter(user, end)

    async def raise_(self, user: str) -> object:
        def change(person: Person) -> None:
            person.user.name, person.keys = "nobody at all", []
            raise RefusedError(Denial.BAD_VALUE, "not like this", 400)

        return await self.alter(user, change)

    async def code(self, prefix: str, uses: int | None) -> object:
        return await told(self.port.code_make(Code(prefix, "hash", 1.0, uses), trail("code.add", prefix)))

    async def change_code(self, prefix: str, uses: int) -> object:
        def change(code: Code) -> list[str]:
            code.uses_left = uses
            return list(code.used_by)

        return await self.port.code_change(prefix, change)

    async def end_code(self, prefix: str) -> object:
        return await told(self.port.code_end(prefix, trail("code.end", prefix)))

    async def token(self, number: int) -> object:
        if f"t{number}" in self.made:
            return "there"
        token = AdminToken(f"t{number}", b"hash", "label", ["read"], 1.0)
        said = await told(self.port.token_make(token, 2, trail("token.add")))
        self.made |= {token.id} if said == "done" else set()
        return said

    async def end_token(self, ident: str) -> object:
        return await told(self.port.token_end(ident, trail("token.end", ident)))

    async def link(self, identity: bytes, user: str) -> object:
        await self.port.link(identity, user)
        return await self.port.linked(identity)

    async def audit(self, limit: int, actor: str, action: str) -> object:
        rows, before = await self.port.audit_page(None, limit, actor=actor, action=action, target="")
        while before is not None:
            more, before = await self.port.audit_page(before, limit, actor=actor, action=action, target="")
            assert len(more) <= limit
            rows += more
        return [(row.action, row.target) for row in rows]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(history=st.lists(STEPS, min_size=1, max_size=30))
@example(history=[("create", "u1", "ann", "", 0), ("create", "u2", "ann", "c1", 0)])  # a taken name, no such code
def test_both_stores_answer_alike(
    database: Database, tmp_path_factory: pytest.TempPathFactory, history: list[tuple[object, ...]]
) -> None:
    async def run() -> None:
        node = Node()
        database.sql(
            "truncate pool.person, pool.key, pool.code, pool.admin_token, pool.identity, pool.note, pool.audit"
        )
        store = Store.open(tmp_path_factory.mktemp("s"), tables=LEDGER_TABLES, durable=True, map_size=1 << 22)
        try:
            async with people_of(database, node) as theirs:
                await theirs.catch_up()
                walks = Walk(EmbeddedPeople(store)), Walk(theirs)
                for word, *rest in history:
                    name = "raise_" if word == "raise" else str(word)
                    ours, its = [await walk.step(name, *rest) for walk in walks]
                    assert ours == its, (word, rest)
                late = Node()
                async with people_of(database, late) as other:  # one that was away learns all of it
                    await other.catch_up()
                assert (late.people, late.keys, late.codes, late.tokens) == (
                    node.people,
                    node.keys,
                    node.codes,
                    node.tokens,
                )
        finally:
            store.close()

    asyncio.run(run())


def test_of_many_who_come_by_a_code_of_one_use_one_gets_in(database: Database) -> None:
    async def race() -> list[str]:
        nodes = [Node() for _ in range(3)]
        async with (
            people_of(database, nodes[0]) as a,
            people_of(database, nodes[1]) as b,
            people_of(database, nodes[2]) as c,
        ):
            await a.code_make(Code("once", "hash", 1.0, 1), trail("code.add"))
            return await asyncio.gather(
                *(
                    told(port.create(Person(User(f"u{n}", f"name{n}", 1.0)), trail("user.add"), Arrival("once")))
                    for n, port in enumerate([a, b, c] * 10)
                )
            )

    said = asyncio.run(race())
    assert sorted(set(said)) == ["bad_login 401", "done"] and said.count("done") == 1


def test_of_many_who_take_one_name_one_has_it(database: Database) -> None:
    async def race() -> list[str]:
        async with people_of(database, Node()) as a, people_of(database, Node()) as b:
            return await asyncio.gather(
                *(
                    told(port.create(Person(User(f"u{n}", "Ann", 1.0)), trail("x"), Arrival()))
                    for n, port in enumerate([a, b] * 8)
                )
            )

    said = asyncio.run(race())
    assert said.count("done") == 1 and said.count("name_taken 409") == 15


def test_a_change_is_known_elsewhere_by_one_look(database: Database) -> None:
    async def run() -> None:
        here, there = Node(), Node()
        async with people_of(database, here) as a, people_of(database, there) as b:
            await a.create(
                Person(User("u1", "ann", 1.0), [Key("k1", "u1", "laptop", 1.0)]), trail("user.add"), Arrival()
            )
            assert not there.people
            await b.catch_up()
            assert set(there.keys) == {"k1"}

            def revoke(person: Person) -> Trail:
                person.keys.clear()
                return trail("key.revoke", "k1")

            await b.change("u1", revoke)
            assert not there.keys and set(here.keys) == {"k1"}
            await a.catch_up()
            assert not here.keys

    asyncio.run(run())


def test_a_change_whose_connection_breaks_is_told_and_not_half_done(database: Database) -> None:
    async def run() -> None:
        node = Node()
        async with people_of(database, node) as people, connected(database.place()) as other:
            await people.create(Person(User("u1", "ann", 1.0)), trail("user.add"), Arrival())

            def cut(person: Person) -> Trail:
                person.user.name = "anna"
                database.sql(
                    "select pg_terminate_backend(pid) from pg_stat_activity"
                    " where datname = current_database() and state = 'idle in transaction'"
                )
                return trail("user.rename")

            with pytest.raises(StoreAwayError):
                await people.change("u1", cut)
            assert await other.value("select mark from pool.person") == "ann"
            await people.change("u1", lambda person: trail("user.look"))  # a new connection serves
            assert node.people["u1"].name == "ann"

    asyncio.run(run())
