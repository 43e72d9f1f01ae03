"""`pool-server status`, `top` and `statusline`: the running pool at a glance, once, live, or in one line."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import click
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pool_server import statusline as one_line
from pool_server.cli.common import config_option, emit, json_option, one_printable_line, settings, table
from pool_server.cli.pool import Running, asked
from pool_server.core.enums import AccountState, Provider
from pool_server.demo import notice
from pool_server.texts import format, labels
from pool_server.web.base.shared import headroom

EVERY_S = 2.0
_HEADINGS = ("PROVIDER", "ACCOUNTS", "HEADROOM", "NEXT RESET", "IN FLIGHT")
_REQUEST_HEADINGS = ("LAST REQUESTS", "WHO", "MODEL", "ACCOUNT", "RESULT", "TOKENS", "TOOK")
_BROKEN = ("ACCOUNTS", "WHO", "MODEL", "ACCOUNT")
_REQUESTS = 8  # that `top` shows


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


@click.command("top", help="The same and the last requests, live in the terminal; Ctrl-C ends it.")
@click.option("--every", type=click.FloatRange(0.5, 60), default=EVERY_S, show_default=True, help="Seconds.")
@click.option("--once", is_flag=True, hidden=True)
@config_option
@json_option
def top(every: float, once: bool, config: str | None, as_json: bool) -> None:
    """Data is one JSON object a line."""
    looks = _looks(_server(config), every, once=once)
    if as_json:
        for found in looks:
            click.echo(json.dumps(found, ensure_ascii=False))
        return
    with Live(console=Console(), auto_refresh=False, vertical_overflow="visible") as screen:
        for found in looks:
            screen.update(picture(found, time.time()), refresh=True)


@click.command("statusline", help="Headroom, your limit and the next reset in one line, from a cache.")
@click.option("--provider", type=click.Choice([provider.value for provider in Provider]), help="Leave out the others.")
@click.option("--fetch", is_flag=True, help="Ask the pool now and keep what it says.")
@json_option
def statusline(provider: str | None, fetch: bool, as_json: bool) -> None:
    """POOL_URL and POOL_KEY say where; without them ANTHROPIC_BASE_URL and ANTHROPIC_AUTH_TOKEN do. Plain calls never
    come here: `pool_server.__main__` answers them before the commands are loaded."""
    line = one_line.show(provider or "", only_fetch=fetch)
    if as_json:
        place = one_line.LineSource(dict(os.environ), provider or "")
        emit({"line": line, "url": place.url, "file": place.file})
    else:
        click.echo(line)


def _looks(server: Running, every: float, *, once: bool) -> Iterator[dict[str, Any]]:
    while True:
        yield server.status() | {"requests": _latest(server)}
        if once:
            return
        time.sleep(every)


def _latest(server: Running) -> list[dict[str, Any]]:
    """None where they cannot be told: a pool in trouble is looked at most."""
    try:
        return server.latest_requests(_REQUESTS)
    except click.ClickException:
        return []


def picture(found: dict[str, Any], now: float) -> Group:
    """What `top` draws: the headline over one row a provider, and who asked for what lately."""
    providers = _table(_HEADINGS, lines(found, now), numbers=1)
    requests = _table(_REQUEST_HEADINGS, request_lines(found["requests"], now), numbers=2)
    above = (Text(headline(found), style="bold"), providers)
    return Group(*above, Text(), requests) if found["requests"] else Group(*above)


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: int) -> Table:
    """Rows of plain text, of which the last columns are numbers; where it is narrow, what people named is broken."""
    drawn = Table(box=None, pad_edge=False)
    for left, heading in enumerate(headings, 1 - len(headings)):
        justify: Literal["left", "right"] = "right" if left > -numbers else "left"
        drawn.add_column(heading, justify=justify, header_style="dim", no_wrap=heading not in _BROKEN)
    for row in rows:
        drawn.add_row(*(Text(one_printable_line(cell)) for cell in row))  # a client chose the model's name
    return drawn


def request_lines(requests: Sequence[dict[str, Any]], now: float) -> list[tuple[str, ...]]:
    """One row a request, in this machine's time."""
    here = datetime.now().astimezone().tzinfo or UTC
    return [
        (
            format.clock(row["at"], now, here),
            row["user_name"] or "",
            row["model"] or row["provider_name"],
            labels.account_name(row["account"]) if row["account"] else "none reached",
            row["words"],
            format.tokens(row),
            format.took(row["total_ms"]),
        )
        for row in requests
    ]


def headline(found: dict[str, Any]) -> str:
    """ "The pool is up: 8 of 11 accounts are ready, 2 requests in flight." """
    state = {"ok": "is up", "draining": "is restarting", "store_failed": "is up but cannot record usage"}
    ready, total = found["accounts"]["ready"], found["accounts"]["total"]
    known = [row["in_flight"] for row in found["providers"] if row.get("in_flight") is not None]
    words = "account is" if total == 1 else "accounts are"
    said = f"The pool {state.get(found['status'], found['status'])}: {ready} of {total} {words} ready"
    if len(known) < len(found["providers"]):
        return f"{said}."
    flying = sum(known)
    return f"{said}, {flying or 'no'} {'request' if flying == 1 else 'requests'} in flight."


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
            headroom.state_words(
                {AccountState(state): count for state, count in row["accounts"].items()},
                row["ready"], row["total"], row.get("next_return"), now,
            ),
            "unknown" if left is None else f"{format.percent(left)} left",
            format.within(min(resets), now) if resets else "unknown",
            "unknown" if row.get("in_flight") is None else str(row["in_flight"]),
        ))  # fmt: skip
    return rows


def _server(config: str | None) -> Running:
    """The server of this data folder; where none runs and no settings are named, the demo of this user."""
    found = asked(settings(config))
    if found is not None:
        return found
    shown = notice.running() if config is None else None
    if shown is None:
        raise click.ClickException("no running pool uses this data folder: start one with `pool-server serve`")
    click.echo(f"This is the demo on {shown[0]}.", err=True)
    return Running(*shown)
