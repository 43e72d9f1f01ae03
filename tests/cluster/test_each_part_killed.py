"""Three nodes of two workers behind HAProxy, on a primary with a synchronous standby: each part is killed in turn while
clients ask, and the books at the end are what the clients have seen.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pool_server.core.models import Usage
from pool_server.storage.postgres.migrations import APP, OWNER, migrate
from tests import postgres
from tests.cluster.conftest import Database
from tests.cluster.nodes import node_settings
from tests.cluster.test_served_nodes import SECRET, USED, Caller, balanced, fake_providers, made
from tests.fakes import plays
from tests.postgres import free_port
from tests.process import PoolProcess, until

NODES, WORKERS, CALLERS = 3, 2, 4
PHASE = 24  # answers between two kills, and a few more to the end


@contextlib.contextmanager
def pair(*, fsync: bool = False) -> Iterator[tuple[Database, postgres.Server]]:
    """A migrated database, and its synchronous standby."""
    programs = postgres.binaries()
    if programs is None:
        pytest.skip("there is no PostgreSQL server here (Debian: apt install postgresql)")
    with postgres.primary(programs, fsync=fsync) as primary, postgres.standby(primary) as standby:
        primary.sql(f"create role {OWNER} login createrole")
        primary.sql(f"create database pool owner {OWNER}")
        database = Database(primary, "pool")
        database.run(migrate, OWNER)
        yield database, standby


class Clients:
    """Callers that ask on and on, and what they have seen together."""

    def __init__(self, url: str, key: str) -> None:
        self.all = [Caller(url, key, 10**9) for _ in range(CALLERS)]
        for one in self.all:
            one.start()

    @property
    def answered(self) -> int:
        return sum(one.answered for one in self.all)

    def some_more(self, what: str) -> None:
        before = self.answered
        until(lambda: self.answered >= before + PHASE, f"answers {what}")
        assert [one.refused for one in self.all] == [[]] * CALLERS, what

    def end(self) -> None:
        for one in self.all:
            one.enough = 0
        for one in self.all:
            one.join(120)
            assert not one.is_alive()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("haproxy") is None, reason="there is no HAProxy here")
def test_the_books_are_what_clients_saw_whatever_is_killed(tmp_path: Path) -> None:
    with pair() as (database, standby), fake_providers() as fakes, contextlib.ExitStack() as stack:
        fakes.always("claude:one", plays.ok(Usage(input=100, output=23)))
        hosts = f"127.0.0.1:{database.server.port},127.0.0.1:{standby.port}"
        url = f"postgresql://{APP}@{hosts}/pool?target_session_attrs=read-write"
        nodes = []
        for number in range(NODES):
            folder, port = tmp_path / f"m{number}", free_port()
            settings = node_settings(
                folder, fakes, url, folder.name, store_wait_s=60.0, listen_addr=f"127.0.0.1:{port}", workers=WORKERS
            )
            nodes.append(stack.enter_context(PoolProcess(folder, settings, env=SECRET)))
        person = made(nodes[0], "Ada", "--limit", "tokens_day=1000000000")
        door = stack.enter_context(balanced(tmp_path, [node.url for node in nodes]))
        clients = Clients(door, person["key"])
        clients.some_more("of all")

        os.kill(nodes[0].children()[0], signal.SIGKILL)
        clients.some_more("after a worker was killed, the one that leads")
        os.kill(nodes[1].children()[1], signal.SIGKILL)
        clients.some_more("after another one's worker was killed")

        nodes[2].process.kill()
        nodes[2].process.wait()
        clients.some_more("after a machine was killed")
        stack.enter_context(again := PoolProcess(nodes[2].folder, nodes[2].settings, env=SECRET))
        clients.some_more("after it came back")

        database.server.stop(signal.SIGKILL)
        time.sleep(0.5)  # as long as whoever watches takes to notice, in haste
        standby.run("pg_ctl", "promote", "-D", str(standby.data))
        clients.some_more("after the primary was killed and its standby promoted")

        for node in (nodes[0], nodes[1]):
            node.process.kill()
            node.process.wait()
            stack.enter_context(PoolProcess(node.folder, node.settings, env=SECRET))
            clients.some_more("after yet another machine was killed and came back")
        clients.end()
        assert again.process.poll() is None
        compare(Database(standby, "pool"), person["id"], clients.answered, len(fakes.made()))


def compare(database: Database, user: str, seen: int, served: int) -> None:
    """What clients saw is in the books; these have nothing that was not served, and the counters say the same."""

    def told() -> int:
        return int(database.sql("select count(*) from pool.record where outcome = 'ok'"))

    until(lambda: told() >= seen, "every answer in the books")
    until(lambda: database.sql("select coalesce(sum(held_n), 0) from pool.use") == "0", "nothing held any more")
    assert seen <= told() <= served
    assert database.sql("select sum(tok) from pool.record where outcome = 'ok'") == str(USED * told())
    used = f"select day_tok from pool.use where usr = '{user}' and jti = ''"
    whole = f"select sum(tok) from pool.record where usr = '{user}'"
    until(lambda: database.sql(used) == database.sql(whole), "counters that say what the records do")
    folded = "select sum(requests) from pool.rollup where grain = 'd' and dim = '-'"
    records = "select count(*) from pool.record"
    until(lambda: database.sql(folded) == database.sql(records), "sums that say what the records do")
