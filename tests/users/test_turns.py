"""Requests that are asked for in one turn of the event loop share a transaction."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from pool_server.core.enums import Denial
from pool_server.core.models import Usage
from pool_server.core.settings import FairShare, Limits
from pool_server.users import Denied, Principal, Reservation
from pool_server.users.limits import reservations
from pool_server.users.limits.counters import Use, used_now
from pool_server.users.limits.periods import Calendar, zone
from pool_server.users.limits.recent_use import Shares
from pool_server.users.limits.reservations import Reservations

from .desk import Books, Desk, Writes, in_a_loop
from .site import Site

ASK: dict[str, Any] = {"provider": "codex", "model": "gpt-5", "tokens": 1000, "cost": None}


def test_they_are_answered_in_order_and_each_sees_those_before(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        limits, friend = Limits(concurrent=2), f"{desk.user}b"
        running = desk.took(limits)
        writes = Writes(desk.store, monkeypatch)
        asked = [desk.book.reserve_soon(desk.user, "codex", limits, 0, None) for _ in range(3)]
        theirs = desk.book.reserve_soon(friend, "codex", limits, 0, None)
        desk.book.settle(running, Usage(input=100), None)  # makes room within the same turn
        one, two, three, other = await asyncio.gather(*asked, theirs)
        assert writes.count == 2  # the friend's counters had to be made first
        assert isinstance(one, Reservation) and isinstance(two, Reservation) and isinstance(other, Reservation)
        assert isinstance(three, Denied) and three.denial is Denial.CONCURRENT
        with desk.store.read() as txn:
            assert txn.count("users.held") == 2
        desk.book.release(one)
        desk.book.settle(two, Usage(input=10), None)
        desk.book.release(other)
        use, _ = desk.book.read(desk.user)
        assert (use.day_tokens, use.by, used_now(use)["requests_per_minute"]) == (110, {}, 3)

    in_a_loop(main)


def test_they_count_at_once_for_whoever_reads(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        desk.took()
        desk.book.read("u_else")
        asked = desk.book.reserve_soon(desk.user, "codex", Limits(), 0, None)
        writes = Writes(desk.store, monkeypatch)
        desk.book.read("u_else")
        assert writes.count == 0 and not asked.done()  # no business of somebody else's
        assert desk.now["concurrent"] == 2
        assert isinstance(await asked, Reservation)

    in_a_loop(main)


def test_without_the_store_those_with_limits_are_turned_away(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        running = desk.took()
        writes = Writes(desk.store, monkeypatch)
        writes.good = 0
        limited = desk.book.reserve_soon(desk.user, "codex", Limits(tokens_day=10**6), 0, None)
        free = desk.book.reserve_soon(desk.user, "codex", Limits(), 0, None)
        desk.book.settle(running, Usage(input=100), None)
        denied, made = await asyncio.gather(limited, free)
        assert isinstance(denied, Denied) and (denied.denial, denied.status) == (Denial.STORE, 503)
        assert isinstance(made, Reservation) and not made.taken
        writes.good = None
        desk.book.settle(made, Usage(input=20), None)
        desk.book.settle_waiting()
        assert (desk.now["tokens_day"], desk.now["concurrent"]) == (120, 0)

    in_a_loop(main)


def test_only_who_asked_is_told_that_their_counters_cannot_be_read(desk: Desk) -> None:
    async def main() -> None:
        running = desk.took()
        desk.store.write(lambda txn: txn.put("users.use", b"u_broken", b"no such thing"))
        broken = desk.book.reserve_soon("u_broken", "codex", Limits(), 0, None)
        asked = desk.book.reserve_soon(desk.user, "codex", Limits(), 0, None)
        desk.book.settle(running, Usage(input=100), None)
        failed, made = await asyncio.gather(broken, asked, return_exceptions=True)
        assert isinstance(failed, ValueError) and isinstance(made, Reservation)
        assert (desk.now["tokens_day"], desk.now["concurrent"]) == (100, 1)

    in_a_loop(main)


def test_a_first_request_has_counters_made_from_the_ledger(desk: Desk) -> None:
    desk = Desk(desk.store, Books((desk.clock.now - 600, 5000, 0.5)))

    async def main() -> None:
        denied = await desk.book.reserve_soon(desk.user, "codex", Limits(tokens_day=5000), 0, None)
        assert isinstance(denied, Denied) and denied.denial is Denial.TOKENS_DAY

    in_a_loop(main)


@pytest.mark.parametrize("answered", [False, True])
def test_who_goes_while_asking_holds_nothing(site: Site, answered: bool) -> None:
    async def main() -> None:
        anna, _ = await site.friend()
        task = asyncio.create_task(site.users.admission.reserve_or_wait(anna, **ASK))
        await asyncio.sleep(0)  # it has asked
        if answered:
            assert site.users.me(anna)["used"]["concurrent"] == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        used = site.users.me(anna)["used"]
        assert (used["concurrent"], used["requests_per_minute"]) == (0, int(answered))

    site.run(main)


def test_many_at_once_take_one_transaction(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        anna, _ = await site.friend(concurrent=10)
        site.users.limits.of(anna.user)
        writes = Writes(site.state, monkeypatch)
        answers = await asyncio.gather(*(site.users.admission.reserve_or_wait(anna, **ASK) for _ in range(12)))
        assert writes.count == 1
        assert sum(isinstance(answer, Reservation) for answer in answers) == 10
        assert await site.users.admission.reserve_or_wait(
            Principal("u_nobody", "x"), **ASK
        ) == site.users.admission.reserve(Principal("u_nobody", "x"), **ASK)

    site.run(main)


def test_a_turn_of_which_nothing_is_left_does_not_hold_up_the_next(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        first, second, third = desk.took(), desk.took(), desk.took()
        writes = Writes(desk.store, monkeypatch)
        writes.good = 0
        desk.book.settle(first, Usage(input=1), None)
        await asyncio.sleep(0)
        desk.book.progress(second, 10, None)
        desk.book.settle(second, Usage(input=20), None)  # waits with the first: nothing is left of this turn
        await asyncio.sleep(0)
        writes.good = None
        desk.book.settle_waiting()
        desk.book.settle(third, Usage(input=300), None)
        await asyncio.sleep(0)
        assert desk.another().read(desk.user)[0].day_tokens == 321

    in_a_loop(main)


def alone(desk: Desk) -> Reservations:
    """The book of the only worker."""
    shares = Shares(desk.store, FairShare(), lambda user: 1.0)
    return Reservations(desk.store, Calendar(zone("UTC")), shares, desk.clock, desk.used, many=False)


def test_the_only_worker_counts_ends_and_requests_in_memory(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        book, limits = alone(desk), Limits(concurrent=1)
        writes = Writes(desk.store, monkeypatch)
        made = await book.reserve_soon(desk.user, "codex", limits, 0, None)
        for number in range(5):
            assert isinstance(made, Reservation), "who has their answer may ask again"
            before = writes.count
            book.progress(made, 5, None)
            book.settle(made, Usage(input=10), None)
            await asyncio.sleep(0)
            assert writes.count == before
            made = await book.reserve_soon(desk.user, "codex", limits, 0, None)
            assert writes.count == before, number
        assert isinstance(made, Reservation)
        assert book.read(desk.user)[0].day_tokens == 50

    in_a_loop(main)


@pytest.mark.parametrize("seen", ["read", "stopped", "close", "beside", "in time"])
def test_whoever_looks_finds_what_waits_for_company(desk: Desk, seen: str) -> None:
    async def main() -> None:
        book, limits = alone(desk), Limits(concurrent=1)
        made = book.reserve(desk.user, "codex", limits, 0, None)
        assert isinstance(made, Reservation)
        book.settle(made, Usage(input=10), None)
        if seen == "read":
            assert (book.read(desk.user)[0].by, book.read(desk.user)[0].day_tokens) == ({}, 10)
            return
        if seen == "stopped":
            assert book.stopped(desk.user, limits) is None
            return
        if seen == "close":
            book.close()
        elif seen == "beside":
            book.stand_beside(True)
        else:
            while desk.another().read(desk.user)[0].day_tokens != 10:
                await asyncio.sleep(reservations._BEHIND_S)
        assert desk.another().read(desk.user)[0].day_tokens == 10

    in_a_loop(main)


def test_what_waits_for_company_is_still_held_in_the_store(desk: Desk) -> None:
    """So that whoever settles for a worker that was killed finds it, and asks the ledger."""

    async def main() -> None:
        book = alone(desk)
        made = book.reserve(desk.user, "codex", Limits(), 0, None)
        assert isinstance(made, Reservation)
        book.settle(made, Usage(input=10), 0.5)
        with desk.store.read() as txn:
            assert txn.count("users.held") == 1, "its mark is there until it has settled"
            raw = txn.get("users.use", desk.user.encode())
        assert raw is not None and msgspec.msgpack.decode(raw, type=Use).held.requests == 1

    in_a_loop(main)
