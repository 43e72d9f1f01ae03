"""`pool-server store import`: a pool's folder into the database, once or often, with the pool going on there."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from pool_server.app.server import open_durable
from pool_server.core.enums import Source
from pool_server.core.models import Usage, UsageRecord, WindowObservation
from pool_server.core.settings import Settings
from pool_server.ledger import Field, Filters, Ledger
from pool_server.ledger.records.codec import unpack
from pool_server.ledger.records.days import Days, Era, eras_note
from pool_server.ledger.records.layout import NOTES
from pool_server.ledger.rollups.time_slices import ERAS
from pool_server.storage import lock_folder
from pool_server.storage.errors import StoreRefusedError
from pool_server.storage.postgres.connection import Connection
from pool_server.storage.postgres.ledger_calls import ShippedRecord, ship
from pool_server.users.embedded_people import EmbeddedPeople
from pool_server.users.models import AdminToken, AuditRow, Code, Key, User
from pool_server.users.ports import Arrival, Person, Trail
from tests.cli.conftest import Shell, folder, sh
from tests.cluster.conftest import Database
from tests.ledger import ledger_kit

__all__ = ["folder", "sh"]
DAY = 86_400.0


def fill(data: Path, records: int = 700) -> list[UsageRecord]:
    """A pool with people and a year of use."""
    data.mkdir(exist_ok=True)
    durable = open_durable(data)
    chance = random.Random(7)
    people = EmbeddedPeople(durable)

    async def make() -> None:
        await people.code_make(Code("c1", "hash", 1.0, 5), Trail([]))
        for n, name in enumerate(("Ann", "Bob", "Ém\u0456le")):
            keys = [
                Key(f"k{n}{i}", f"u{n}", "laptop", 1.0, limits={"tokens_month": 10**9} if i else {}) for i in range(2)
            ]
            trail = Trail([AuditRow(1.0, "admin", "a", "root\0", "192.0.2.1", "user.add", f"u{n}")])
            await people.create(Person(User(f"u{n}", name, 1.0), keys), trail, Arrival("c1", None, b"id%d" % n))
        await people.token_make(AdminToken("t1", b"hash", "ci", ["read"], 1.0), 9, Trail([]))

    asyncio.run(make())
    made = []
    for n in range(records):
        at = time.time() - (chance.random() * 365 * DAY if n % 5 else chance.random() * 3600)
        usage = Usage(input=chance.randrange(10_000), output=chance.randrange(3_000))
        user = chance.randrange(3)
        made.append(
            UsageRecord(
                f"r{n}", at, f"u{user}", "codex", "codex:a", "gpt-5", usage=usage, cost=n / 1000, key=f"k{user}1"
            )
        )
    made.append(UsageRecord("odd\0", 1.5, "nobody\0", model="\0", cost=float("inf"), usage=Usage(input=1)))
    ledger = Ledger(durable, msgspec.structs.replace(Settings(), data_dir=str(data)))
    ledger.load(made)
    durable.close()
    return made


def test_a_pool_is_moved_and_moved_again(sh: Shell, folder: Path, database: Database) -> None:
    made = fill(folder / "data")
    first = sh("store", "import", "--json", "--url", database.url()).json
    assert first["people"] == {"new": 3, "all": 3} and first["keys"] == {"new": 6, "all": 6}
    stored = len(made)
    assert first["records"] == {"new": stored, "all": stored}
    expected = f"{stored}|{sum(record.usage.total for record in made)}"
    assert database.sql("select count(*), sum(tok) from pool.record") == expected
    counted = database.sql("select usr, jti, month_tok > 0, day_tok > 0 from pool.use order by 1, 2").splitlines()
    assert len(counted) == 6 and counted[0] == "u0||t|t"

    database.sql("update pool.key set body = null where jti = 'k00'")  # the pool goes on: a key is revoked there
    again = sh("store", "import", "--json", "--url", database.url()).json
    assert [again[what]["new"] for what in ("people", "keys", "codes", "records")] == [0, 0, 0, 0]
    assert database.sql("select count(*), sum(tok) from pool.record") == expected
    assert database.sql("select body is null from pool.key where jti = 'k00'") == "t"
    assert database.sql("select count(*) from pool.audit") == "3"
    assert sh("store", "import", "--url", database.url()).out.startswith("people: 0 new of 3\n")


def test_what_is_moved_is_the_record_itself(sh: Shell, folder: Path, database: Database) -> None:
    fill(folder / "data", 60)
    sh("store", "import", "--url", database.url())

    async def read(connection: Connection) -> list[UsageRecord]:
        return [unpack(row["body"]) for row in await connection.rows("select body from pool.record")]

    durable = open_durable(folder / "data")
    try:
        log = Ledger(durable, Settings()).log
        assert sorted(database.run(read), key=lambda record: record.at) == list(log.scan(0, time.time() + 1))
    finally:
        durable.close()


def test_the_counters_are_those_the_folder_s_limits_had(sh: Shell, folder: Path, database: Database) -> None:
    fill(folder / "data")
    sh("store", "import", "--url", database.url())
    durable = open_durable(folder / "data")
    try:
        month = time.strftime("%Y-%m-01", time.gmtime())
        used = Ledger(durable, Settings()).used_by_user(
            "u1", time.mktime(time.strptime(month, "%Y-%m-%d")) - time.timezone
        )
    finally:
        durable.close()
    assert database.sql("select month_tok from pool.use where usr = 'u1' and jti = ''") == str(
        used["input"] + used["output"]
    )


def sums_of(book: Ledger, now: float) -> list[object]:
    """What is asked of a year, of its parts and of its people; and of single exchanges."""
    told: list[object] = [book.queries.summary(now - back * DAY, now + 60) for back in (400, 200, 85, 1)]
    told += [book.queries.series("user", "day", now - 370 * DAY, now, metric="cost"), book.runway.series()]
    fields: tuple[Field, ...] = ("user", "account", "key")
    told += [book.queries.top(field, now - 300 * DAY, now + 60, Filters(user="u1")) for field in fields]
    return [*told, list(book.log.export("jsonl", 0, now + 60))]


def test_a_year_moved_twice_has_the_same_sums(sh: Shell, folder: Path, database: Database) -> None:
    """Also of days of which the records are forgotten, and of those that began elsewhere."""
    now = time.time()
    moved = Days("Asia/Tokyo").start(now - 120 * DAY)
    durable = open_durable(folder / "data")
    durable.write(lambda txn: txn.put(NOTES, ERAS, eras_note([Era(0, "UTC"), Era(moved, "Asia/Tokyo")])))
    durable.close()
    fill(folder / "data", 400)
    durable = open_durable(folder / "data")
    try:
        book = Ledger(durable, Settings())

        async def use() -> None:
            book.observe("codex:a", WindowObservation("5h", 18_000, 12.5, None, Source.HEADERS, now))
            await book.record(UsageRecord("recent", now, "u1", "codex", "codex:a", "gpt-5", usage=Usage(input=7)))
            await book.prune()
            await durable.flush()

        asyncio.run(use())
        assert len(list(book.log.scan(0, now + 60))) < 300
        expected = sums_of(book, now)
        for _ in range(2):
            durable.close()
            sh("store", "import", "--url", database.url())
            durable = open_durable(folder / "data")
            with closing(ledger_kit.database_ledger(database)) as port:
                assert sums_of(Ledger(durable, Settings(), port=port), now) == expected
    finally:
        durable.close()


def test_two_people_of_one_name_are_told(sh: Shell, folder: Path, database: Database) -> None:
    fill(folder / "data", 1)
    database.sql("insert into pool.person values ('other', 'ann', 1, false, '')")
    line = sh("store", "import", "--url", database.url()).refused(1)
    assert "has the name 'Ann'" in line
    assert database.sql("select count(*) from pool.person") == "1"


def test_a_running_pool_an_empty_folder_and_an_old_schema_are_refused(
    sh: Shell, folder: Path, database: Database, empty: Database
) -> None:
    assert "there is no store in data" in sh("store", "import", "--url", database.url()).refused(1)
    fill(folder / "data", 1)
    with lock_folder(folder / "data"):
        sh("store", "import", "--url", database.url()).refused(1)
    assert "run `pool-server store migrate`" in sh("store", "import", "--url", empty.url("pool_owner")).refused(1)


def test_a_batch_is_kept_once_whoever_ships_it(database: Database) -> None:
    def record(ident: str, tokens: int = 5) -> ShippedRecord:
        return ShippedRecord(1_790_000_000.25, ident, "u", "", "a", "m", "ok", 200, tokens, None, b"body")

    async def walk(c: Connection) -> None:
        one = await c.value("select id from pool.node_start_1('a/0', '1', '{}')")
        assert await ship(c, one, (0, 2), [record("r1"), record("r2"), record("r1")]) == {"r1", "r2"}
        assert await ship(c, one, (0, 2), [record("r1"), record("r2")]) == {"r1", "r2"}  # the answer was lost
        with pytest.raises(StoreRefusedError) as refused:
            await ship(c, one, (5, 6), [record("r3")])
        assert refused.value.state == "PL003"
        successor = await c.value("select id from pool.node_start_1('a/0', '1', '{}')")
        assert await ship(c, successor, (0, 3), [record("r1"), record("r2"), record("r3")]) == {"r3"}
        with pytest.raises(StoreRefusedError) as refused:
            await ship(c, one, (2, 3), [record("r4")])
        assert refused.value.state == "PL002"

    database.run(walk)
    assert database.sql("select string_agg(id, ',' order by id) from pool.record") == "r1,r2,r3"


def test_weeks_of_records_are_made_as_they_come(database: Database) -> None:
    async def walk(c: Connection) -> None:
        node = await c.value("select id from pool.node_start_1('a/0', '1', '{}')")
        moments = [0.0, 1_700_000_000.0, 1_700_000_000.0 + 7 * DAY, 4_000_000_000.0]
        records = [ShippedRecord(at, f"r{at}", "u", "", "a", "m", "ok", 200, 1, 1, b"") for at in moments]
        assert len(await ship(c, node, (0, 4), records)) == 4

    database.run(walk)
    parts = database.sql("select count(*) from pg_inherits where inhparent = 'pool.record'::regclass")
    assert parts == "4"


def test_an_id_counts_once_wherever_its_other_record_lies(database: Database) -> None:
    at = 1_790_000_000.25
    own = f"{int(at * 1000):011x}{7:013x}"
    aside = {"r1": at, own: at, "f" * 24: at}  # the last one's own time is another one

    def records(shift: float) -> list[ShippedRecord]:
        return [ShippedRecord(t + shift, i, "u", "", "a", "m", "ok", 200, 1, 1, b"") for i, t in aside.items()]

    async def walk(c: Connection) -> None:
        node = await c.value("select id from pool.node_start_1('a/0', '1', '{}')")
        assert await ship(c, node, (0, 3), records(0)) == set(aside)
        for turn, shift in enumerate([0.000001, -1.0, 3_600.0, -40 * DAY, 300 * DAY]):
            assert await ship(c, node, (3 + turn, 4 + turn), records(shift)) == set(), shift

    database.run(walk)
    assert database.sql("select count(*) from pool.record") == "3"


def test_shipping_reads_no_week_whole_however_new_it_is(database: Database) -> None:
    async def batches(c: Connection) -> None:
        node = await c.value("select id from pool.node_start_1('a/0', '1', '{}')")
        for turn in range(8):  # plans are kept after some
            records = [
                ShippedRecord(1_790_000_000.0 + n, f"{turn} {n}", "u", "", "a", "m", "ok", 200, 1, 1, b"b" * 300)
                for n in range(200)
            ]
            assert len(await ship(c, node, (turn, turn + 1), records)) == 200

    database.run(batches)
    read = int(database.sql("select sum(seq_scan) from pg_stat_user_tables where relname like 'record_2%'"))
    indexes = int(database.sql("select count(*) from pg_indexes where tablename like 'record_2%'"))
    assert read <= indexes  # each was made by reading the empty week once
