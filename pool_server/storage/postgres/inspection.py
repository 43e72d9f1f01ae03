"""What can be seen of a database: can a pool run on it, and how safely. Changes nothing a table holds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import NamedTuple

from pool_server.storage.errors import StoreError
from pool_server.storage.postgres.connection import PROVE, Connection
from pool_server.storage.postgres.migrations import APP, OLDEST_SERVER, SCHEMA, judge, migrations, schema_of
from pool_server.storage.postgres.url import DatabaseUrl

OK, WARNING, WRONG = "ok", "warning", "wrong"
_FOLLOWS_S = 5.0  # in which a commit reaches a standby that is there
CLOCK_S = 5.0  # apart; the database's clock decides, a node's own only what it logs and shows

_FACTS = """
select current_setting('server_version') as version, current_setting('server_version_num')::int as number,
  current_user as me, rolsuper as super, pg_is_in_recovery() as standby, ssl as tls,
  extract(epoch from clock_timestamp())::float8 as clock, current_setting('fsync') as fsync,
  current_setting('synchronous_commit') as sync,
  current_setting('synchronous_standby_names') as names
from pg_roles, pg_stat_ssl where rolname = current_user and pid = pg_backend_pid()
"""
_RIGHTS = """
select has_table_privilege($1 || '.' || name, 'insert, update, delete') as may, name from unnest($2::text[]) as name
  where to_regclass($1 || '.' || name) is not null
"""
# By section of the settings: the living nodes whose mark is another one than most have.
OTHERWISE = f"""
with marks as (
  select n.name, s.key as section, s.value as mark from {SCHEMA}.node n, jsonb_each_text(n.settings) s
  where n.dead is null and clock_timestamp() - n.beat < interval '60 s'),
usual as (select section, mode() within group (order by mark) as mark from marks group by section)
select m.section, string_agg(distinct m.name, ', ') as names from marks m join usual u using (section)
where m.mark <> u.mark group by m.section order by m.section
"""
_GUARDED = ["node", "lease"]  # changed by functions alone


class DatabaseFinding(NamedTuple):
    """What one look found. `fix` says what to do, "" where nothing needs doing."""

    check: str
    state: str
    message: str
    fix: str = ""


async def inspect(connection: Connection, url: DatabaseUrl) -> list[DatabaseFinding]:
    """Everything that is seen with one connection."""
    before = time.time()
    facts = await connection.row(_FACTS)
    assert facts is not None
    apart = max(0.0, before - facts["clock"], facts["clock"] - time.time())
    found = [*_server(dict(facts.items()), url), await _durability(connection, dict(facts.items())), _clock(apart)]
    try:
        schema = await schema_of(connection)
        judge(schema, migrations())
    except StoreError as exc:
        return [*found, DatabaseFinding("schema", WRONG, str(exc))]
    found.append(DatabaseFinding("schema", OK, f"at {schema.version}, of {schema.owner}"))
    return [
        *found,
        await _rights(connection, facts["me"], superuser=facts["super"]),
        await _nodes(connection),
        await _settings(connection),
    ]


def _server(facts: dict[str, object], url: DatabaseUrl) -> Iterator[DatabaseFinding]:
    if int(str(facts["number"])) < OLDEST_SERVER:
        yield DatabaseFinding("server", WRONG, f"PostgreSQL {facts['version']}", "14 is the oldest that is served")
    elif facts["standby"]:
        yield DatabaseFinding(
            "server", WRONG, "this is a standby", "name all servers, with target_session_attrs=read-write"
        )
    else:
        yield DatabaseFinding("server", OK, f"PostgreSQL {facts['version']}, primary")
    yield _tls(bool(facts["tls"]), url)


async def _durability(connection: Connection, facts: dict[str, object]) -> DatabaseFinding:
    """Whether a commit is kept. Which standby follows is told to superusers alone: so one is tried."""
    if facts["fsync"] != "on" or facts["sync"] in ("off", "local"):
        return DatabaseFinding(
            "durability", WRONG, f"fsync is {facts['fsync']}, synchronous_commit {facts['sync']}",
            "turn both on: records are lost otherwise",
        )  # fmt: skip
    if not facts["names"]:
        return DatabaseFinding(
            "durability", WARNING, "no synchronous standby: what this machine loses is lost",
            "a standby, and synchronous_standby_names",
        )  # fmt: skip
    try:
        async with asyncio.timeout(_FOLLOWS_S):
            await connection.value(PROVE)
    except TimeoutError:
        return DatabaseFinding(
            "durability", WRONG, "no synchronous standby follows, so that nothing can be committed", "start it"
        )
    except StoreError as exc:
        return DatabaseFinding("durability", WRONG, str(exc))
    return DatabaseFinding("durability", OK, "a commit reaches the synchronous standby")


def _tls(on: bool, url: DatabaseUrl) -> DatabaseFinding:
    if not url.remote:
        return DatabaseFinding("TLS", OK, "this machine" + (", encrypted" if on else ""))
    if url.mode == "verify-full":
        return DatabaseFinding("TLS", OK, "encrypted, and the server's name is verified")
    how = "encrypted, and the server's name is not verified" if on else "not encrypted"
    return DatabaseFinding("TLS", WARNING, how, "sslmode=verify-full in store_url")


def _clock(apart: float) -> DatabaseFinding:
    if apart > CLOCK_S:
        return DatabaseFinding("clock", WARNING, f"{apart:.0f} s from the database's", "let NTP set both")
    return DatabaseFinding("clock", OK, "that of the database")


async def _rights(connection: Connection, me: str, *, superuser: bool) -> DatabaseFinding:
    if superuser:
        return DatabaseFinding("role", WARNING, f"{me} is a superuser", f"let nodes come as {APP}")
    if not await connection.value("select has_schema_privilege($1, 'usage')", SCHEMA):
        return DatabaseFinding("role", WRONG, f"{me} may not use the schema {SCHEMA}", f"let nodes come as {APP}")
    functions = await connection.rows(
        "select proname from pg_proc where pronamespace = $1::text::regnamespace and prosecdef"
        " and not has_function_privilege(oid, 'execute')",
        SCHEMA,
    )
    if functions:
        return DatabaseFinding(
            "role", WRONG, f"{me} may not call {functions[0]['proname']}", f"let nodes come as {APP}"
        )
    direct = [row["name"] for row in await connection.rows(_RIGHTS, SCHEMA, _GUARDED) if row["may"]]
    if direct:
        return DatabaseFinding("role", WARNING, f"{me} may write tables directly", f"let nodes come as {APP}")
    return DatabaseFinding("role", OK, f"{me}: calls functions, writes no table")


async def _nodes(connection: Connection) -> DatabaseFinding:
    rows = await connection.rows(
        f"select name, program, clock_timestamp() - beat < interval '10 s' as heard from {SCHEMA}.node"
        " where dead is null order by name"
    )
    programs = {row["program"] for row in rows}
    told = ", ".join(f"{row['name']} {row['program']}" + ("" if row["heard"] else " (silent)") for row in rows)
    if len(programs) > 1:
        return DatabaseFinding("nodes", WARNING, f"of several versions: {told}", "end the upgrade")
    return DatabaseFinding("nodes", OK, told or "none")


async def _settings(connection: Connection) -> DatabaseFinding:
    rows = await connection.rows(OTHERWISE)
    if not rows:
        return DatabaseFinding("settings", OK, "the same on all machines, but for what may be each one's own")
    told = "; ".join(f"{row['section'] or 'those of no section'} on {row['names']}" for row in rows)
    return DatabaseFinding("settings", WARNING, f"other than on most machines: {told}", "let their files say the same")
