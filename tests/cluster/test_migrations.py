"""The schema's changes against a real server: run once, cut off, of another owner, older and newer than the program."""

from __future__ import annotations

import asyncio
import re
from operator import methodcaller
from pathlib import Path

import pytest

from pool_server.storage import StoreError
from pool_server.storage.errors import StoreAwayError, StoreRefusedError, StoreVersionError
from pool_server.storage.postgres import migrations as migrations_module
from pool_server.storage.postgres.connection import Connection, connected
from pool_server.storage.postgres.inspection import OK, WARNING, WRONG, inspect
from pool_server.storage.postgres.migrations import (
    APP,
    OWNER,
    READER,
    SUPERSEDED,
    Migration,
    contract,
    judge,
    migrate,
    migrations,
    schema_of,
)
from pool_server.storage.postgres.url import parse
from tests import postgres
from tests.cluster.conftest import Database

NEWEST = migrations()[-1].version
PACKAGE = Path(migrations_module.__file__).parents[2]
FUNCTIONS = "select proname from pg_proc where pronamespace = 'pool'::regnamespace"


def test_changes_are_numbered_without_a_gap() -> None:
    assert [one.version for one in migrations()] == list(range(1, NEWEST + 1))


def test_an_empty_database_is_brought_up_once(empty: Database) -> None:
    assert len(empty.run(migrate, OWNER)) == NEWEST
    assert empty.run(migrate, OWNER) == []
    schema = empty.run(schema_of)
    assert (schema.version, schema.owner) == (NEWEST, OWNER)
    judge(schema, migrations())


def test_a_superuser_s_run_leaves_the_schema_to_its_owner(empty: Database) -> None:
    empty.run(migrate, postgres.SUPERUSER)
    assert empty.run(schema_of).owner == OWNER
    owners = "select distinct pg_get_userbyid(proowner) from pg_proc where pronamespace = 'pool'::regnamespace"
    assert empty.sql(owners) == OWNER


def test_two_runs_at_once_make_one_schema(empty: Database) -> None:
    async def all_three(_: Connection) -> tuple[list[Migration], ...]:
        async def one() -> list[Migration]:
            async with connected(empty.place(OWNER)) as connection:
                return await migrate(connection)

        return await asyncio.gather(one(), one(), one())

    ran = empty.run(all_three, OWNER)
    assert sorted(one.version for several in ran for one in several) == list(range(1, NEWEST + 1))


def test_a_change_that_was_cut_off_has_not_happened(empty: Database) -> None:
    dies = Migration(NEWEST + 1, "dies", "create table half (a int); select pg_terminate_backend(pg_backend_pid());")
    with pytest.raises(StoreAwayError):
        empty.run(lambda connection: migrate(connection, (*migrations(), dies)), OWNER)
    assert empty.run(schema_of).version == NEWEST
    whole = Migration(NEWEST + 1, "whole", "create table half (a int);")
    assert empty.run(lambda connection: migrate(connection, (*migrations(), whole)), OWNER) == [whole]


def test_a_change_with_a_mistake_leaves_the_schema_as_it_was(empty: Database) -> None:
    wrong = Migration(NEWEST + 1, "wrong", "create table half (a int); select no_such_column from node;")
    with pytest.raises(StoreRefusedError, match="SQLSTATE 42703"):
        empty.run(lambda connection: migrate(connection, (*migrations(), wrong)), OWNER)
    assert empty.run(schema_of).version == NEWEST
    assert empty.sql("select to_regclass('pool.half')") == ""


def test_older_and_newer_schemas(database: Database) -> None:
    coming = Migration(NEWEST + 1, "coming", "select 1")
    after = Migration(NEWEST + 2, "after", "select 1")
    schema = database.run(schema_of)
    with pytest.raises(StoreVersionError, match=f"needs {NEWEST + 1}: run `pool-server store migrate`"):
        judge(schema, (*migrations(), coming))
    database.run(lambda connection: migrate(connection, (*migrations(), coming)), OWNER)
    judge(database.run(schema_of), migrations())  # the upgrade goes node by node, and back
    database.run(lambda connection: migrate(connection, (*migrations(), coming, after)), OWNER)
    judge(database.run(schema_of), migrations())
    judge(database.run(schema_of), migrations()[:-1])
    database.run(contract, OWNER)
    judge(database.run(schema_of), migrations())
    with pytest.raises(StoreVersionError, match="`store contract` has taken away"):
        judge(database.run(schema_of), migrations()[:-1])
    with pytest.raises(StoreVersionError, match="install a newer one"):
        database.run(migrate, OWNER)


def test_a_change_of_another_text_is_told(database: Database) -> None:
    database.sql("update pool.migration set digest = 'other' where version = 1")
    with pytest.raises(StoreVersionError, match="another text"):
        judge(database.run(schema_of), migrations())
    with pytest.raises(StoreVersionError, match="another text"):
        database.run(migrate, OWNER)


def test_a_change_that_is_missing_in_between_is_told(database: Database) -> None:
    database.sql("delete from pool.migration where version = 1")
    with pytest.raises(StoreVersionError, match="1 of the schema is missing"):
        judge(database.run(schema_of), migrations())


def test_a_database_of_another_owner(server: postgres.Server, empty: Database) -> None:
    server.sql("create role stranger login")
    server.sql(f"alter database {empty.name} owner to stranger")
    try:
        with pytest.raises(StoreError, match=f"{OWNER} may not create in the database {empty.name}"):
            empty.run(migrate, OWNER)
        empty.run(migrate, "stranger")
        with pytest.raises(StoreError, match="belongs to stranger"):
            empty.run(migrate, OWNER)
        with pytest.raises(StoreError, match="belongs to stranger, not to pool_owner"):
            empty.run(migrate, postgres.SUPERUSER)
    finally:
        server.sql(f"alter database {empty.name} owner to {OWNER}")
        server.sql("drop owned by stranger cascade", empty.name)
        server.sql("drop role stranger")


def test_a_schema_of_something_else_is_left_alone(empty: Database) -> None:
    empty.sql(f"create schema pool authorization {OWNER}")
    empty.sql("create table pool.swimmers (name text)")
    with pytest.raises(StoreError, match="a schema pool of something else"):
        empty.run(migrate, OWNER)
    assert empty.sql("select count(*) from pg_class where relnamespace = 'pool'::regnamespace") == "1"


def test_roles_that_cannot_be_made_are_named(server: postgres.Server, empty: Database) -> None:
    server.sql("create role plain login")
    server.sql(f"alter database {empty.name} owner to plain")
    server.sql(f"alter role {READER} rename to pool_elsewhere") if _has(server, READER) else None
    try:
        with pytest.raises(StoreError, match=f"create role {READER} login"):
            empty.run(migrate, "plain")
    finally:
        server.sql(f"alter database {empty.name} owner to {OWNER}")
        server.sql(f"alter role pool_elsewhere rename to {READER}") if _has(server, "pool_elsewhere") else None
        server.sql("drop role plain")


def _has(server: postgres.Server, role: str) -> bool:
    return server.sql(f"select count(*) from pg_roles where rolname = '{role}'") == "1"


def test_the_node_s_role_changes_tables_by_functions_alone(database: Database) -> None:
    tables = database.sql(
        "select relname from pg_class where relnamespace = 'pool'::regnamespace and relkind in ('r', 'p')"
    )
    for table in tables.split():
        for statement in (f"delete from pool.{table}", f"truncate pool.{table}", f"drop table pool.{table}"):
            for role in (APP, READER):
                with pytest.raises(StoreRefusedError) as refused:
                    database.run(methodcaller("script", statement), role)
                assert refused.value.state == "42501"


def test_every_function_of_nodes_has_a_fixed_path_and_none_is_public(database: Database) -> None:
    loose = database.sql(
        "select proname from pg_proc where pronamespace = 'pool'::regnamespace and (has_function_privilege('pool_read',"
        " oid, 'execute') or (prosecdef and not coalesce('search_path=pool, pg_temp' = any(proconfig), false)))"
    )
    assert loose == ""


def test_what_can_be_seen_of_a_database(database: Database, empty: Database) -> None:
    def states(where: Database, role: str) -> dict[str, str]:
        place = where.place(role)
        return {one.check: one.state for one in where.run(lambda connection: inspect(connection, place), role)}

    seen = states(database, APP)
    assert {name: state for name, state in seen.items() if state != OK} == {"durability": WRONG}  # tests do not sync
    assert states(database, postgres.SUPERUSER)["role"] == WARNING
    assert states(empty, OWNER)["schema"] == WRONG


def test_nobody_there_is_one_line() -> None:
    async def call() -> None:
        place = parse(f"postgresql://pool@127.0.0.1:{postgres.free_port()}/pool", {})
        async with connected(place):
            raise AssertionError("nobody is there")

    with pytest.raises(StoreAwayError, match="does not answer"):
        asyncio.run(call())


def test_what_only_older_programs_call_goes_and_nothing_calls_it(database: Database) -> None:
    bodies = re.sub(r"--.*", "", database.sql("select prosrc from pg_proc where pronamespace = 'pool'::regnamespace"))
    assert not [name for name in SUPERSEDED if re.search(rf"\b{name}\b", bodies)]
    called = "".join(path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py") if path.name != "migrations.py")
    assert not [name for name in SUPERSEDED if re.search(rf"\b{name}\b", called)]
    before = set(database.sql(FUNCTIONS).split())
    assert sorted(database.run(contract, OWNER)) == sorted(SUPERSEDED)
    assert set(database.sql(FUNCTIONS).split()) == before - set(SUPERSEDED)
    assert database.run(contract, OWNER) == []
    assert database.run(migrate, OWNER) == []


def test_nothing_goes_while_a_node_runs_an_older_program(database: Database) -> None:
    database.sql("select pool.node_start_1('old/0', '0.0.1', '{}')")
    with pytest.raises(StoreVersionError, match=r"old/0 still runs 0\.0\.1"):
        database.run(contract, OWNER)
    assert set(SUPERSEDED) <= set(database.sql(FUNCTIONS).split())
    database.sql("update pool.node set beat = beat - interval '1 day'")
    assert database.run(contract, OWNER)


def test_who_does_not_own_the_schema_takes_nothing_away(database: Database) -> None:
    with pytest.raises(StoreRefusedError):
        database.run(contract)
    assert set(SUPERSEDED) <= set(database.sql(FUNCTIONS).split())
