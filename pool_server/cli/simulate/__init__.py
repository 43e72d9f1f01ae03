"""`pool-server simulate`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from pool_server.cli.common import config_option, emit, json_option, settings, table, waiting
from pool_server.cli.simulate.replay import replay
from pool_server.core.disk import read_at_most
from pool_server.core.enums import Strategy
from pool_server.simulation.demand import generate
from pool_server.simulation.replay.what_if import FORMS
from pool_server.simulation.scenario import Scenario
from pool_server.simulation.specification import ScenarioError, WeekSpec, parse, shipped
from pool_server.simulation.strategies import strategies
from pool_server.simulation.week import simulate
from pool_server.simulation.weeks_table import coarser, markdown

_MOST_BYTES = 1 << 20  # of a scenario
HEADINGS = (
    "SCENARIO", "STRATEGY", "REQUESTS", "REFUSED", "WITH ROOM", "SERVED", "MOVED", "CACHED", "ROOM USED", "ROOM LOST",
    "REQUESTS/S",
)  # fmt: skip


@click.command("simulate", help="A week of demand, or the recorded past, through the real choice.")
@click.option(
    "--scenario", default="standard-week", show_default=True, help="A name of --list, a TOML file, or all of them: all."
)
@click.option("--strategy", help="One of --list; all of the pool's own when left out.")
@click.option("--baselines", is_flag=True, help="Also what other pools do.")
@click.option("--bound", is_flag=True, help="Also the share of the most that could be served (needs scipy).")
@click.option("--seed", type=int, default=1, show_default=True, help="Another number, another week.")
@click.option("--from", "source", type=click.Choice(["ledger"]), help="Replay the recorded past instead of a scenario.")
@click.option("--days", type=click.IntRange(1, 400), default=30, show_default=True, help="So much of the past.")
@click.option("--what-if", "what_ifs", multiple=True, metavar="CHANGE", help=f"Also how it would have been: {FORMS}.")
@click.option("--seeds", type=click.IntRange(1, 20), default=3, show_default=True, help="Replays that tell the spread.")
@click.option("--progress-lines", is_flag=True, hidden=True)
@config_option
@click.option("--coarse", type=click.FloatRange(1, 20), default=1.0, help="Requests so many times as large, and fewer.")
@click.option("--table", "as_table", is_flag=True, help="Weeks × strategies in Markdown: percent served of the bound.")
@click.option("--list", "listed", is_flag=True, help="Name the scenarios and the strategies.")
@json_option
def command(
    scenario: str, strategy: str | None, baselines: bool, bound: bool, seed: int, listed: bool, as_json: bool,
    coarse: float, as_table: bool, source: str | None, days: int, what_ifs: tuple[str, ...], seeds: int,
    progress_lines: bool, config: str | None,
) -> None:  # fmt: skip
    known = strategies()
    if config is not None:
        settings(config)  # a mistake is told, also where they are not needed
    if listed:
        _list(as_json)
        return
    if strategy is not None and strategy not in known:
        raise click.BadParameter(f"{strategy!r} is none of {', '.join(known)}", param_hint="--strategy")
    if source is not None:
        replay(
            settings(config), days=days, what_ifs=what_ifs, strategy=strategy, seeds=seeds, as_json=as_json,
            lines=progress_lines,
        )  # fmt: skip
        return
    _see_no_past_is_asked(what_ifs)
    own = [each.value for each in Strategy]
    chosen = [strategy] if strategy else [name for name in known if baselines or name in own]
    rows: list[dict[str, Any]] = []
    specs = _specs(scenario)
    with waiting("Replaying a week of demand") as say:
        for spec in specs:
            week = generate(coarser(spec, coarse), seed)
            rows += _rows(week, chosen, bound or as_table, partial(_say, say, spec.name))
    if as_table:
        click.echo(markdown(rows))
    elif as_json:
        emit(rows)
    else:
        table(HEADINGS, [_cells(row) for row in rows], "")


def _say(say: Callable[[str], None], week: str, strategy: str) -> None:
    say(f"Replaying {week}: {strategy}")


def _see_no_past_is_asked(what_ifs: tuple[str, ...]) -> None:
    """Raises click.UsageError for what only a replay of the past obeys: a scenario is a whole week, and who asks for a
    day of it would wait for all seven."""
    given = click.get_current_context().get_parameter_source
    asked = ["--what-if"] if what_ifs else []
    asked += [f"--{name}" for name in ("days", "seeds") if given(name) is ParameterSource.COMMANDLINE]
    if asked:
        raise click.UsageError(f"{asked[0]} is asked of a past: add --from ledger")


def _rows(scenario: Scenario, chosen: list[str], bound: bool, begins: Callable[[str], None]) -> list[dict[str, Any]]:
    try:
        return simulate(scenario, chosen, bound=bound, begins=begins)
    except ModuleNotFoundError:
        raise click.ClickException("--bound needs scipy: pip install scipy") from None


def _specs(name: str) -> list[WeekSpec]:
    """The scenarios a name or a file stands for."""
    if name == "all":
        return list(shipped().values())
    if name in shipped():
        return [shipped()[name]]
    if not name.endswith(".toml"):
        raise click.BadParameter(f"{name!r} is none of {', '.join(shipped())}", param_hint="--scenario")
    try:
        return [parse(read_at_most(Path(name), _MOST_BYTES).decode(), name)]
    except UnicodeDecodeError:
        raise click.ClickException(f"{name}: not UTF-8") from None
    except (OSError, ScenarioError) as error:
        raise click.ClickException(str(error)) from None


def _list(as_json: bool) -> None:
    known = {name: (kind.__doc__ or "").partition("\n")[0] for name, kind in strategies().items()}
    if as_json:
        emit({"scenarios": {name: spec.tests for name, spec in shipped().items()}, "strategies": list(known)})
        return
    table(("SCENARIO", "WHAT IT TESTS"), [(name, spec.tests) for name, spec in shipped().items()], "")
    click.echo()
    table(("STRATEGY", "ITS ORDER"), list(known.items()), "")


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    served = row["served_of_bound"]
    return (
        row["scenario"],
        row["strategy"],
        f"{row['requests']:,}",
        f"{row['refused']:,}",
        f"{row['refused_with_room']:,}",
        "-" if served is None else f"{served:.1%}",
        f"{row['moved_share']:.2%}",
        f"{row['cached_of_bound']:.1%}",
        f"{row['usable_room_used']:.1%}",
        f"{row['room_lost']:.1%}",
        f"{row['requests_per_s']:,.0f}",
    )
