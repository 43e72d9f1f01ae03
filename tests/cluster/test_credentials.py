"""Credentials in the database: sealed, exchanged by comparison of versions, refreshed once by whichever node."""

from __future__ import annotations

import asyncio
import base64
from collections import Counter
from functools import partial

import pytest

from pool_server.accounts.credentials.sealing import SealError, SealKeys
from pool_server.cluster.credentials.sealed_rows import DatabaseCredentials
from pool_server.cluster.database_leases import DatabaseLeases
from pool_server.storage.errors import StoreRefusedError
from pool_server.storage.postgres.migrations import APP, READER
from tests.cluster.conftest import Database

K1, K2 = {"k1": b"1" * 32}, {"k2": b"2" * 32}
SENTINEL = b"sentinel-refresh-token-4711"


def test_without_a_key_nothing_is_kept() -> None:
    with pytest.raises(SealError, match="there is no key: set POOL_STORE_KEY"):
        DatabaseCredentials(None, SealKeys({}))  # type: ignore[arg-type]


def test_versions_are_compared_not_leases(database: Database) -> None:
    """A node that was stopped for a minute with the answer in hand: its token is taken while nobody else wrote."""

    async def walk() -> None:
        async with database.pool() as pool:
            book = DatabaseCredentials(pool, SealKeys(K1))
            assert await book.put("claude:a", "claude", 0, b"t1") == 1
            assert await book.put("claude:a", "claude", 0, b"again") is None
            leases = DatabaseLeases(pool, lambda: 1), DatabaseLeases(pool, lambda: 2)
            await leases[0].take("refresh:claude:a", 0.0)  # runs out at once, and another has it by now
            assert await leases[1].take("refresh:claude:a", 90.0) is not None
            assert await book.put("claude:a", "claude", 1, b"t2") == 2
            assert await book.put("claude:a", "claude", 1, b"late") is None  # somebody wrote meanwhile
            there = await book.get("claude:a")
            assert there is not None and (there.version, there.secret) == (2, b"t2")
            assert await book.get("claude:b") is None

    asyncio.run(walk())


def test_of_many_who_put_at_once_one_is_taken(database: Database) -> None:
    async def race() -> None:
        async with database.pool() as one, database.pool() as two, database.pool() as three:
            books = [DatabaseCredentials(pool, SealKeys(K1)) for pool in (one, two, three)]
            for version in range(5):
                put = await asyncio.gather(
                    *(book.put("a", "claude", version, b"%d" % n) for n, book in enumerate(books * 5))
                )
                assert [new for new in put if new is not None] == [version + 1]

    asyncio.run(race())


def test_rows_cannot_be_exchanged_or_set_back(database: Database) -> None:
    async def walk() -> None:
        async with database.pool() as pool:
            book = DatabaseCredentials(pool, SealKeys(K1))
            for account in ("a", "b"):
                await book.put(account, "claude", 0, b"old " + account.encode())
            before = database.sql("select encode(sealed, 'hex') from pool.credential where account = 'a'")
            await book.put("a", "claude", 1, b"new a")
            database.sql(f"update pool.credential set sealed = decode('{before}', 'hex') where account = 'a'")
            with pytest.raises(SealError, match=r"opens the credentials of a$"):
                await book.all()
            database.sql(f"update pool.credential set sealed = decode('{before}', 'hex') where account = 'b'")
            with pytest.raises(SealError, match=r"opens the credentials of a, b$"):
                await book.all()
            database.sql("update pool.credential set sealed = 'rubbish'")
            with pytest.raises(SealError, match=r"of a, b$"):
                await book.all()

    asyncio.run(walk())


def test_a_new_key_takes_over_while_the_old_one_still_opens(database: Database) -> None:
    async def walk() -> None:
        async with database.pool() as pool:
            old, both, new = (DatabaseCredentials(pool, SealKeys(keys)) for keys in (K1, {**K2, **K1}, K2))
            await old.put("a", "claude", 0, SENTINEL)
            with pytest.raises(SealError, match=r"of a$"):
                await new.all()
            assert [one.secret for one in await both.all()] == [SENTINEL]
            assert await both.reseal() == 1
            assert await both.reseal() == 0
            (one,) = await new.all()
            assert (one.version, one.secret) == (1, SENTINEL)
            with pytest.raises(SealError):
                await old.all()

    asyncio.run(walk())


def test_a_dump_or_a_look_at_statements_signs_in_nowhere(database: Database) -> None:
    async def walk() -> str:
        async with database.pool() as pool:
            book = DatabaseCredentials(pool, SealKeys(K1))
            await book.put("a", "claude", 0, SENTINEL)
            assert SENTINEL.decode() not in repr(await book.all())
            return database.sql("select string_agg(query, ' ') from pg_stat_activity")

    queries = asyncio.run(walk())
    dump = database.server.run("pg_dump", database.server.url(database.name))
    assert "credential" in dump
    for form in (SENTINEL.decode(), SENTINEL.hex(), base64.b64encode(SENTINEL).decode()):
        assert form not in dump and form not in queries


def test_nobody_but_the_functions_reads_what_is_sealed(database: Database) -> None:
    for role in (APP, READER):
        with pytest.raises(StoreRefusedError):
            database.run(lambda connection: connection.rows("select sealed from pool.credential"), role)


def test_tokens_that_may_be_used_once_are_refreshed_once_by_three_nodes(database: Database) -> None:
    """Accounts that run out together, round after round; the provider tolerates no token twice."""
    accounts, rounds = [f"claude:{n}" for n in range(12)], 4
    used: Counter[bytes] = Counter()

    async def refresh(book: DatabaseCredentials, leases: DatabaseLeases, account: str, version: int) -> None:
        while True:
            there = await book.get(account)
            assert there is not None
            if there.version > version:
                return  # another node did it
            term = await leases.take(f"refresh:{account}", 90.0)
            if term is None:
                await asyncio.sleep(0)
                continue
            there = await book.get(account)
            assert there is not None
            if there.version == version and leases.held(term):
                used[there.secret] += 1
                assert await book.put(account, "claude", version, b"%s v%d" % (account.encode(), version + 1))
            await leases.give(term)

    async def race() -> None:
        async with database.pool() as one, database.pool() as two, database.pool() as three:
            nodes = [
                (DatabaseCredentials(p, SealKeys(K1)), DatabaseLeases(p, partial(int, n)))
                for n, p in enumerate((one, two, three))
            ]
            for account in accounts:
                await nodes[0][0].put(account, "claude", 0, account.encode() + b" v1")
            for version in range(1, rounds + 1):
                await asyncio.gather(
                    *(refresh(book, leases, account, version) for book, leases in nodes for account in accounts)
                )

    asyncio.run(race())
    assert len(used) == len(accounts) * rounds
    assert set(used.values()) == {1}


def test_what_was_taken_out_is_written_by_nobody_who_knew_it_before(database: Database) -> None:
    async def walk() -> None:
        async with database.pool() as pool:
            book = DatabaseCredentials(pool, SealKeys(K1))
            await book.put("a", "claude", 0, b"t1")
            assert await book.remove("a", 5.0, wipe=False) and not await book.remove("a", 6.0, wipe=False)
            assert await book.put("a", "claude", 1, b"late", anew=False) is None and await book.all() == []
            assert await book.restore("a") and not await book.restore("a")
            assert [one.secret for one in await book.all()] == [b"t1"]
            await book.remove("a", 7.0, wipe=True)
            assert not await book.restore("a")
            there = await book.get("a")
            assert there is not None and (there.secret, there.removed) == (b"", 7.0)
            assert await book.put("a", "claude", 1, b"anew") == 2
            await book.remove("a", 8.0, wipe=False)
            await book.sweep(8.0)
            assert await book.restore("a")
            await book.remove("a", 9.0, wipe=False)
            await book.sweep(9.1)
            assert not await book.restore("a")

    asyncio.run(walk())


def test_news_tell_all_that_was_written_since(database: Database) -> None:
    async def walk() -> None:
        async with database.pool() as pool:
            book, other = DatabaseCredentials(pool, SealKeys(K1)), DatabaseCredentials(pool, SealKeys(K2))
            await book.put("a", "claude", 0, b"t1")
            await book.put("b", "claude", 0, b"t1", own=True, digest="d")
            first = await book.news(0)
            assert [(row.account, row.own, row.digest) for row in first.rows] == [("a", False, ""), ("b", True, "d")]
            assert (await book.news(first.upto)).rows == []
            await book.put("b", "claude", 1, b"t2")
            await book.remove("a", 5.0, wipe=True)
            later = await book.news(first.upto)
            assert [(row.account, row.removed, row.digest) for row in later.rows] == [("a", 5.0, ""), ("b", None, "d")]
            assert (await other.news(0)).closed == ["b"]

    asyncio.run(walk())


def test_a_lease_is_used_for_two_thirds_of_its_life(database: Database) -> None:
    now = 100.0

    async def walk() -> None:
        nonlocal now
        async with database.pool() as pool:
            leases, others = DatabaseLeases(pool, lambda: 1, lambda: now), DatabaseLeases(pool, lambda: 2, lambda: now)
            term = await leases.take("poll", 90.0)
            assert term is not None and leases.held(term)
            now = 159.9
            assert leases.held(term) and await others.take("poll", 90.0) is None
            now = 160.1  # stopped for a minute: it must not be used, whatever the database says
            assert not leases.held(term)
            await leases.give(term)
            later = await others.take("poll", 90.0)
            assert later is not None and later.number > term.number
            await leases.give(term)  # what is another's by now stays theirs
            assert await leases.take("poll", 90.0) is None

    asyncio.run(walk())


def test_a_lease_that_cannot_be_given_back_runs_out(database: Database) -> None:
    async def walk() -> None:
        async with database.pool() as pool:
            leases = DatabaseLeases(pool, lambda: 1)
            term = await leases.take("poll", 0.01)
            assert term is not None
            database.sql(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where datname = current_database() and pid <> pg_backend_pid()"
            )
            await leases.give(term)  # says nothing
            while await leases.take("poll", 90.0) is None:
                await asyncio.sleep(0.01)

    asyncio.run(walk())
