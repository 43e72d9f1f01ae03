"""`pool-server account reconcile`: a day of one account beside what the vendor's own books say."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from typing import Any

import click

from pool_server.cli.common import config_option, emit, json_option, one_line, settings, table
from pool_server.cli.pool import open_pool
from pool_server.core.enums import Provider
from pool_server.core.models import Usage
from pool_server.core.settings import Settings
from pool_server.gateway import Upstream
from pool_server.ledger.reconcile import Reconciled, reconcile
from pool_server.providers import redact
from pool_server.providers.usage_report import DAY_S, read_report, report_request

ADMIN_KEY = "POOL_VENDOR_ADMIN_KEY"
_PAGES = 50


@click.command("reconcile", help="A UTC day of an account beside the vendor's own figures, and what explains the rest.")
@click.argument("account")
@click.option("--day", metavar="YYYY-MM-DD", help="The day, in UTC; yesterday when left out.")
@click.option("--key-id", default="", help="The vendor's id of the account's API key, where its organisation has more.")
@click.option("--input", "input_", type=click.IntRange(0), help="Read off the vendor's page: input without caches.")
@click.option("--cache-read", type=click.IntRange(0), help="… read from caches.")
@click.option("--cache-write", type=click.IntRange(0), help="… written to caches.")
@click.option("--output", type=click.IntRange(0), help="… output.")
@config_option
@json_option
def command(account: str, day: str | None, key_id: str, config: str | None, as_json: bool, **read: int | None) -> int:
    conf, began = settings(config), _day(day)
    typed = {name: value or 0 for name, value in read.items()}
    with open_pool(conf) as pool:
        ours = pool.used(account, began, began + DAY_S)
    if any(value is not None for value in read.values()):
        theirs = Usage(typed["input_"], typed["cache_read"], typed["cache_write"], output=typed["output"], known=True)
        requests = None
    else:
        theirs, requests = _asked(account, began, key_id, conf)
    found = reconcile(ours, theirs, requests)
    _show(found, began, as_json)
    return 0 if found.agrees else 1


def _day(text: str | None) -> int:
    """Unix seconds of a UTC midnight."""
    if text is None:
        now = int(datetime.now(UTC).timestamp())
        return now - now % DAY_S - DAY_S
    try:
        return int(datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).timestamp())
    except ValueError:
        raise click.UsageError("--day is a date as 2026-11-28") from None


def _asked(account: str, day: int, key_id: str, conf: Settings) -> tuple[Usage, int | None]:
    """The vendor's report, asked for with an admin key that is used this once and never kept."""
    provider = account.partition(":")[0]
    if provider not in set(Provider):
        raise click.ClickException("that is no account: `pool-server account list` shows them")
    key = os.environ.get(ADMIN_KEY, "").strip()
    if not key:
        raise click.UsageError(
            f"set {ADMIN_KEY} to an admin key of the account's organisation, or give the figures of the vendor's page "
            "with --input, --cache-read, --cache-write and --output"
        )
    with one_line():
        return asyncio.run(_report(Provider(provider), key, day, key_id, conf))


async def _report(provider: Provider, key: str, day: int, key_id: str, conf: Settings) -> tuple[Usage, int | None]:
    """Every page of the report, added up. Raises ValueError, in one line."""
    upstream, page = Upstream(), ""
    total, requests, days = Usage(known=True), None, frozenset[int]()
    try:
        for _ in range(_PAGES):
            answer = await upstream.send(report_request(provider, key, day, conf, key_id=key_id, page=page))
            if answer.status != 200:
                said = answer.error or f"answered {answer.status}"
                raise ValueError(redact(f"the vendor's report could not be read: {said}"))
            report = read_report(provider, answer.body)
            for name in ("input", "cache_read", "cache_write", "output"):
                setattr(total, name, getattr(total, name) + getattr(report.usage, name))
            requests = requests if report.requests is None else (requests or 0) + report.requests
            page, days = report.next_page, days | report.days
            if not page:
                break
    finally:
        await upstream.close()
    if page or days != {day}:
        raise ValueError("the vendor's report is longer than can be read, or is not of this day")
    return total, requests


def _show(found: Reconciled, day: int, as_json: bool) -> None:
    if as_json:
        rows: list[dict[str, Any]] = [line._asdict() | {"difference": line.difference} for line in found.lines]
        emit({"day": day, "agrees": found.agrees, "kinds": rows, "reasons": list(found.reasons)})
        return
    cells = [
        (line.kind, f"{line.ours:,}", f"{line.theirs:,}", "" if line.agrees else f"{line.difference:+,}")
        for line in found.lines
    ]
    table(("TOKENS", "POOL", "VENDOR", "DIFFERENCE"), cells, "")
    click.echo("They agree." if found.agrees else "\n".join(("", *found.reasons)))
