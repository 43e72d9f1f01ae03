"""`pool-server simulate --from ledger`: the recorded past through the real choice, as it was and might have been."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from pool_server.app.server import open_stores
from pool_server.cli.common import emit, one_line, table
from pool_server.core.settings import Settings
from pool_server.language import marked
from pool_server.ledger import Ledger
from pool_server.simulation.replay.folder import present
from pool_server.simulation.replay.holdings import Holding, holdings
from pool_server.simulation.replay.past import Past
from pool_server.simulation.replay.run import ReplaySums
from pool_server.simulation.replay.study import Study, plain, study
from pool_server.simulation.replay.what_if import WhatIfError, parse
from pool_server.users import Users
from pool_server.users.limits.periods import zone

DAY_S = 86_400.0
SIGHTINGS = 200_000  # of one window at most
COLUMNS = {
    "requests": "REQUESTS", "served": "SERVED", "refused": "REFUSED", "apart": "ENDED OTHERWISE", "waited": "WAITED",
    "moved": "MOVED", "tokens": "TOKENS", "cost": "LIST PRICE", "bill": "PAID BY USE", "unused": "UNUSED",
}  # fmt: skip

Tell = Callable[[str, float], None]  # what is done, how much of it (0 to 1)


def replay(
    here: Settings, *, days: int, what_ifs: Sequence[str], strategy: str | None, seeds: int, as_json: bool, lines: bool
) -> None:
    """Read, replay, say."""
    with one_line(), _telling(lines) as tell:
        found = _study(here, days, what_ifs, strategy, seeds, tell)
    if as_json:
        emit(plain(found))
    else:
        _say(found, seeds)


def _study(here: Settings, days: int, what_ifs: Sequence[str], strategy: str | None, seeds: int, tell: Tell) -> Study:
    """Raises WhatIfError, StoreError and ValueError."""
    to = time.time()
    span = to - days * DAY_S, to
    past, known, people = _read(here, span, tell)
    if not len(past):
        raise WhatIfError(f"the ledger has no exchange of the last {days} days")
    asked = [parse(text, known, people, span[0]) for text in what_ifs]

    def progress(what: str, done: int, of: int) -> None:
        tell(what, done / max(1, of))

    return study(
        past, known, asked, strategy=strategy or here.choosing.strategy.value, seeds=seeds,
        zone=zone(here.ledger.timezone), span=span, progress=progress,
    )  # fmt: skip


def _read(here: Settings, span: tuple[float, float], tell: Tell) -> tuple[Past, list[Holding], dict[str, str]]:
    """The past, its accounts, and user ids by name and id."""
    frm, to = span
    folder = Path(here.data_dir)
    state, durable = open_stores(folder)
    try:
        ledger = Ledger(durable, here)
        people = _people(Users(here, durable, state))
        past = Past()
        for rec in ledger.log.scan(frm, to):
            past.add(rec)
            if len(past) % 5000 == 0:
                tell(marked("reading the ledger"), (past.at[-1] - frm) / (to - frm))
        past.fill_in()
        there = present(Path(here.pool_dir), folder, people, to)
        runway = ledger.runway
        known = holdings(
            past, runway.series(), lambda one: runway.sightings(one, frm, to, limit=SIGHTINGS), there, frm, to
        )
    finally:
        state.close()
        durable.close()
    return past, known, people


def _people(users: Users) -> dict[str, str]:
    found: dict[str, str] = {}
    rows, cursor = users.people.list_users()
    while True:
        for row in rows:
            found[str(row["name"])] = found[str(row["id"])] = str(row["id"])
        if cursor is None:
            return found
        rows, cursor = users.people.list_users(cursor=cursor)


@contextlib.contextmanager
def _telling(lines: bool) -> Iterator[Tell]:
    """Shows progress: a bar on a terminal, `lines` of "percent what" on stderr for a program, else nothing."""
    console = Console(stderr=True)
    if lines or not console.is_terminal:
        said = [""]

        def tell(what: str, share: float) -> None:
            line = f"{share:.0%} {what}"
            if lines and line != said[0]:
                said[0] = line
                click.echo(line, err=True)

        yield tell
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
    )
    with Bar(*columns, console=console, transient=True) as bar:
        tasks: dict[str, Any] = {}

        def show(what: str, share: float) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=1.0)
            bar.update(tasks[what], completed=share)

        yield show


def _say(found: Study, seeds: int) -> None:
    rows = [("what happened", *_cells(found.recorded)), ("replayed", *_cells(found.replayed.sums))]
    rows.append(("differs by", *(f"{share:.1%}" for share in found.differs.values())))
    for variant in found.what_ifs:
        rows.append((variant.what, *_cells(variant.sums)))
        if seeds > 1:
            ranges = zip(_cells(variant.low), _cells(variant.high), strict=True)
            rows.append(("  over seeds", *(low if low == high else f"{low} – {high}" for low, high in ranges)))
    table(("", *COLUMNS.values()), rows, "")
    for line in notes(found):
        click.echo(line)


def notes(found: Study) -> list[str]:
    """What the figures rest on."""
    said = [
        "Prices are list prices in US dollars; unused is what subscriptions had left when their longest window reset."
    ]
    if found.unexplained:
        said.append(f"{found.unexplained} refusals although headroom was left are repeated as they were.")
    if found.unknown:
        said.append(f"Nothing is known of what these hold, so that they never run out: {', '.join(found.unknown)}.")
    if found.unread:
        said.append(f"{found.unread} records are of a vendor or an operation this version does not know.")
    for begin, end in found.gaps:
        said.append(f"No record from {_day(begin)} to {_day(end)}.")
    return said


def _day(at: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(at))


def _cells(sums: ReplaySums) -> tuple[str, ...]:
    values = {name: getattr(sums, name) for name in COLUMNS}
    return tuple(f"{value:,}" if isinstance(value, int) else f"${value:,.2f}" for value in values.values())
