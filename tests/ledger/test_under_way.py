"""An exchange that was under way when the process was killed is in the books, once, as cut."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pool_server.app.server import open_durable
from pool_server.core.models import Usage, UsageRecord
from pool_server.core.settings import Settings
from pool_server.ledger import TABLES, Ledger
from pool_server.storage import Store
from pool_server.storage.slots import MOST_BYTES, PREFIX
from tests.fakes import FakeProviders, Gate, Play, account, fake_settings, plays
from tests.gateway.stack import messages
from tests.ledger.ledger_kit import NOW, Clock, exchange, ledger_in
from tests.process import PATIENCE_S, PoolProcess, until

STARTED = Usage(input=700, cache_read=30, output=5, known=True)


def under_way(ident: str, **more: object) -> UsageRecord:
    rec = exchange(ident)
    rec.outcome, rec.partial, rec.cost = "cut", True, None
    for name, value in more.items():
        setattr(rec, name, value)
    return rec


async def steps(folder: Path, what: str) -> None:
    """What a process does before it is killed."""
    store = Store.open(folder / "ledger", tables=TABLES, durable=True)
    book = Ledger(store, Settings(), clock=Clock(), write_ahead=True)
    await book.start()
    book.begin(under_way("first", usage=Usage(input=10, known=True)))
    book.begin(under_way("first", usage=Usage(input=10, output=7, known=True)))
    book.begin(under_way("second"))
    if what == "recorded":
        assert await book.record(exchange("second"))
    elif what == "stored":
        await book.record(exchange("second"))
        await book.fresh()
    elif what == "given up":
        book.begin(under_way("third", agent="x" * (2 * MOST_BYTES)))


def main(folder: str, what: str) -> None:
    asyncio.run(steps(Path(folder), what))
    os.kill(os.getpid(), signal.SIGKILL)


def killed(folder: Path, what: str) -> None:
    here = Path(__file__)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here.parent), str(here.parents[2])])}
    script = f"import sys; from {here.stem} import main; main(*sys.argv[1:])"
    done = subprocess.run([sys.executable, "-c", script, str(folder), what], env=env, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL


@pytest.mark.parametrize("what", ["begun", "recorded", "stored", "given up"])
def test_what_was_under_way_is_recorded_once_as_cut(tmp_path: Path, what: str) -> None:
    killed(tmp_path, what)
    ended = what in ("recorded", "stored")
    for _ in range(2):
        with ledger_in(tmp_path) as book:
            found = {rec.id: rec for rec in book.log.scan(NOW - 60, NOW + 60)}
            assert set(found) == {"first", "second"}
            assert (found["first"].outcome, found["first"].partial) == ("cut", True)
            assert found["first"].usage.output == 7, "what was told last"
            assert found["first"].cost and found["first"].cost > 0
            assert found["second"].outcome == ("ok" if ended else "cut")
            assert book.queries.total(NOW - 60, NOW + 60)["requests"] == 2
    assert list((tmp_path / "ledger").glob(f"{PREFIX}*")) == []


def test_what_ended_well_leaves_nothing(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "ledger", tables=TABLES, durable=True)
    book = Ledger(store, Settings(), clock=Clock(), write_ahead=True)

    async def go() -> None:
        await book.start()
        for number in range(5):
            book.begin(under_way(f"r{number}"))
        assert list((tmp_path / "ledger").glob(f"{PREFIX}*"))
        await asyncio.gather(*(book.record(exchange(f"r{number}")) for number in range(5)))
        await asyncio.sleep(0)
        assert book._under_way is not None and len(book._under_way) == 0
        await book.close()

    asyncio.run(go())
    store.close()
    assert list((tmp_path / "ledger").glob(f"{PREFIX}*")) == []


def test_what_cannot_be_read_hides_nothing(tmp_path: Path) -> None:
    killed(tmp_path, "begun")
    (path,) = (tmp_path / "ledger").glob(f"{PREFIX}*")
    raw = bytearray(path.read_bytes())
    at = raw.index(b"second") - 3
    raw[at] ^= 0xFF  # spoilt content: its checksum tells
    path.write_bytes(bytes(raw))
    with ledger_in(tmp_path) as book:
        assert [rec.id for rec in book.log.scan(NOW - 60, NOW + 60)] == ["first"]


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("begun", ["before the answer", "within the answer"])
def test_a_killed_server_has_its_upstream_calls_in_the_books(tmp_path: Path, workers: str, begun: str) -> None:
    gate = Gate()
    within = begun == "within the answer"
    play = Play(usage=STARTED, gate=gate, gate_at=5) if within else plays.slow_headers(gate)
    with FakeProviders([account("claude:one")]) as fakes:
        fakes.then("claude:one", play)
        settings = fake_settings(tmp_path, fakes)
        with PoolProcess(tmp_path, settings, "--workers", workers) as pool:
            host, port = pool.url.removeprefix("http://").split(":")
            client = http.client.HTTPConnection(host, int(port), timeout=PATIENCE_S)
            body = json.dumps(messages(session="s"))
            client.request("POST", "/v1/messages", body, {"Content-Type": "application/json"})
            assert gate.wait_reached()
            if within:
                assert client.getresponse().status == 200
            killed_all = [*children(pool.process.pid), pool.process.pid]
            for pid in killed_all:
                os.kill(pid, signal.SIGKILL)
            pool.wait()
            until(lambda: not any(map(runs, killed_all)), "all are gone")  # a worker holds its files until it is gone
            client.close()
            gate.open()
    store = open_durable(Path(settings.data_dir))
    try:
        (rec,) = Ledger(store, settings).log.scan(0, 1e11)
    finally:
        store.close()
    assert (rec.account, rec.outcome, rec.partial, rec.provider) == ("claude:one", "cut", True, "claude")
    assert "killed" in rec.message
    if within:
        assert rec.usage.input == STARTED.input and rec.usage.known
    else:
        assert rec.usage.estimated and rec.usage.input > 0


def runs(pid: int) -> bool:
    """A process is a zombie while other threads of it still end, and hold its files."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
        return state not in "ZX" or len(os.listdir(f"/proc/{pid}/task")) > 1
    except OSError:
        return False


def children(pid: int) -> list[int]:
    try:
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]
    except OSError:
        return []
