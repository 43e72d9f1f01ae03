"""The dashboard's speed and weight with a year behind it, against its goals, in one command:

    python -m benchmarks.analytics [--records 300000] [--folder F]

A year of 100 users on 50 accounts with two weeks of quota history each is seeded by the ledger's own code, and the
real pages are served over loopback: time of the JSON answers and of each page, bytes over the wire, and, where
Chromium is installed, the first paint.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import http.client
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from benchmarks import ledger as books
from benchmarks.ledger import ACCOUNTS, BATCH, DAY, YEAR, Source
from pool_server.core.enums import Source as Seen
from pool_server.core.models import UsageRecord, WindowObservation
from pool_server.core.settings import LedgerSettings as LedgerSettings
from pool_server.core.settings import Settings
from pool_server.web import WebContext
from pool_server.web.base.assets.bundle import CHARTS, assets
from tests.web.pool import open_context
from tests.web.site import LiveSite

RUNS = 9
PARTS = ("app.css", "analytics.css", "app.js", "analytics.js", CHARTS)
API = {
    "summary, 30 days": "summary?range=30d",
    "summary, a year": "summary?range=1y",
    "30-day series by user": "series?range=30d&by=user&bucket=day",
    "30-day series by model": "series?range=30d&by=model&bucket=day",
    "30-day series of one model by user": "series?range=30d&by=user&bucket=day&model=gpt-5.2",
    "top users, 30 days": "top?range=30d&by=user",
    "heat map, 30 days": "heatmap?range=30d",
    "who used which account, 30 days": "matrix?range=30d",
    "request log, newest page": "requests",
    "request log of failures": "requests?failed=1",
}
PAGES = ("/analytics?range=24h", "/analytics?range=7d", "/analytics?range=30d", "/analytics?range=1y", "/requests")


def year(records: int, now: float) -> Iterator[UsageRecord]:
    source = Source(2)
    for number in range(records):
        yield source.one(number, now - YEAR + YEAR * (number + 0.5) / records)


def write_accounts(folder: Path) -> None:
    """A credential file for each account of the made-up year."""
    folder.mkdir(parents=True)
    for ident in ACCOUNTS:
        provider, _, stem = ident.partition(":")
        stem = stem if provider == "codex" else f"{provider}_{stem}"
        path = folder / f"{stem}.json"
        path.write_text(json.dumps({"OPENAI_API_KEY" if provider == "codex" else "api_key": "sk-FAKE"}))
        path.chmod(0o600)


async def fill(ctx: WebContext, records: int, now: float) -> None:
    made = year(records, now)
    while batch := list(islice(made, BATCH)):
        ctx.ledger.load(batch)
    for ident in ACCOUNTS:
        for name, seconds in (("5h", 18_000), ("7d", 604_800)):
            for at in range(int(now - 14 * DAY), int(now), 1800):
                resets = (at // seconds + 1) * seconds
                used = 80 * (1 - (resets - at) / seconds)
                ctx.ledger.observe(ident, WindowObservation(name, seconds, used, resets, Seen.HEADERS, at))
    await ctx.ledger.store.flush()


def ask(site: LiveSite, path: str, times: int = RUNS) -> tuple[float, bytes]:
    """Milliseconds of the median, and the compressed answer."""
    took = []
    for _ in range(times):
        began = time.perf_counter()
        connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=60)
        connection.request("GET", path, headers={"Accept": "*/*, text/html", "Accept-Encoding": "gzip"})
        answer = connection.getresponse()
        body = answer.read()
        took.append((time.perf_counter() - began) * 1e3)
        assert answer.status == 200, (path, answer.status, body[:200])
        connection.close()
    return statistics.median(took), body


def pages(site: LiveSite) -> None:
    static = sum(len(assets().files[name].gzipped) for name in PARTS)
    for path in PAGES:
        took, body = ask(site, path)
        weight = len(body) + (static if path.startswith("/analytics") else 0)
        books.line(path, f"{took:.0f} ms, {weight / 1024:.0f} KB ({len(gzip.decompress(body)) / 1024:.0f} KB unpacked)")
    books.line(
        "goal: first paint 1 s, 350 KB over the wire; of it Chart.js",
        f"{len(assets().files[CHARTS].gzipped) / 1024:.0f} KB",
    )


def first_paint(site: LiveSite, folder: Path) -> None:
    if shutil.which("chromium") is None or shutil.which("chromedriver") is None:
        books.line("first paint", "not measured: no Chromium here")
        return
    from tests.web.browser import chromium

    asked = "return [performance.getEntriesByName('first-contentful-paint')[0]?.startTime, " \
            "performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd]"  # fmt: skip
    with chromium(folder / "profile", width=1440) as driver:
        for path in PAGES[:4]:
            driver.get(f"http://127.0.0.1:{site.port}{path}")
            time.sleep(1)
            paint, drawn = driver.execute_script(asked)
            books.line(f"first paint of {path}", f"{paint:.0f} ms; charts drawn at {drawn:.0f} ms", "goal 1000 ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=300_000, help="size of the seeded year")
    parser.add_argument("--folder", type=Path, help="where to put the files (default: a temporary folder)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        write_accounts(folder / "pool")
        now = time.time()
        settings = Settings(ledger=LedgerSettings(retention_days=400))
        with LiveSite(lambda: open_context(folder, settings)) as site:
            began = time.perf_counter()
            asyncio.run_coroutine_threadsafe(fill(site.ctx, args.records, now), site._loop).result()
            books.line(f"seeding {args.records:,} records", f"{time.perf_counter() - began:.0f} s")
            for what, path in API.items():
                books.line(what, f"{ask(site, '/api/usage/' + path)[0]:.1f} ms", "goal 50 ms")
            pages(site)
            first_paint(site, folder)


if __name__ == "__main__":
    main()
