"""Requests held until headroom returns: how long, how many, and how they end."""

from __future__ import annotations

import asyncio
import datetime
import zoneinfo
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.accounts.held_requests import HeldRequest, HeldRequests
from pool_server.core.deadlines import wait_until
from pool_server.core.settings import NightShift

NOW = datetime.datetime(2026, 11, 29, 22, 0, tzinfo=datetime.UTC).timestamp()


@pytest.mark.parametrize(
    ("asked", "hours"),
    [
        ("", None), ("until=06:00", 8), ("until=6:00", 8), ("until=23:30", 1.5), ("until=22:00", 24), ("for=2h", 2),
        ("for=30min", 0.5), ("for=90s", 0.025), ("until=2026-11-30T06:00+01:00", 7), ("until=2026-11-30T05:00Z", 7),
        ("until=2026-11-29T21:00Z", -1),
    ],
)  # fmt: skip
def test_what_is_asked_for_is_a_moment(asked: str, hours: float | None) -> None:
    found = wait_until(asked, NOW, "UTC")
    assert found == (0.0 if hours is None else pytest.approx(NOW + hours * 3600, abs=1.0))


def test_a_time_of_day_is_the_operator_s() -> None:
    assert wait_until("until=06:00", NOW, "Europe/Berlin") == NOW + 7 * 3600


@given(st.integers(0, 23), st.integers(0, 59), st.integers(1_774_000_000, 1_800_000_000))
def test_a_time_of_day_is_the_next_one_also_where_clocks_are_set(hour: int, minute: int, now: int) -> None:
    zone = zoneinfo.ZoneInfo("Europe/Berlin")
    found = wait_until(f"until={hour}:{minute:02}", now, "Europe/Berlin")
    day_s, shown = 86_400 + 3600, datetime.datetime.fromtimestamp(found, zone)
    assert now < found <= now + day_s
    if (shown.hour, shown.minute) != (hour, minute):  # an hour that the clocks leave out
        assert (shown.hour, shown.minute) == (hour + 1, minute) and hour == 2
    between = range(now // 60 * 60 + 60, int(found), 60)
    assert not any(
        (at.hour, at.minute) == (hour, minute) for at in (datetime.datetime.fromtimestamp(m, zone) for m in between)
    )


@pytest.mark.parametrize(
    "bad", ["6", "until=", "until=25:00", "until=06:60", "for=", "for=-1h", "for=1e9h", "until=2026-11-30T06:00", "yes"]
)
def test_what_cannot_be_understood_is_said(bad: str) -> None:
    with pytest.raises(ValueError, match="until=06:00"):
        wait_until(bad, NOW, "UTC")


@given(st.text(max_size=40))
def test_any_text_is_a_moment_or_said_to_be_none(text: str) -> None:
    try:
        wait_until(text, NOW, "UTC")
    except ValueError:
        pass


def held(number: int, user: str = "u_1") -> HeldRequest:
    return HeldRequest(f"r{number}", user, "m", "Codex", NOW + number, NOW + 3600, "")


def requests(folder: Path, **settings: Any) -> HeldRequests:
    return HeldRequests(folder, lambda: NightShift(**{"longest_h": 8.0, **settings}), lambda: NOW)


def test_off_late_or_too_many_is_not_held(tmp_path: Path) -> None:
    assert requests(tmp_path, longest_h=0.0).deadline("u_1", NOW + 60) == 0
    assert requests(tmp_path).deadline("u_1", NOW) == 0
    assert requests(tmp_path).deadline("u_1", NOW + 60) == NOW + 60
    assert requests(tmp_path).deadline("u_1", NOW + 99 * 3600) == NOW + 8 * 3600


def test_what_waits_is_listed_bounded_and_cancelled_from_another_worker(tmp_path: Path) -> None:
    async def test() -> None:
        here, there = requests(tmp_path, requests=3, requests_per_person=2), requests(tmp_path)
        never = asyncio.Event()

        async def wait() -> str:
            await never.wait()
            return "an account"

        tasks = [asyncio.create_task(here.hold(held(n), wait, lambda: "none")) for n in (2, 1)]
        while len(there.listed()) < 2:
            await asyncio.sleep(0.01)
        assert [one.id for one in there.listed("u_1")] == ["r1", "r2"] and there.listed("u_2") == []
        assert here.deadline("u_1", NOW + 60) == 0 and here.deadline("u_2", NOW + 60)
        assert not there.cancel("r1", "u_2") and not there.cancel("../r1", None)
        assert there.cancel("r1", "u_1")
        here.look()
        assert await tasks[1] == "none"
        never.set()
        assert await tasks[0] == "an account"
        assert there.listed() == [] and list((tmp_path / "held").iterdir()) == []

    asyncio.run(test())


def test_whoever_leaves_is_not_taken_for_cancelled(tmp_path: Path) -> None:
    async def test() -> None:
        here = requests(tmp_path)
        task = asyncio.create_task(here.hold(held(1), asyncio.Event().wait, lambda: False))
        while not here.listed():
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert here.listed() == []

    asyncio.run(test())


def test_what_a_dead_worker_left_is_no_more(tmp_path: Path) -> None:
    here = HeldRequests(tmp_path, NightShift, lambda: NOW, worker="999999.1.x.y")
    request = held(1)
    request.worker = "999999.1.x.y"
    here._list(request)
    (tmp_path / "held" / "broken.json").write_text("{")
    assert requests(tmp_path).listed() == [] and not (tmp_path / "held" / "r1.json").exists()
