"""Scenarios as data: every shipped one runs and does what it is named for, and a wrong file says what is wrong."""

from __future__ import annotations

import msgspec
import pytest

from pool_server.simulation.demand import generate
from pool_server.simulation.outcome import Goals, WeekOutcome
from pool_server.simulation.scenario import DAY, HOUR, START, EventKind, Plan, Scenario
from pool_server.simulation.specification import ScenarioError, WeekSpec, parse, shipped
from pool_server.simulation.strategies import strategies
from pool_server.simulation.week import Week, run
from pool_server.simulation.world import World

LEAST = """
name = "least"
tests = "Something."
[[accounts]]
plan = "pro"
[[people]]
"""
NO_GOALS = Goals(0.0)


def thinned(spec: WeekSpec, seed: int = 1, share: int = 40) -> Scenario:
    """The week of a specification with one conversation of `share`, windows as much smaller, and no bursts."""
    little = generate(msgspec.structs.replace(spec, load=spec.load / share, bursts=()), seed)

    def smaller(plan: Plan) -> Plan:
        return msgspec.structs.replace(
            plan,
            five_hours=plan.five_hours / share,
            week=plan.week / share,
            opus=plan.opus and plan.opus / share,
            budget=plan.budget and plan.budget / share,
        )

    seats = tuple(msgspec.structs.replace(seat, plan=smaller(seat.plan)) for seat in little.seats)
    return msgspec.structs.replace(little, seats=seats)


def play(scenario: Scenario, strategy: str = "balanced") -> WeekOutcome:
    return run(scenario, strategies()[strategy](1), NO_GOALS)


QUICK = {"standard-week", "mixed-plans", "two-workers"}  # the others take a second each


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in shipped()]
)
def test_every_shipped_week_is_served_without_touching_a_reserve(name: str) -> None:
    row = play(thinned(shipped()[name]))
    assert row.requests > 200
    assert row.refused_with_room <= 0.01 * row.requests  # one request is several percent of so small a window
    assert row.reserve_touched == row.own_missed == 0
    assert row.moved_share <= 0.01


def test_twenty_weeks_are_shipped_and_say_what_they_test() -> None:
    assert len(shipped()) >= 20 and next(iter(shipped())) == "standard-week"
    assert all(spec.tests.endswith(".") for spec in shipped().values())


@pytest.mark.slow
@pytest.mark.parametrize("strategy", strategies())
def test_every_strategy_serves_while_there_is_room(strategy: str) -> None:
    row = play(thinned(shipped()["mixed-plans"]), strategy)
    assert row.strategy == strategy and row.refused_with_room == 0 and row.requests > row.refused


@pytest.mark.slow
def test_the_same_seed_gives_the_same_outcome() -> None:
    week = thinned(shipped()["two-workers"])
    rows = [msgspec.structs.replace(play(week), requests_per_s=0) for _ in range(2)]
    assert rows[0] == rows[1]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.replace('"pro"', '"gold"'), "no plan is called 'gold'"),
        (lambda t: t + "colour = 1\n", "unknown field `colour`"),
        (lambda t: t.replace("[[people]]\n", ""), "people"),
        (lambda t: t.replace('plan = "pro"', 'plan = "pro"\ncount = 0'), "`int` >= 1"),
        (lambda t: t.replace('plan = "pro"', 'plan = "pro"\nused = 1.5'), "`float` <= 1.0"),
        (lambda t: t.replace('plan = "pro"', 'plan = "pro"\nreserve = 0.5'), "a reserve needs owners"),
        (lambda t: t.replace('plan = "pro"', 'plan = "pro"\ncount = 2\nowners = true'), "more owners than people"),
        (lambda t: t + '[[events]]\nat_h = 1\nkind = "hang"\nhost = "z"\n', "no account is at host 'z'"),
        (lambda t: t + '[[events]]\nat_h = 1\nkind = "shrink"\n', "shrinks to more than nothing"),
        (lambda t: t + '[[events]]\nat_h = 1\nkind = "hang"\n', "hang needs an amount"),
        (lambda t: t + '[[events]]\nat_h = 168\nkind = "early_reset"\n', "not within 7 days"),
        (lambda t: t + '[[plans]]\nname = "a"\n[[plans]]\nname = "a"\n', "two have one name"),
        (lambda t: t + "x = " + "[" * 5000, "nested"),
        (lambda t: t + '[[events]]\nat_h = 1\nkind = "withdraw"\naccount = 7\n', "there is no account 7"),
        (lambda t: t + '[[events]]\nat_h = -3\nkind = "hang"\n', "`float` >= 0"),
        (lambda t: t + '[[plans]]\nname = "pro"\n', "holds nothing"),
        (lambda t: t + "[", "Invalid initial character"),
        (lambda t: t.replace('"least"', "nan"), "name"),
    ],
)
def test_a_wrong_file_names_the_field(change: object, says: str) -> None:
    assert parse(LEAST).name == "least"
    with pytest.raises(ScenarioError) as raised:
        parse(change(LEAST), "mine.toml")  # type: ignore[operator]
    line = str(raised.value)
    assert line.startswith("mine.toml: ") and says in line and "\n" not in line


def with_event(kind: str, **fields: object) -> Week:
    extra = "".join(f"{name} = {value}\n" for name, value in fields.items())
    spec = parse(
        "load = 0.1\n"
        + LEAST.replace('plan = "pro"', 'plan = "max_5x"\ncount = 3')
        + f'[[events]]\nat_h = 24\nkind = "{kind}"\n{extra}'
    )
    week = Week(generate(spec, 1), strategies()["balanced"](1))
    week.run()
    return week


NUMBERS = [
    *(("accounts", name) for name in ("count", "resets_h", "used", "reserve", "lost_h")),
    *(("people", name) for name in ("count", "weight", "spread", "begins", "hours", "requests", "pause_s", "cost")),
    *(("plans", name) for name in ("five_hours", "week", "opus", "budget")),
    *(("events", name) for name in ("at_h", "amount")), *(("bursts", name) for name in ("at_h", "each", "over_s")),
    *(("sight", name) for name in ("delay_s", "step", "gaps", "wrong_resets")),
    *(("clients", name) for name in ("retries", "retry_s")), *(("caching", name) for name in ("cold", "life_s")),
    *(("servers", name) for name in ("workers", "news_s")), ("", "load"), ("", "days"),
]  # fmt: skip


@pytest.mark.parametrize(("table", "field"), NUMBERS)
def test_no_field_takes_a_number_that_is_none_or_without_end(table: str, field: str) -> None:
    """Nor a negative one, but where a clock is set back."""
    needed = {"plans": 'name = "z"\n', "events": 'kind = "clock_step"\n', "accounts": 'plan = "pro"\n'}.get(table, "")
    needed += "at_h = 1\n" if table in ("events", "bursts") and field != "at_h" else ""
    heading = f"[[{table}]]\n" if needed or table in ("people", "bursts") else f"[{table}]\n"
    for number in ("nan", "inf", "-inf", "1e308", "-1"):
        row = f"{field} = {number}\n"
        text = row + LEAST if not table else LEAST + heading + needed + row
        if (field, number) == ("amount", "-1"):
            assert parse(text).events[0].amount == -1
            continue
        with pytest.raises(ScenarioError) as raised:
            parse(text, "mine.toml")
        assert str(raised.value).startswith("mine.toml: ") and "\n" not in str(raised.value), number


def test_a_shrunk_window_holds_less_from_then_on() -> None:
    week = with_event("shrink", amount=0.5, account=1)
    assert [w[1].capacity for w in week.world.windows.values()] == [4500, 2250, 4500]


def test_a_withdrawn_account_is_gone_from_the_choice() -> None:
    week = with_event("withdraw", account=2)
    assert len(week.workers[0].index.accounts) == 2 and not week.world.alive("claude:max_5x-2", START + 2 * DAY)


def test_a_hung_host_answers_nothing_for_its_hours_alone() -> None:
    world = with_event("hang", amount=2).world
    begun = START + 24 * HOUR
    assert not world.reachable("claude:max_5x-0", begun + HOUR)
    assert world.reachable("claude:max_5x-0", begun + 2 * HOUR)


def test_an_early_reset_begins_every_window_anew() -> None:
    scenario = generate(parse(LEAST), 1)
    world = World(scenario)
    event = msgspec.structs.replace(generate(shipped()["early-resets"], 1).events[0], target="")
    assert event.kind is EventKind.EARLY_RESET
    world.serve("claude:pro-0", "", 50.0, START)
    world.happen(event, START + HOUR)
    assert world.left("claude:pro-0", "", START + HOUR) == 100.0
    assert world.windows["claude:pro-0"][1].resets_at == START + HOUR + 7 * DAY


def test_figures_are_seen_as_late_and_as_coarse_as_the_week_says() -> None:
    world = World(generate(shipped()["rounded-figures"], 1))
    name = next(iter(world.seats))
    world.serve(name, "", world.seats[name].plan.five_hours * 0.49, START)
    seen = [world.observations(name, "", START, source) for source in ["headers"] * 60]  # type: ignore[arg-type]
    told = [row for row in seen if row]
    assert 20 < len(told) < 60
    assert {row[0].used_percent for row in told} == {45.0}
