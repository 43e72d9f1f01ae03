"""The ledger of several machines, on one PostgreSQL of this machine:

    python -m benchmarks.cluster_ledger [--records 10000] [--shipped 5000] [--folder F]

Seeds a year as `benchmarks.ledger` does and asks the pages' questions, then records so many exchanges more as a node
does, each of which is done when the database has it: how many a second, and how soon they are in the sums.
`--folder` keeps the database for a next time, so that a large year is made once.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

from benchmarks.ledger import BATCH, NOW, Source, ask, line, year
from pool_server.cluster.ledger.database_ledger import DatabaseLedger
from pool_server.cluster.ledger.record_shipping import MOST
from pool_server.core.settings import LedgerSettings, Settings
from pool_server.ledger import TABLES, Ledger
from pool_server.ledger.rollups.writer import PendingRecord
from pool_server.storage import Store
from pool_server.storage.postgres.connection import Connection, connected
from pool_server.storage.postgres.migrations import APP, migrate
from pool_server.storage.postgres.url import parse
from tests import postgres


@contextlib.contextmanager
def database(folder: Path | None) -> Iterator[postgres.Server]:
    """A server with an empty pool, or with the one that the folder holds."""
    programs = postgres.binaries()
    if programs is None:
        sys.exit("there is no PostgreSQL server here (Debian: apt install postgresql)")
    if folder is None or not (folder / "data").exists():
        with postgres.folder() if folder is None else contextlib.nullcontext(folder) as here:
            here.mkdir(parents=True, exist_ok=True)
            postgres.give(here)
            with postgres.running(postgres.Server(programs, here, fsync=True), create=True) as server:
                server.sql("create database pool")
                yield server
        return
    with postgres.running(postgres.Server(programs, folder, fsync=True)) as server:
        yield server


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--shipped", type=int, default=5_000)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    with database(given.folder) as server, tempfile.TemporaryDirectory() as own:
        node = asyncio.run(prepared(server))
        port = DatabaseLedger(parse(server.url("pool", APP), {}), lambda: node, "UTC", mine=lambda: True)
        settings = Settings(ledger=LedgerSettings(retention_days=400))
        with closing(Store.open(Path(own) / "ledger", tables=TABLES, durable=False)) as store, closing(port):
            ledger = Ledger(store, settings, clock=lambda: NOW, port=port)
            seed(server, ledger, given.records)
            ask(ledger, None)
            asyncio.run(shipped(ledger, given.shipped))
            shipped_alone(server, port, given.shipped)
            began = time.perf_counter()
            port.fold()
            line("… and in the sums after", f"{time.perf_counter() - began:.1f} s")


async def prepared(server: postgres.Server) -> int:
    """The number of a node in the database, which has the newest schema."""
    async with connected(parse(server.url("pool"), {})) as connection:
        await migrate(connection)
        return await _node(connection)


async def _node(connection: Connection) -> int:
    name = secrets.token_hex(4)
    return int(await connection.value("select id from pool.node_start_1($1, 'benchmark', '{}')", name))


def seed(server: postgres.Server, ledger: Ledger, records: int) -> None:
    found = int(server.sql("select count(*) from pool.record", "pool"))
    made, began = islice(year(records), found, None) if found < records else iter(()), time.perf_counter()
    while batch := list(islice(made, BATCH)):
        ledger.load(batch)
    took = time.perf_counter() - began
    line(f"{found:,} records found, all {records:,} seeded", f"{max(0, records - found) / took:,.0f}/s")
    server.sql("vacuum analyze", "pool")


async def shipped(ledger: Ledger, records: int) -> None:
    source, began, times = Source(int(time.time())), time.perf_counter(), []

    async def one(number: int) -> None:
        record = source.one(number, NOW - records / 1000 + number / 1000)
        record.id = f"ship-{secrets.token_hex(6)}-{number}"
        started = time.perf_counter()
        assert await ledger.record(record)
        times.append(time.perf_counter() - started)

    await asyncio.gather(*(one(number) for number in range(records)))
    took = time.perf_counter() - began
    line(f"{records:,} exchanges recorded at once", f"{records / took:,.0f}/s", "goal 10,000/s")


def shipped_alone(server: postgres.Server, port: DatabaseLedger, records: int) -> None:
    """What a journal costs that waited for the database: processor time, which neighbours do not change as they change
    a wall clock."""
    source, now = Source(int(time.time())), time.time()
    found = [source.one(number, now - records / 1000 + number / 1000) for number in range(records)]
    for record in found:
        record.id = f"{int(record.at * 1000):011x}{secrets.token_hex(7)[:13]}"
    entries = [PendingRecord(record) for record in found]
    before, began = _processor_s(server), time.thread_time()

    async def ship() -> float:
        began = time.thread_time()
        for start in range(0, records, MOST):
            await port._shipping.ship(port._thread.pool, entries[start : start + MOST])
        return time.thread_time() - began

    node = port._thread.run(ship()) + time.thread_time() - began
    there = _processor_s(server) - before
    told = f"{node / records * 1e6:.0f} µs of the node, {there / records * 1e6:.0f} µs of the database a record"
    line(f"{records:,} records shipped, processor time", told, "100 µs each are 10,000/s")


def _processor_s(server: postgres.Server) -> float:
    """Of all processes of the server, the ended ones too."""
    total = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if server.pid in (int(stat.parent.name), int(fields[1])):
                total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
