"""`pool-server simulate`."""

from __future__ import annotations

import click

from pool_server.cli.common import emit, json_option, table, waiting
from pool_server.core.enums import Strategy
from pool_server.simulation.scenario import SCENARIOS
from pool_server.simulation.week import simulate


@click.command("simulate", help="A week of demand through the real choice, for one strategy or all.")
@click.option("--scenario", type=click.Choice(list(SCENARIOS)), default="standard-week", show_default=True)
@click.option("--strategy", type=click.Choice([strategy.value for strategy in Strategy]), help="All when left out.")
@click.option("--seed", type=int, default=1, show_default=True, help="Another number, another week.")
@json_option
def command(scenario: str, strategy: str | None, seed: int, as_json: bool) -> None:
    with waiting("Replaying a week of demand"):
        rows = simulate(scenario, strategy=Strategy(strategy) if strategy else None, seed=seed)
    if as_json:
        emit(rows)
        return
    cells = [
        (
            row["strategy"],
            f"{row['requests']:,}",
            row["refused"],
            row["refused_with_room"],
            f"{row['moved_share']:.2%}",
            f"{row['usable_room_used']:.1%}",
            f"{row['room_lost']:.1%}",
            f"{row['requests_per_s']:,.0f}",
        )
        for row in rows
    ]
    headings = ("STRATEGY", "REQUESTS", "REFUSED", "WITH ROOM", "MOVED", "ROOM USED", "ROOM LOST", "REQUESTS/S")
    table(headings, cells, "")
