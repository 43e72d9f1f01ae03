"""A recorded past replayed: what agrees, what is repeated, and what would have been."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import UTC
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_server.accounts.credentials.files import Options
from pool_server.core.enums import CredentialKind, Dialect, Operation, Outcome, Provider
from pool_server.core.models import Attempt, Usage, UsageRecord
from pool_server.ledger import Series, Sighting
from pool_server.providers import Credential
from pool_server.simulation.replay import folder
from pool_server.simulation.replay.holdings import Holding, holdings
from pool_server.simulation.replay.past import Past
from pool_server.simulation.replay.percent import Worth, growth, worth
from pool_server.simulation.replay.run import ReplaySums, recorded
from pool_server.simulation.replay.study import Study, study
from pool_server.simulation.replay.what_if import WhatIfError, parse

FRM = 1_760_000_000.0
HOUR, DAY, WEEK = 3600.0, 86_400.0, 7 * 86_400.0
PEOPLE = {"Ada": "u_ada", "u_ada": "u_ada", "u_bob": "u_bob"}
MODEL = "claude-sonnet-4-5"


def exchange(at: float, account: str = "claude:a", **more: object) -> UsageRecord:
    """One exchange, `at` seconds after the beginning."""
    facts: dict[str, object] = {
        "id": f"{at}", "at": FRM + at, "user": "u_ada", "provider": "claude", "account": account, "model": MODEL,
        "dialect": Dialect.MESSAGES.value, "operation": Operation.MESSAGES.value, "status": 200, "total_ms": 9000.0,
        "usage": Usage(input=1000, output=100, known=True), "cost": 0.01, "session": f"s{at}",
    }  # fmt: skip
    return UsageRecord(**{**facts, **more})  # type: ignore[arg-type]


def past_of(records: Sequence[UsageRecord]) -> Past:
    past = Past()
    for rec in records:
        past.add(rec)
    past.fill_in()
    return past


def present(*names: str, **options: object) -> dict[str, tuple[Credential, Options]]:
    kind = CredentialKind.OAUTH
    return {
        f"claude:{name}": (
            Credential(Provider.CLAUDE, f"claude:{name}", kind, plan="max", access_token="t"),
            Options(**options),  # type: ignore[arg-type]
        )
        for name in names
    }


def week_of(per_exchange: float, count: int, step: float) -> list[Sighting]:
    """A week's figure that grows by `per_exchange` percent with each of `count` exchanges, `step` seconds apart."""
    return [
        Sighting(FRM + n * step + 20, min(100.0, math.floor(per_exchange * n)), FRM + WEEK, int(WEEK))
        for n in range(count + 1)
    ]


def study_of(
    past: Past, known: Sequence[Holding], *asked: str, days: float = 7.0, seeds: int = 1, strategy: str = "balanced"
) -> Study:
    what_ifs = [parse(text, known, PEOPLE, FRM) for text in asked]
    return study(
        past, known, what_ifs, strategy=strategy, seeds=seeds, zone=UTC, span=(FRM, FRM + days * DAY),
        progress=lambda *_: None,
    )  # fmt: skip


def a_week(count: int = 400, accounts: int = 2) -> tuple[Past, list[Holding]]:
    """Exchanges on some accounts, each of which had its week used up to 80 %."""
    step = 6 * DAY / count
    past = past_of([exchange(n * step, f"claude:{'abcdef'[n % accounts]}") for n in range(count)])
    rows = week_of(80 / count, count, step)
    series = [Series(f"claude:{'abcdef'[n]}", "", "7d") for n in range(accounts)]
    known = holdings(past, series, lambda _: rows, present(*"abcdef"[:accounts]), FRM, FRM + WEEK)
    return past, known


def test_a_replay_of_what_happened_agrees_with_the_record() -> None:
    past, known = a_week()
    found = study_of(past, known)
    assert found.recorded.requests == found.recorded.served == 400
    assert found.differs == dict.fromkeys(ReplaySums.__struct_fields__, 0.0)
    assert (found.unexplained, found.unknown, found.unread, found.gaps) == (0, [], 0, [])


def test_without_an_account_more_is_refused_and_with_another_one_less() -> None:
    past, known = a_week()
    found = study_of(past, known, "-account claude:b", "+1 claude max, -account claude:b", "-user Ada")
    fewer, swapped, nobody = (one.sums for one in found.what_ifs)
    assert 100 < fewer.refused < 300 and fewer.served + fewer.refused == 400
    assert swapped.refused == 0
    assert (nobody.requests, nobody.served) == (0, 0)


def test_what_a_percent_is_worth_is_told_with_its_doubt() -> None:
    step = DAY
    sure = growth(week_of(10.0, 9, step), [(FRM + n * step, 5.0) for n in range(10)])
    found = worth(sure.turns)
    assert found is not None and found.units == pytest.approx(0.5, rel=0.06) and found.turns == 1
    many = worth([(50.0, 10.0), (52.0, 10.0), (48.0, 10.0)])
    assert many is not None and many.units == 5.0 and 0 < many.spread < found.spread / found.units * 5
    assert worth([(5.0, 1.0)]) is None
    lent = worth([], Worth(2.0, 0.1, 3))
    assert lent is not None and (lent.units, lent.turns) == (2.0, 0) and lent.spread > 0.5
    wide = worth([(50.0, 10.0)], Worth(1.0, 0.01, 9))
    assert wide is not None and 1.0 < wide.units < 5.0  # its plan says otherwise, and one turn is little


def test_growth_the_pool_had_no_part_in_is_used_up_in_a_replay_too() -> None:
    rows = [Sighting(FRM + n * HOUR, float(n), FRM + WEEK, int(WEEK)) for n in range(90)]
    grown = growth(rows, [(FRM + 5 * HOUR, 1.0)])
    assert sum(percent for _, percent in grown.outside) == pytest.approx(88, abs=1)
    past = past_of([exchange(n * HOUR + 60, cost=1.0) for n in range(5)])
    (known,) = holdings(past, [Series("claude:a", "", "7d")], lambda _: rows, present("a"), FRM, FRM + WEEK)
    assert len(known.windows[0].outside) > 80


def test_refusals_that_headroom_does_not_explain_are_repeated_but_not_by_an_account_that_is_new() -> None:
    refused = [exchange(n * HOUR + 7, "", outcome=Outcome.EXHAUSTED.value, status=429, cost=None) for n in range(9)]
    _, known = a_week(100)
    records = sorted([*(exchange(n * HOUR, "claude:a") for n in range(100)), *refused], key=lambda one: one.at)
    found = study_of(past_of(records), known, "-account claude:b", "+1 claude max")
    assert (found.recorded.refused, found.replayed.sums.refused, found.unexplained) == (9, 9, 9)
    assert found.what_ifs[0].sums.refused >= 9
    assert found.what_ifs[1].sums.refused == 0
    assert found.what_ifs[1].sums.tokens == found.recorded.tokens + 9 * 1100  # as others of the model


def test_a_fault_an_account_answered_with_is_met_again_there_only() -> None:
    met = [Attempt("claude:a", 529, "overload"), Attempt("claude:b", 200)]
    past = past_of([exchange(0, "claude:b", attempts=met)])
    _, known = a_week()
    found = study_of(past, known)
    assert (found.replayed.sums.served, found.differs["served"]) == (1, 0.0)


def test_a_conversation_that_moved_is_counted_once_and_waits_are_told() -> None:
    slow = [Attempt("claude:b", 200, started_ms=4000.0)]
    records = [
        exchange(0, "claude:a", session="s"), exchange(60, "claude:b", session="s", attempts=slow),
        exchange(120, "claude:a", session="s"), exchange(180, "claude:a", session=""),
    ]  # fmt: skip
    real = recorded(past_of(records), frozenset({"claude:b"}))
    assert (real.moved, real.waited, real.bill) == (1, 1, 0.01)


def test_seeds_tell_a_spread_around_the_plain_replay() -> None:
    past, known = a_week()
    found = study_of(past, known, "-account claude:b", seeds=4)
    one = found.what_ifs[0]
    assert one.low.refused <= one.sums.refused <= one.high.refused
    assert one.low.refused < one.high.refused  # what a percent is worth is not known to the last digit


def test_limits_are_counted_by_the_day() -> None:
    past, known = a_week(120)
    found = study_of(
        past, known, "limits tokens_day=5500", "limits cost_week=0 user Ada", "limits cost_day=0 user u_bob"
    )
    daily, none, other = (one.sums for one in found.what_ifs)
    assert daily.served < 120 and daily.served + daily.apart == 120
    assert none.served == 0 and other.served == 120


def test_another_order_is_replayed() -> None:
    past, known = a_week()
    found = study_of(past, known, "strategy fill_first", "strategy random")
    assert [one.sums.served for one in found.what_ifs] == [400, 400]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "a what-if is"),
        ("more accounts please", "a what-if is"),
        ("+0 claude max", "1 to 100"),
        ("+1 openrouter", "there was none"),
        ("+1 nobody max", "is no vendor"),
        ("+1 claude enormous", "known are max"),
        ("-user Nobody", "there are Ada"),
        ("-account claude:z", "there were claude:a"),
        ("strategy luck", "is none of balanced"),
        ("limits tokens_day", "NAME=NUMBER"),
        ("limits tokens_day=-1", "is no amount"),
        ("limits tokens_day=nan", "is no amount"),
        ("limits moons_day=1", "NAME=NUMBER"),
    ],
)
def test_a_what_if_that_cannot_be_is_said_in_one_line(text: str, words: str) -> None:
    _, known = a_week()
    with pytest.raises(WhatIfError, match=words) as said:
        parse(text, known, PEOPLE, FRM)
    assert "\n" not in str(said.value)


# -- a past that is not whole


def test_a_ledger_with_gaps_says_so() -> None:
    past = past_of([exchange(0), exchange(DAY), exchange(6 * DAY)])
    _, known = a_week()
    assert study_of(past, known).gaps == [(FRM + DAY, FRM + 6 * DAY)]


def test_accounts_without_windows_bound_nothing_or_hold_what_their_plan_does() -> None:
    past = past_of([exchange(n * HOUR, "claude:c") for n in range(50)])
    (alone,) = holdings(past, [], lambda _: [], present("c"), FRM, FRM + WEEK)
    assert alone.windows == () and study_of(past, [alone]).unknown == ["claude:c"]
    rows = week_of(0.2, 400, HOUR)
    use = past_of([exchange(n * HOUR, "claude:a" if n % 2 else "claude:c") for n in range(160)])
    both = holdings(use, [Series("claude:a", "", "7d")], lambda _: rows, present("a", "c"), FRM, FRM + WEEK)
    assert [len(one.windows) for one in both] == [1, 1]
    assert study_of(use, both).unknown == []


def test_a_renamed_account_is_there_under_each_name_in_its_time() -> None:
    records = [exchange(n * HOUR, "claude:old" if n < 60 else "claude:new") for n in range(120)]
    past = past_of(records)
    known = {one.id: one for one in holdings(past, [], lambda _: [], present("new"), FRM, FRM + WEEK)}
    assert known["claude:old"].until < known["claude:new"].since + 2 * HOUR
    assert known["claude:new"].until == math.inf
    found = study_of(past, list(known.values()))
    assert found.differs["served"] == 0.0


def test_prices_that_are_unknown_weigh_by_their_tokens() -> None:
    past = past_of([exchange(0, cost=None), exchange(1, cost=math.nan), exchange(2, cost=-4.0)])
    assert all(units == pytest.approx(1500 * 3e-6) for units in past.units)


def test_records_of_tomorrow_and_clocks_set_back_are_left_out() -> None:
    strange = [exchange(5), exchange(6, provider="tomorrow"), exchange(7, operation="sing"), exchange(1)]
    past = past_of(strange)
    assert (len(past), past.unread) == (1, 2)


@pytest.mark.parametrize("percent", [250.0, -3.0, math.nan, 1e9])
def test_figures_that_cannot_be_do_not_stop_a_replay(percent: float) -> None:
    rows = [
        Sighting(FRM + 60, 1.0, FRM - DAY, int(WEEK)),  # a reset in the past
        Sighting(FRM + HOUR, percent, FRM + DAY, int(WEEK)),
        Sighting(FRM + 2 * HOUR, 12.0, None, 0),  # of no length
        Sighting(FRM + 3 * HOUR, 20.0, FRM + DAY, int(WEEK)),
    ]
    past = past_of([exchange(n * 600) for n in range(60)])
    known = holdings(past, [Series("claude:a", "", "7d")], lambda _: rows, present("a"), FRM, FRM + WEEK)
    assert study_of(past, known).replayed.sums.requests == 60


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.floats(0, 6 * DAY), st.sampled_from("ab"), st.sampled_from(["s", "t", ""]),
            st.sampled_from([one.value for one in Outcome]), st.floats(0, 3), st.floats(0, 4e6),
        ),
        min_size=1, max_size=40,
    ),
    st.sampled_from(["balanced", "random", "fill_first"]),
)  # fmt: skip
def test_nothing_is_lost_in_a_replay(rows: list[tuple[float, str, str, str, float, float]], strategy: str) -> None:
    records = [
        exchange(at, f"claude:{name}" if outcome not in ("exhausted", "no_account", "denied") else "", session=talk,
                 outcome=outcome, cost=cost, total_ms=ms)
        for at, name, talk, outcome, cost, ms in sorted(rows)
    ]  # fmt: skip
    _, known = a_week()
    past = past_of(records)
    found = study_of(past, known, "-account claude:a", strategy=strategy, seeds=2)
    for sums in (found.recorded, found.replayed.sums, found.what_ifs[0].sums, found.what_ifs[0].high):
        assert sums.requests == len(past)
    for sums in (found.recorded, found.replayed.sums, found.what_ifs[0].sums):
        assert sums.served + sums.refused + sums.apart == sums.requests


def test_names_in_the_files_stand_for_the_people_of_the_records(tmp_path: Path) -> None:
    file = {"api_key": "sk-ant-api03-key", "owner": "Ada", "people": ["Bob", "u_3"]}
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool/claude_ada.json").write_text(json.dumps(file))
    options = folder.present(tmp_path / "pool", tmp_path, {"Ada": "u_1", "Bob": "u_2"}, 0.0)["claude:ada"][1]
    assert (options.owner, options.people) == ("u_1", ("u_2", "u_3"))
