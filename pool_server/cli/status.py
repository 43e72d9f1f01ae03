"""`pool-server status` and `pool-server top`: the running pool at a glance, once or live."""

from __future__ import annotations

import time
from typing import Any

import click

from pool_server.cli.common import config_option, emit, json_option, settings, table
from pool_server.cli.pool import Running, running
from pool_server.core.enums import Provider
from pool_server.texts import format, labels
from pool_server.web.base.shared import headroom

EVERY_S = 2.0
_HEADINGS = ("PROVIDER", "ACCOUNTS", "HEADROOM", "NEXT RESET", "IN FLIGHT")


@click.command("status", help="Accounts, headroom and requests in flight of the running pool.")
@config_option
@json_option
def command(config: str | None, as_json: bool) -> None:
    found = _server(config).status()
    if as_json:
        emit(found)
        return
    click.echo(headline(found))
    table(_HEADINGS, lines(found, time.time()), "It has no accounts.")


@click.command("top", help="The same, live in the terminal; Ctrl-C ends it.")
@click.option("--every", type=click.FloatRange(0.5, 60), default=EVERY_S, show_default=True, help="Seconds.")
@click.option("--once", is_flag=True, hidden=True)
@config_option
def top(every: float, once: bool, config: str | None) -> None:
    server = _server(config)
    while True:
        found = server.status()
        click.clear()
        click.echo(headline(found))
        click.echo()
        table(_HEADINGS, lines(found, time.time()), "It has no accounts.")
        if once:
            return
        time.sleep(every)


def headline(found: dict[str, Any]) -> str:
    """ "The pool is up: 8 of 11 accounts are ready, 2 requests in flight." """
    state = {"ok": "is up", "draining": "is restarting", "store_failed": "is up but cannot record usage"}
    ready, total = found["accounts"]["ready"], found["accounts"]["total"]
    flying = sum(row.get("in_flight", 0) for row in found["providers"])
    words = "account is" if total == 1 else "accounts are"
    return (
        f"The pool {state.get(found['status'], found['status'])}: {ready} of {total} {words} ready, "
        f"{flying or 'no'} {'request' if flying == 1 else 'requests'} in flight."
    )


def lines(found: dict[str, Any], now: float) -> list[tuple[str, ...]]:
    """One row a provider that has accounts."""
    rows: list[tuple[str, ...]] = []
    for row in found["providers"]:
        if not row["total"]:
            continue
        resets = [window["resets_at"] for window in row.get("windows", ()) if (window.get("resets_at") or 0) > now]
        left = row.get("room_percent")
        rows.append((
            labels.PROVIDERS[Provider(row["provider"])],
            headroom.state_words(row, now),
            "unknown" if left is None else f"{format.percent(left)} left",
            format.within(min(resets), now) if resets else "unknown",
            str(row.get("in_flight", 0)),
        ))  # fmt: skip
    return rows


def _server(config: str | None) -> Running:
    found = running(settings(config))
    if found is None:
        raise click.ClickException("no running pool can be asked: start it with `pool-server serve`, or set "
                                   "POOL_ADMIN_PASSWORD to its admin password")  # fmt: skip
    return found
