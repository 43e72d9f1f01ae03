"""The share of each window that an owner gives: others are served to that very percent, the owner beyond it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pool_server.accounts.credentials import files
from pool_server.core.enums import Refusal
from pool_server.providers import CredentialRejectedError
from tests.accounts.kit import DAY, HOUR, NOW, Pool, ask, claude, week, window


def pool_of(folder: Path, share: Any, **more: Any) -> Pool:
    return Pool(folder, {"claude_ada.json": claude(owner="ada", terms={"share": share}, ends=NOW + 30 * DAY, **more)})


def served(pool: Pool, user: str) -> bool:
    decision = pool.accounts.select(ask(user))
    assert decision.account or decision.refused == {Refusal.RESERVED: 1}
    return decision.account is not None


@pytest.mark.parametrize("percent", [0, 1, 30, 50, 99.5, 100])
def test_others_are_served_to_that_very_percent(tmp_path: Path, percent: float) -> None:
    pool = pool_of(tmp_path, percent)
    for used in (0.0, percent - 0.1, percent, percent + 0.1, 99.9):
        if not 0 <= used < 100:
            continue
        pool.clock.now += 1
        pool.accounts.observe("claude:ada", [window(used, at=pool.clock.now), week(0.0, at=pool.clock.now)])
        assert served(pool, "bob") is (used < percent), used
        assert served(pool, "ada")


@pytest.mark.parametrize(
    ("five_hours", "seven_days", "open_"),
    [(59.9, 29.9, True), (60, 0, False), (0, 30, False), (60, 30, False), (59, 30, False), (10, 10, True)],
)
def test_each_window_has_its_own(tmp_path: Path, five_hours: float, seven_days: float, open_: bool) -> None:
    pool = pool_of(tmp_path, {"5h": 60, "7d": 30})
    pool.accounts.observe("claude:ada", [window(five_hours), week(seven_days)])
    assert served(pool, "bob") is open_ and served(pool, "ada")


def test_it_is_open_again_with_the_window(tmp_path: Path) -> None:
    pool = pool_of(tmp_path, {"5h": 50})
    pool.accounts.observe("claude:ada", [window(50.0, left=HOUR), week(90.0)])
    decision = pool.accounts.select(ask("bob"))
    assert decision.account is None and decision.refused == {Refusal.RESERVED: 1}
    pool.clock.now += HOUR
    assert served(pool, "bob")


@pytest.mark.parametrize("share", [{"5h": 50}, {"7d": 0, "": 100}, 0])
def test_what_nobody_reported_is_the_owners(tmp_path: Path, share: Any) -> None:
    pool = pool_of(tmp_path, share)
    assert not served(pool, "bob") and served(pool, "ada")


def test_the_reserve_and_the_share_hold_both(tmp_path: Path) -> None:
    pool = pool_of(tmp_path, {"5h": 90}, reserve=0.4)
    for used, open_ in ((59.0, True), (60.0, False)):
        pool.clock.now += 1
        pool.accounts.observe("claude:ada", [window(used, at=pool.clock.now)])
        assert served(pool, "bob") is open_


def test_without_an_owner_there_is_nobody_to_keep_for(tmp_path: Path) -> None:
    pool = Pool(tmp_path, {"claude_ada.json": claude(terms={"share": 10})})
    pool.accounts.observe("claude:ada", [window(80.0)])
    assert pool.accounts.select(ask("bob")).account == "claude:ada"


@pytest.mark.parametrize(
    ("said", "share"),
    [
        (50, {"": 50.0}),
        ("50", {"": 50.0}),
        ("50 %", {"": 50.0}),
        ("5h 60, 7d 30", {"5h": 60.0, "7d": 30.0}),
        ({"5h": 0, "7d": "12.5"}, {"5h": 0.0, "7d": 12.5}),
        ("", {}),
    ],
)
def test_it_is_read_in_every_form(said: Any, share: dict[str, float]) -> None:
    assert files.options({"terms": {"share": said}}).terms.share == share


@pytest.mark.parametrize(
    "said",
    [-1, 101, True, "half", "5h", "5h x", [], [50], {"5h": None}, {"week": 5}, {"5h": {}}, {"": "nan"}, "5h 200"],
)
def test_what_is_no_share_rejects_the_file(said: Any) -> None:
    with pytest.raises(CredentialRejectedError, match=r"terms\.share"):
        files.options({"terms": {"share": said}})
