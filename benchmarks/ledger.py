"""The ledger's speed and size, against its goals, in one command:

    python -m benchmarks.ledger [--records 200000] [--seconds 10] [--rate 2000] [--folder F]
    python -m benchmarks.ledger --year F [--records 10000000]

1. CPU of `Ledger.record` on the event loop. 2. A steady load and the loop's longest pause meanwhile. 3. A seeded
year, written by the same code that records, and how long the pages' questions take; the same questions put to
SQLite over raw rows (indexed by time) in the same run. On a busy machine pauses measure the neighbours too.

`--year` asks the year in a folder, and seeds it first where there is none: it stays there, unpruned and without its
rival, so that a large one is made once.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from pool_server.core.models import Attempt, Usage, UsageRecord
from pool_server.core.settings import LedgerSettings as LedgerSettings
from pool_server.core.settings import Settings
from pool_server.ledger import TABLES, Filters, Ledger, LogFilters
from pool_server.storage import Store

NOW = 1_790_000_000.0
DAY = 86_400.0
YEAR = 365 * DAY
USERS = [f"user{i:03}" for i in range(100)]
MODELS = {
    "claude": ["claude-sonnet-4-5-20250929", "claude-opus-4-5", "claude-haiku-4-5"],
    "codex": ["gpt-5.1-codex-max", "gpt-5.2"],
    "gemini": ["gemini-2.5-pro", "gemini-2.5-flash"],
    "qwen": ["qwen3-coder-plus"],
}
ACCOUNTS = [f"{provider}:acc{i:02}" for i in range(50) for provider in [random.Random(i).choice(list(MODELS))]]
PROGRAMS = ["Claude Code 2.1.332", "Codex 0.169.0", "Gemini CLI 0.24.4", "opencode 1.18.33"]
PROJECTS = ["", "", "pool-server", "website"]
BATCH = 5_000


class Source:
    """Makes up exchanges: each user has a few accounts and favours some, works by day, and now and then fails."""

    def __init__(self, seed: int = 1) -> None:
        self.rng = random.Random(seed)
        self.homes = {user: self.rng.sample(ACCOUNTS, 4) for user in USERS}
        self.sessions: dict[str, str] = {}

    def _session(self, user: str) -> str:
        """A conversation goes on for some 30 requests."""
        if user not in self.sessions or self.rng.random() < 1 / 30:
            self.sessions[user] = f"{self.rng.getrandbits(48):012x}"
        return self.sessions[user]

    def one(self, number: int, at: float) -> UsageRecord:
        rng = self.rng
        user = USERS[int(100 * rng.random() ** 2)]
        account = self.homes[user][int(4 * rng.random() ** 2)]
        provider = account.partition(":")[0]
        model = rng.choice(MODELS[provider])
        failed = rng.random() < 0.02
        output = int(rng.expovariate(1 / 600))
        usage = Usage(
            input=int(rng.expovariate(1 / 900)), cache_read=int(rng.expovariate(1 / 40_000)),
            cache_write=int(rng.expovariate(1 / 1_500)), output=output, reasoning=output // 3, known=True,
        )  # fmt: skip
        first = rng.lognormvariate(6.5, 0.6)
        candidates = [
            {
                "account": name,
                "refusal": None,
                "until": None,
                "score": round(rng.random(), 3),
                "terms": {"room": 0.5},
            }
            for name in self.homes[user]
        ]
        return UsageRecord(
            id=f"req_{int(at * 1000):012x}{number:08x}", at=at, user=user, provider=provider, account=account,
            model=model, dialect="messages", transport="sse", operation="messages", status=503 if failed else 200,
            outcome="upstream" if failed else "ok", message="overloaded_error" if failed else "",
            usage=Usage() if failed else usage,
            attempts=[Attempt(account, 503 if failed else 200, "overload" if failed else "", "", 0.4, first * 4)],
            first_byte_ms=first, total_ms=first * 4, request_bytes=rng.randrange(2_000, 300_000),
            response_bytes=output * 40, key=f"key_{user}", agent=rng.choice(PROGRAMS), project=rng.choice(PROJECTS),
            session=self._session(user),
            decision={"account": account, "reason": "pinned", "strategy": "balanced", "candidates": candidates},
        )  # fmt: skip


def line(what: str, value: str, goal: str = "") -> None:
    print(f"{what:<52} {value:>28}  {goal}", flush=True)


async def cost_on_the_loop(folder: Path) -> None:
    store = Store.open(folder / "loop", tables=TABLES, durable=True)
    ledger, source = Ledger(store, Settings(), write_ahead=True), Source()
    records = [source.one(i, time.time()) for i in range(20_000)]
    rounds = []
    for i in range(0, len(records), 500):
        before = time.thread_time()
        done = [ledger.record(rec) for rec in records[i : i + 500]]
        rounds.append((time.thread_time() - before) / 500 * 1e6)
        before = time.thread_time()
        await asyncio.gather(*done)
        rounds[-1] += (time.thread_time() - before) / 500 * 1e6
    line("record(): CPU on the event loop, median", f"{statistics.median(rounds):.1f} us", "goal 40 us")
    await ledger.close()
    store.close()


async def steady_load(folder: Path, rate: int, seconds: float) -> None:
    store = Store.open(folder / "load", tables=TABLES, durable=True)
    ledger, source = Ledger(store, Settings(), write_ahead=True), Source()
    loop = asyncio.get_running_loop()
    pauses: list[float] = []
    waits: list[float] = []

    async def watch() -> None:
        while True:
            before = loop.time()
            await asyncio.sleep(0.001)
            pauses.append(loop.time() - before - 0.001)

    async def one(rec: UsageRecord) -> None:
        before = loop.time()
        await ledger.record(rec)
        waits.append(loop.time() - before)

    watcher = asyncio.create_task(watch())
    made = [source.one(i, time.time()) for i in range(int(rate * seconds))]
    gc.collect()
    gc.freeze()  # the made-up records are the benchmark's, not the server's
    tasks: set[asyncio.Task[None]] = set()
    began, cpu, count = loop.time(), time.process_time(), 0
    while count < len(made):
        while count < min(len(made), (loop.time() - began) * rate):
            made[count].at = time.time()
            task = asyncio.create_task(one(made[count]))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            count += 1
        await asyncio.sleep(0.002)
    await asyncio.gather(*tasks)
    cpu = time.process_time() - cpu
    took = loop.time() - began
    watcher.cancel()
    waits.sort()
    line(f"{rate}/s for {seconds:.0f} s: recorded a second", f"{count / took:.0f}", f"goal {rate}")
    line("  longest pause of the loop", f"{max(pauses) * 1e3:.1f} ms", "goal 20 ms")
    line(
        "  record to durable, p50 / p99",
        f"{waits[count // 2] * 1e3:.1f} / {waits[count * 99 // 100] * 1e3:.1f} ms",
    )
    line("  CPU a record, all threads", f"{cpu / count * 1e6:.0f} us")
    await ledger.close()
    store.close()


def year(records: int) -> Iterator[UsageRecord]:
    source = Source(2)
    for number in range(records):
        at = NOW - YEAR + YEAR * (number + 0.5) / records
        hour = at / 3600 % 24
        yield source.one(number, at + (13 - hour) * 1800 * source.rng.random())  # crowded around midday


def opened(folder: Path) -> Store:
    return Store.open(folder / "year", tables=TABLES, durable=False, map_size=1 << 35)


def seed_alone(folder: Path, records: int) -> Store:
    """The year in a folder, made where there is none, and gone on with where it was left."""
    store = opened(folder)
    with store.read() as reader:
        found = reader.count("records")
    ledger = Ledger(store, Settings(ledger=LedgerSettings(retention_days=400)), clock=lambda: NOW)
    began = time.perf_counter()
    made = islice(year(records), found, None) if found < records else iter(())
    while batch := list(islice(made, BATCH)):
        ledger.load(batch)
    line(f"{found:,} records found, all {records:,} seeded after", f"{time.perf_counter() - began:.0f} s")
    sum_months(ledger)
    return store


def sum_months(ledger: Ledger) -> None:
    """As a server does it in the background."""
    began = time.thread_time()
    asyncio.run(ledger.sum_months())
    line("closed months summed", f"{time.thread_time() - began:.2f} s of the loop's CPU")


def seed(folder: Path, records: int) -> tuple[Store, sqlite3.Connection]:
    store = opened(folder)
    ledger = Ledger(store, Settings(ledger=LedgerSettings(retention_days=400)), clock=lambda: NOW)
    base = sqlite3.connect(folder / "year.sqlite")
    base.executescript(
        "pragma journal_mode=wal; pragma synchronous=off; create table r (id text primary key, at real, "
        "user text, provider text, account text, model text, outcome text, input int, cache_read int, "
        "cache_write int, output int, reasoning int, cost real, first_ms real, total_ms real, detail text)"
    )
    began = time.perf_counter()
    made = year(records)
    while batch := list(islice(made, BATCH)):
        ledger.load(batch)
        fill(base, batch)
    base.execute("create index r_at on r (at)")
    base.execute("create index r_user on r (user, at)")
    base.execute("analyze")
    base.commit()
    line(f"seeding {records:,} records into both", f"{time.perf_counter() - began:.0f} s")
    sum_months(ledger)
    return store, base


def fill(base: sqlite3.Connection, batch: list[UsageRecord]) -> None:
    base.executemany(
        "insert into r values (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
        [
            (
                r.id, r.at, r.user, r.provider, r.account, r.model, r.outcome, r.usage.input, r.usage.cache_read,
                r.usage.cache_write, r.usage.output, r.usage.reasoning, r.cost, r.first_byte_ms, r.total_ms,
                json.dumps(r.decision),
            )
            for r in batch
        ],
    )  # fmt: skip
    base.commit()


def best(fn: Callable[[], Any], times: int = 5) -> tuple[float, float]:
    """Milliseconds of the median of some runs, by the clock and of this thread's CPU: they differ by the neighbours."""
    runs, cpu = [], []
    for _ in range(times):
        before, worked = time.perf_counter(), time.thread_time()
        fn()
        runs.append((time.perf_counter() - before) * 1e3)
        cpu.append((time.thread_time() - worked) * 1e3)
    return statistics.median(runs), statistics.median(cpu)


TOTALS = "count(*), sum(input), sum(cache_read), sum(cache_write), sum(output), sum(reasoning), sum(cost)"


def ask(ledger: Ledger, base: sqlite3.Connection | None) -> None:
    month, whole = NOW - 30 * DAY, NOW - YEAR
    user, account, model = USERS[7], ACCOUNTS[3], "gpt-5.2"

    def sql(text: str, *values: object) -> Callable[[], Any] | None:
        return None if base is None else lambda: base.execute(text, values).fetchall()

    def question(what: str, fn: Callable[[], Any], rival: Callable[[], Any] | None = None) -> None:
        mine, cpu = best(fn)
        value = f"{mine:.1f} ms ({cpu:.1f} CPU)"
        if rival is not None:
            theirs, _ = best(rival, 1)
            value += f" / {theirs:.0f} ms"
        line(what, value, "goal 50 ms" + (f", x{theirs / mine:.0f}" if rival is not None else ""))

    print("\nquestion                                              ours / SQLite over raw rows")
    groups = f"select provider, model, {TOTALS} from r where at>=? and at<? group by 1, 2"
    question("summary, 30 days", lambda: ledger.queries.summary(month, NOW), sql(groups, month, NOW))
    question("summary, a year", lambda: ledger.queries.summary(whole, NOW), sql(groups, whole, NOW))
    for by in ("user", "account", "model"):
        text = f"select {by}, cast(at/86400 as int), {TOTALS} from r where at>=? and at<? group by 1, 2"
        question(
            f"30-day series by {by}",
            lambda by=by: ledger.queries.series(by, "day", month, NOW),  # type: ignore[misc]
            sql(text, month, NOW),
        )
    question("30-day series of one user by model",
             lambda: ledger.queries.series("model", "day", month, NOW, Filters(user=user)))  # fmt: skip
    question("30-day series of one model by user",
             lambda: ledger.queries.series("user", "day", month, NOW, Filters(model=model)))  # fmt: skip
    question(
        "30-day first-byte p95 by account",
        lambda: ledger.queries.series("account", "day", month, NOW, metric="first_byte_p95"),
    )
    question("a year's series by user", lambda: ledger.queries.series("user", "day", whole, NOW))
    question("a year's series by model", lambda: ledger.queries.series("model", "day", whole, NOW))
    question("7-day series by hour and model", lambda: ledger.queries.series("model", "hour", NOW - 7 * DAY, NOW))
    question("top users, a year", lambda: ledger.queries.top("user", whole, NOW))
    question("top users, 30 days", lambda: ledger.queries.top("user", month, NOW))
    question("top programs, a year", lambda: ledger.queries.top("program", NOW - YEAR, NOW))
    question("30-day series by program", lambda: ledger.queries.series("program", "day", month, NOW))
    question("conversations of a user, 7 days",
             lambda: ledger.queries.top("conversation", NOW - 7 * DAY, NOW, Filters(user=user)))  # fmt: skip
    question("who uses which account, 30 days", lambda: ledger.queries.matrix(month, NOW))
    question("heat map, 30 days", lambda: ledger.queries.heatmap(month, NOW))
    question("request log, newest page", lambda: ledger.log.page())
    question("request log of a user", lambda: ledger.log.page(50, None, LogFilters(user=user)))
    question("request log of an account and a model",
             lambda: ledger.log.page(50, None, LogFilters(account=account, model=model)))  # fmt: skip
    question("request log of failures half a year ago",
             lambda: ledger.log.page(50, None, LogFilters(failed=True, until=NOW - YEAR / 2)))  # fmt: skip
    question("request log, nothing matches", lambda: ledger.log.page(50, None, LogFilters(status=418)))
    ident = ledger.log.page(50)[0][-1].id
    question("one exchange by id", lambda: ledger.log.get(ident), sql("select * from r where id=?", ident))


def record_sizes(store: Store) -> None:
    print()
    with store.read() as reader:
        records = reader.count("records")
        raw = sum(reader.bytes_of(table) for table in ("records", "record_ids", "record_index"))
        sample = [len(value) for _, value in reader.scan("records", limit=10_000)]
        rollups, rows = reader.bytes_of("rollups"), reader.count("rollups")
    line("bytes a record with its id and indexes", f"{raw / records:.0f}", "goal 800")
    line("  of it the record itself, compressed", f"{sum(sample) / len(sample):.0f}")
    line(f"rollups ({rows:,} rows)", f"{rollups / 2**20:.0f} MiB")


def sizes(store: Store, folder: Path, records: int) -> None:
    """Sizes as a server has them: pruned of minutes, old hours and old raw records."""
    rival = (folder / "year.sqlite").stat().st_size
    line("bytes a row in SQLite, with id and two indexes", f"{rival / records:.0f}")
    ledger = Ledger(store, Settings(), clock=lambda: NOW)
    began = time.perf_counter()
    asyncio.run(ledger.prune())
    line("pruning all that is too old", f"{time.perf_counter() - began:.0f} s")
    with store.read() as reader:
        left, rollups = reader.count("records"), reader.bytes_of("rollups")
        days = sum(1 for _ in reader.scan("rollups", b"d", b"e"))
    line(f"rollups after pruning ({days:,} day rows a year)", f"{rollups / 2**20:.0f} MiB")
    store.copy(folder / "compact")
    compact = (folder / "compact" / "data.mdb").stat().st_size
    line(f"everything after pruning ({left:,} raw records kept)", f"{compact / 2**20:.0f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=200_000, help="size of the seeded year")
    parser.add_argument("--seconds", type=float, default=10, help="how long the steady load lasts")
    parser.add_argument("--rate", type=int, default=2_000, help="exchanges a second of the steady load")
    parser.add_argument("--folder", type=Path, help="where to put the files (default: a temporary folder)")
    parser.add_argument("--year", type=Path, help="a folder that holds, or is to keep, a seeded year: ask that alone")
    args = parser.parse_args()
    sys.setswitchinterval(0.0005)  # as the server runs
    if args.year is not None:
        args.year.mkdir(parents=True, exist_ok=True)
        store = seed_alone(args.year, args.records)
        ask(Ledger(store, Settings(), clock=lambda: NOW), None)
        record_sizes(store)
        store.close()
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        asyncio.run(cost_on_the_loop(folder))
        asyncio.run(steady_load(folder, args.rate, args.seconds))
        store, base = seed(folder, args.records)
        ask(Ledger(store, Settings(), clock=lambda: NOW), base)
        record_sizes(store)
        sizes(store, folder, args.records)
        base.close()
        store.close()


if __name__ == "__main__":
    main()
