"""Bookings: what they keep from whom, and what cannot be booked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.core.enums import Denial
from pool_server.core.models import Denied, Usage
from pool_server.core.settings import BookingSettings
from pool_server.users import Principal, RefusedError, Reservation
from pool_server.users.bookings import Booking, most_at_once, share
from tests.users.site import NOON, SHELL, Site

ASK: dict[str, Any] = {"provider": "claude", "model": "m", "tokens": 0, "cost": None}
HOUR = 3600.0
BOOKED = BookingSettings(most_percent=50.0)


def booking(user: str, percent: float, since: float, until: float) -> Booking:
    return Booking(f"b_{user}", user, "claude", percent, since, until, 0.0)


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.floats(0.1, 60), st.integers(0, 50), st.integers(1, 50)), max_size=8),
    st.integers(0, 99),
    st.sampled_from("abcd"),
)
def test_what_is_kept_is_what_others_booked_and_what_was_promised_fits(
    rows: list[tuple[str, float, int, int]], now: int, user: str
) -> None:
    taken: list[Booking] = []
    for who, percent, since, lasts in rows:
        if most_at_once(taken, since, since + lasts) + percent <= 100:
            taken.append(booking(who, percent, since, since + lasts))
    for moment in range(100):
        assert sum(one.percent for one in taken if one.runs(moment)) <= 100 + 1e-6
    found = share(taken, user, now)
    running = [one for one in taken if one.runs(now)]
    assert found.percent == pytest.approx(sum(one.percent for one in running if one.user != user))
    assert found.own == any(one.user == user for one in running)
    assert not found.percent or now < found.until


def denied(answer: Reservation | Denied) -> tuple[Denial, float | None] | None:
    return (answer.denial, answer.retry_at) if isinstance(answer, Denied) else None


def ask(site: Site, who: Principal, headroom: float | None) -> tuple[Denial, float | None] | None:
    made = site.users.admission.reserve(who, **ASK, headroom=headroom)
    if isinstance(made, Reservation):
        site.users.admission.settle(made, Usage(input=1), None)
    return denied(made)


def test_others_stop_where_the_booked_part_begins_and_who_booked_goes_on(open_site: Callable[..., Site]) -> None:
    site = open_site(bookings=BOOKED)

    async def main() -> None:
        ada, _ = await site.friend("Ada")
        bo, _ = await site.friend("Bo")
        second = site.worker()
        await second.start()
        assert not second.booked_out(bo, "claude", 10.0)
        made = await site.users.bookings.make(ada.user, "claude", 30.0, NOON + HOUR, 2 * HOUR, actor=SHELL)
        assert ask(site, bo, 10.0) is None
        site.clock.now = NOON + HOUR
        stopped = (Denial.BOOKED, NOON + 3 * HOUR)
        assert ask(site, bo, 30.0) == stopped and ask(site, bo, 30.5) is None and ask(site, bo, None) is None
        assert ask(site, ada, 1.0) is None
        second._follow()
        assert second.booked_out(bo, "claude", 10.0) and not second.booked_out(bo, "codex", 10.0)
        site.users.bookings.owns = lambda user, provider: user == bo.user and provider == "claude"
        assert ask(site, bo, 10.0) is None
        site.users.bookings.owns = lambda user, provider: False
        await site.users.people.patch_user(ada.user, {"disabled": True}, actor=SHELL)
        assert ask(site, bo, 10.0) is None
        await site.users.people.patch_user(ada.user, {"disabled": False}, actor=SHELL)
        assert ask(site, bo, 10.0) == stopped
        with pytest.raises(RefusedError, match="no such booking"):
            await site.users.bookings.end(made.id, bo.user, actor=SHELL)
        await site.users.bookings.end(made.id, ada.user, actor=SHELL)
        assert ask(site, bo, 10.0) is None
        await second.close()

    site.run(main)


def test_fair_shares_are_made_of_what_is_not_booked(open_site: Callable[..., Site]) -> None:
    site = open_site(bookings=BOOKED)

    async def main() -> None:
        ada, _ = await site.friend("Ada")
        greedy, _ = await site.friend("Greedy")
        for who, tokens in ((greedy, 90_000), (ada, 10_000)):
            made = site.users.admission.reserve(who, **ASK, headroom=100.0)
            assert isinstance(made, Reservation)
            site.users.admission.settle(made, Usage(input=tokens), None)
        assert ask(site, greedy, 35.0) is None  # not short
        await site.users.bookings.make(ada.user, "claude", 30.0, NOON, HOUR, actor=SHELL)
        found = ask(site, greedy, 35.0)
        assert found is not None and found[0] is Denial.FAIR_SHARE
        assert ask(site, ada, 35.0) is None

    site.run(main)


def test_a_booking_that_is_over_holds_nothing_and_is_swept(open_site: Callable[..., Site]) -> None:
    site = open_site(bookings=BOOKED)

    async def main() -> None:
        ada, _ = await site.friend("Ada")
        bo, _ = await site.friend("Bo")
        await site.users.bookings.make(ada.user, "claude", 30.0, NOON, HOUR, actor=SHELL)
        site.clock.now = NOON + HOUR
        assert ask(site, bo, 1.0) is None and site.users.bookings.coming() == []
        await site.users._sweep()
        site.clock.now = NOON
        site.users.bookings.forget()
        assert site.users.bookings.coming() == []

    site.run(main)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"percent": 0}, "50 %"), ({"percent": 51}, "50 %"), ({"percent": float("nan")}, "50 %"),
        ({"provider": "nobody"}, "provider"), ({"lasts_s": 0}, "12 h"), ({"lasts_s": 13 * HOUR}, "12 h"),
        ({"lasts_s": float("inf")}, "12 h"), ({"lasts_s": -HOUR}, "12 h"),
        ({"since": NOON + 15 * 86_400, "lasts_s": HOUR}, "14 days"),
    ],
)  # fmt: skip
def test_what_cannot_be_booked_is_said(open_site: Callable[..., Site], change: dict[str, Any], why: str) -> None:
    site = open_site(bookings=BOOKED)

    async def main() -> None:
        ada, _ = await site.friend("Ada")
        wanted: dict[str, Any] = {"provider": "claude", "percent": 10.0, "since": NOON, "lasts_s": HOUR} | change
        with pytest.raises(RefusedError, match=why):
            await site.users.bookings.make(ada.user, **wanted, actor=SHELL)

    site.run(main)


def test_no_more_is_booked_than_there_is_and_by_none_too_much(open_site: Callable[..., Site]) -> None:
    site = open_site(bookings=BOOKED)

    async def main() -> None:
        ada, _ = await site.friend("Ada")
        bo, _ = await site.friend("Bo")
        make = site.users.bookings.make
        await make(ada.user, "claude", 30.0, NOON + HOUR, 2 * HOUR, actor=SHELL)
        with pytest.raises(RefusedError, match="20 %"):
            await make(bo.user, "claude", 21.0, NOON, 2 * HOUR, actor=SHELL)
        await make(bo.user, "claude", 20.0, NOON, 2 * HOUR, actor=SHELL)
        await make(bo.user, "codex", 50.0, NOON, HOUR, actor=SHELL)
        await make(bo.user, "claude", 50.0, NOON + 3 * HOUR, HOUR, actor=SHELL)
        with pytest.raises(RefusedError, match="end one first"):
            await make(bo.user, "gemini", 1.0, NOON, HOUR, actor=SHELL)

    site.run(main)


def test_nobody_books_where_it_is_not_offered(site: Site) -> None:
    async def main() -> None:
        ada, _ = await site.friend("Ada")
        with pytest.raises(RefusedError, match="no bookings"):
            await site.users.bookings.make(ada.user, "claude", 1.0, NOON, HOUR, actor=SHELL)

    site.run(main)
