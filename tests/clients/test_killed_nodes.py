"""Several machines, whose parts are killed while real CLIs work: their users see answers, and the books are whole."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pool_server.storage.postgres.migrations import APP
from tests import postgres
from tests.clients.cases import CLAUDE, CODEX, Case, missing
from tests.clients.jail import Jail, Ran, why_not
from tests.clients.stage import cast
from tests.cluster.conftest import Database
from tests.cluster.nodes import node_settings
from tests.cluster.test_each_part_killed import pair
from tests.cluster.test_served_nodes import SECRET, balanced, made
from tests.fakes import FakeProviders, plays
from tests.fakes.plays import Gate
from tests.postgres import free_port
from tests.process import PoolProcess, until

pytestmark = [
    pytest.mark.clis,
    pytest.mark.slow,
    pytest.mark.skipif(bool(why_not()), reason=why_not() or "-"),
    pytest.mark.skipif(shutil.which("haproxy") is None, reason="there is no HAProxy here"),
    pytest.mark.skipif(postgres.binaries() is None, reason="there is no PostgreSQL server here"),
]


def pump(one: socket.socket, other: socket.socket) -> None:
    """Carries bytes until either side ends."""
    with contextlib.suppress(OSError):
        while piece := one.recv(65536):
            other.sendall(piece)
    with contextlib.suppress(OSError):
        other.shutdown(socket.SHUT_WR)


def carry(inner: socket.socket, outer: socket.socket) -> None:
    with inner, outer:
        back = threading.Thread(target=pump, args=(outer, inner), daemon=True)
        back.start()
        pump(inner, outer)
        back.join()


@contextlib.contextmanager
def carried(listening: socket.socket, door: str) -> Iterator[None]:
    """What comes to a jail's port goes to the balancer."""
    place = door.rpartition(":")[2]
    listening.settimeout(0.2)
    over = threading.Event()

    def accept() -> None:
        while not over.is_set():
            try:
                inner, _ = listening.accept()
            except OSError:
                continue
            inner.settimeout(None)
            try:
                outer = socket.create_connection(("127.0.0.1", int(place)))
            except OSError:  # the balancer is away, which the client is to see
                inner.close()
                continue
            threads.append(threading.Thread(target=carry, args=(inner, outer), daemon=True))
            threads[-1].start()

    threads: list[threading.Thread] = []
    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        for one in threads:
            one.join(60)


@contextlib.contextmanager
def within_an_answer(
    fakes: FakeProviders, accounts: list[str], kill: Callable[[], None], *, before_it: bool
) -> Iterator[None]:
    """Kills once an account is asked, before its answer begins or within it; it goes on afterwards."""
    gates = [Gate() for _ in accounts]
    for name, gate in zip(accounts, gates, strict=True):
        fakes.then(name, plays.slow_headers(gate) if before_it else plays.stall(gate, at=3))

    def go() -> None:
        deadline = time.monotonic() + 60
        while not any(gate.wait_reached(0.05) for gate in gates) and time.monotonic() < deadline:
            pass
        kill()
        for gate in gates:
            gate.open()

    thread = threading.Thread(target=go)
    thread.start()
    try:
        yield
    finally:
        thread.join()


@pytest.mark.parametrize("case", [CODEX[0], CLAUDE[0]], ids=["codex", "claude"])
def test_a_cli_s_user_sees_answers_whatever_is_killed(case: Case, tmp_path: Path) -> None:
    if why := missing(case.client):
        pytest.skip(why)
    with (
        pair() as (database, standby),
        FakeProviders(accounts := cast(case, 2)) as fakes,
        contextlib.ExitStack() as stack,
    ):
        hosts = f"127.0.0.1:{database.server.port},127.0.0.1:{standby.port}"
        url = f"postgresql://{APP}@{hosts}/pool?target_session_attrs=read-write"
        nodes: list[PoolProcess] = []

        def begin(number: int) -> None:
            folder, place = tmp_path / f"m{number}", f"127.0.0.1:{free_port()}"
            settings = node_settings(folder, fakes, url, folder.name, listen_addr=place, workers=2)
            nodes.append(stack.enter_context(PoolProcess(folder, settings, env=SECRET)))

        for number in range(3):
            begin(number)
        person = made(nodes[0], "Ada", "--limit", "tokens_day=1000000000")
        door = stack.enter_context(balanced(tmp_path, [node.url for node in nodes]))
        (logs := tmp_path / "logs").mkdir()
        jail = stack.enter_context(contextlib.closing(Jail(logs)))
        stack.enter_context(carried(jail.listening, door))
        case.furnish(person["key"], home := tmp_path / "home")

        def kill_worker() -> None:
            os.kill(nodes[0].children()[0], signal.SIGKILL)

        def kill_machine(number: int) -> None:
            nodes[number].process.kill()
            nodes[number].process.wait()

        def back(number: int) -> None:
            stack.enter_context(again := PoolProcess(nodes[number].folder, nodes[number].settings, env=SECRET))
            nodes[number] = again

        def kill_primary() -> None:
            database.server.stop(signal.SIGKILL)
            time.sleep(0.5)
            standby.run("pg_ctl", "promote", "-D", str(standby.data))

        def turn(argv: list[str]) -> Ran:
            return jail.run(argv, env=case.environment(person["key"], home), cwd=home / "project")

        kills: list[Callable[[], None]] = [
            lambda: None, kill_worker, lambda: kill_machine(2), lambda: back(2), kill_primary, lambda: kill_machine(1),
            lambda: back(1), lambda: kill_machine(0), lambda: back(0),
        ]  # fmt: skip
        for number, kill in enumerate(kills):
            with within_an_answer(fakes, [one.id for one in accounts], kill, before_it=number % 2 == 1):
                ran = turn(case.first if number == 0 else case.second)
            print(f"{case.name} {number}: code {ran.code} after {ran.seconds:.1f} s")
            assert ran.code == 0 and "Hello from" in ran.out, (number, ran.out[-1500:], ran.err[-2500:])
        whole(Database(standby, "pool"), person["id"], len(kills))


def whole(database: Database, user: str, turns: int) -> None:
    """Each turn is in the books; counters and sums say what the records do."""
    count, tokens = "select count(*) from pool.record where outcome = 'ok'", "select sum(tok) from pool.record"
    until(lambda: int(database.sql(count)) >= turns, "every turn in the books")
    until(lambda: database.sql("select coalesce(sum(held_n), 0) from pool.use") == "0", "nothing held any more")
    used = f"select day_tok from pool.use where usr = '{user}' and jti = ''"
    until(lambda: database.sql(used) == database.sql(tokens), "counters that say what the records do")
    folded = "select sum(requests) from pool.rollup where grain = 'd' and dim = '-'"
    until(lambda: database.sql(folded) == database.sql("select count(*) from pool.record"), "sums that say it, too")
