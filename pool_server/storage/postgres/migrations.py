"""The schema `pool` and its numbered changes. Each is one transaction under a lock: a change that was cut off has not
happened, and the next run goes on from there. A change that ran is never edited; its digest tells if it was.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from pool_server import __version__
from pool_server.storage.errors import StoreError, StoreVersionError
from pool_server.storage.postgres.connection import Connection

SCHEMA = "pool"
OWNER, APP, READER = "pool_owner", "pool_app", "pool_read"
OLDEST_SERVER = 140000
_LOCK = 0x706F6F6C  # "pool"
_CONTRACTED = "contracted at "  # what the schema's comment says, and the version
RUN_MIGRATE = "run `pool-server store migrate`"
# Functions that no program of this version calls, nor another function: older ones do while nodes are upgraded.
SUPERSEDED = ("admit_1", "admit_2", "credential_put_1", "hold_sync_1", "ship_1", "ship_2", "ship_3")

_BEGIN = f"""
set local search_path = {SCHEMA}, pg_temp;
set local client_min_messages = warning;
create table if not exists migration (
  version int primary key, name text not null, digest text not null, program text not null,
  at timestamptz not null default clock_timestamp());
grant usage on schema {SCHEMA} to {APP}, {READER};
grant select on migration to {APP}, {READER};
"""
_END = f"""
revoke execute on all functions in schema {SCHEMA} from public;
do $$
declare f regprocedure;
begin  -- what runs with the owner's rights is for nodes; the rest is called by those functions alone
  for f in select oid from pg_proc where pronamespace = '{SCHEMA}'::regnamespace and prosecdef loop
    execute format('grant execute on function %s to {APP}', f);
  end loop;
end $$;
"""


class Migration(NamedTuple):
    version: int
    name: str
    sql: str

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()[:32]


class Schema(NamedTuple):
    """What a database holds: the changes that ran (none where the schema is not there), who owns it, and at which
    version what only older programs call was taken away."""

    ran: dict[int, str]  # version → digest
    owner: str | None
    contracted: int = 0

    @property
    def version(self) -> int:
        return max(self.ran, default=0)


@cache
def migrations() -> tuple[Migration, ...]:
    """All changes this program knows, in order."""
    found = []
    for entry in files("pool_server.storage.postgres").joinpath("sql").iterdir():
        number, _, name = entry.name.removesuffix(".sql").partition("_")
        found.append(Migration(int(number), name, entry.read_text(encoding="utf-8")))
    return tuple(sorted(found))


async def schema_of(connection: Connection) -> Schema:
    """Raises StoreError where the schema is somebody else's making."""
    row = await connection.row(
        "select pg_get_userbyid(nspowner) as owner, has_schema_privilege(nspname, 'usage') as allowed, exists"
        " (select from pg_class where relnamespace = n.oid and relname = 'migration') as made,"
        " obj_description(oid, 'pg_namespace') as told from pg_namespace n where nspname = $1",
        SCHEMA,
    )
    if row is None:
        return Schema({}, None)
    if not row["allowed"]:
        raise StoreError(f"the schema {SCHEMA} belongs to {row['owner']}, and this role may not use it")
    if not row["made"]:
        objects = await connection.value(
            "select count(*) from pg_class c join pg_namespace n on n.oid = relnamespace where nspname = $1", SCHEMA
        )
        if objects:
            raise StoreError(
                f"the database holds a schema {SCHEMA} of something else: give the pool a database of its own"
            )
        return Schema({}, row["owner"])
    ran = await connection.rows(f"select version, digest from {SCHEMA}.migration")
    _, _, contracted = (row["told"] or "").partition(_CONTRACTED)
    return Schema(
        {one["version"]: one["digest"] for one in ran}, row["owner"], int(contracted) if contracted.isdecimal() else 0
    )


def judge(schema: Schema, known: tuple[Migration, ...]) -> None:
    """Whether this program can run on the schema: not older than it needs, nor so new that what it calls is gone, since
    programs are upgraded one by one, and back. Raises StoreVersionError."""
    newest = known[-1].version
    if schema.version < newest:
        raise StoreVersionError(f"the schema is at {schema.version}, this program needs {newest}: {RUN_MIGRATE}")
    if schema.contracted > newest:
        raise StoreVersionError(
            f"the schema is at {schema.version}, this program knows {newest}, and `store contract` has taken away what"
            " such programs call: install a newer one"
        )
    _undisturbed(schema, known)


def _undisturbed(schema: Schema, known: tuple[Migration, ...]) -> None:
    for one in known:
        if schema.ran.get(one.version, one.digest) != one.digest:
            raise StoreVersionError(f"change {one.version} of the schema was made by a program with another text of it")
    missing = set(range(1, schema.version + 1)) - schema.ran.keys()
    if missing:
        raise StoreVersionError(f"change {min(missing)} of the schema is missing below {schema.version}")


async def migrate(connection: Connection, known: tuple[Migration, ...] | None = None) -> list[Migration]:
    """Brings the schema to what this program knows; returns what ran. Raises StoreError."""
    known = migrations() if known is None else known
    await _prepare(connection)
    ran: list[Migration] = []
    while True:
        async with connection.transaction():
            await connection.value("select pg_advisory_xact_lock($1)", _LOCK)
            schema = await schema_of(connection)
            if schema.version > known[-1].version:
                raise StoreVersionError(
                    f"the schema is at {schema.version}, this program knows {known[-1].version}: install a newer one"
                )
            _undisturbed(schema, known)
            change = next((one for one in known if one.version > schema.version), None)
            if change is None:
                return ran
            await connection.script(_BEGIN)
            await connection.script(change.sql)
            await connection.script(_END)
            await connection.rows(
                "insert into migration (version, name, digest, program) values ($1, $2, $3, $4)",
                change.version, change.name, change.digest, __version__,
            )  # fmt: skip
            ran.append(change)


async def contract(connection: Connection) -> list[str]:
    """Takes away what only programs before this one call; returns the functions that went. Raises StoreError while a
    node runs such a program."""
    schema = await schema_of(connection)
    judge(schema, migrations())
    async with connection.transaction():
        await connection.value("select pg_advisory_xact_lock($1)", _LOCK)
        others = await connection.rows(
            f"select name, program from {SCHEMA}.node where dead is null and program <> $1"
            " and clock_timestamp() - beat < interval '1 minute' order by name",
            __version__,
        )
        if others:
            raise StoreVersionError(f"{others[0]['name']} still runs {others[0]['program']}: upgrade every node first")
        found = await connection.rows(
            "select oid::regprocedure::text as function, proname from pg_proc"
            " where pronamespace = $1::text::regnamespace and proname = any ($2::text[]) order by proname",
            SCHEMA, list(SUPERSEDED),
        )  # fmt: skip
        for row in found:
            await connection.script(f"drop function {row['function']}")
        await connection.script(f"comment on schema {SCHEMA} is '{_CONTRACTED}{migrations()[-1].version}'")
    return [row["proname"] for row in found]


async def _prepare(connection: Connection) -> None:
    """Roles and an empty schema of the owner's. Raises StoreError."""
    facts = await connection.row(
        "select current_setting('server_version_num')::int as version, current_user as me, current_database() as db,"
        " pg_encoding_to_char(encoding) as encoding, rolsuper as super, rolsuper or rolcreaterole as may_make,"
        " has_database_privilege(current_database(), 'create') as may_create, pg_is_in_recovery() as standby"
        " from pg_database, pg_roles where datname = current_database() and rolname = current_user"
    )
    assert facts is not None
    if facts["version"] < OLDEST_SERVER:
        raise StoreError(f"PostgreSQL {facts['version'] // 10000} is too old: 14 is the oldest")
    if facts["encoding"] != "UTF8":
        raise StoreError(f"the database has the encoding {facts['encoding']}: create one with UTF8")
    if facts["standby"]:
        raise StoreError("this is a standby: migrate on the primary")
    async with connection.transaction():
        await connection.value("select pg_advisory_xact_lock($1)", _LOCK)
        await _roles(connection, may_make=facts["may_make"], superuser=facts["super"])
        if facts["super"]:  # functions run with the rights of their owner, which must not be those of a superuser
            await connection.script(f"grant create on database {_quoted(facts['db'])} to {OWNER}")
        elif not facts["may_create"] and (await schema_of(connection)).owner is None:
            raise StoreError(
                f"the role {facts['me']} may not create in the database {facts['db']}: its owner may, or grant create"
            )
    owner = (await schema_of(connection)).owner
    me = OWNER if facts["super"] else facts["me"]
    if owner not in (None, me):
        raise StoreError(f"the schema {SCHEMA} belongs to {owner}, not to {me}: migrate as {owner}")
    if facts["super"]:
        await connection.script(f"set role {OWNER}")
    if owner is None:
        await connection.script(f"create schema if not exists {SCHEMA}")


async def _roles(connection: Connection, *, may_make: bool, superuser: bool) -> None:
    wanted = [APP, READER] + ([OWNER] if superuser else [])
    there = {
        row["rolname"] for row in await connection.rows("select rolname from pg_roles where rolname = any($1)", wanted)
    }
    missing = [role for role in wanted if role not in there]
    if missing and not may_make:
        raise StoreError(
            "roles are missing: let a superuser say " + "; ".join(f"create role {one} login" for one in missing)
        )
    for role in missing:
        await connection.script(f"create role {role} login")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
