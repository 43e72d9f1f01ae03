"""How requests are settled: at the end of a turn, when the store fails, and when their worker is dead."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import cast

import pytest

from pool_server.core.enums import Denial
from pool_server.core.models import Usage
from pool_server.core.settings import Limits
from pool_server.storage import Store
from pool_server.users import Denied, Reservation
from pool_server.users.limits.counters import used_now
from pool_server.users.limits.reservations import Reservations

from .desk import Books, Desk, Writes, child, in_a_loop, open_state
from .site import NOON


def test_what_ends_in_one_turn_of_the_loop_is_written_at_once_and_before_the_next(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    friend = f"{desk.user}b"

    async def main() -> None:
        other = desk.another()
        made = [desk.took() for _ in range(5)]
        theirs = desk.book.reserve(friend, "claude", Limits(), 0, None)
        assert isinstance(theirs, Reservation)
        writes = Writes(desk.store, monkeypatch)
        for one in made[:4]:
            desk.book.settle(one, Usage(input=1000), 0.25)
        desk.book.settle(theirs, Usage(input=70), 0.5)
        desk.book.release(made[4])
        assert writes.count == 0
        await asyncio.sleep(0)
        assert writes.count == 1
        use, _ = other.read(desk.user)
        assert (use.day_tokens, use.day_cost, use.by) == (4000, 1.0, {})
        assert used_now(other.read(friend)[0])["tokens_week"] == 70
        with desk.store.read() as txn:
            assert txn.count("users.share") == 2
        await asyncio.sleep(0)
        assert writes.count == 1

    in_a_loop(main)


def test_a_worker_sees_its_own_ends_within_the_turn(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        limits = Limits(concurrent=1, tokens_day=5000)
        desk.book.settle(desk.took(limits), Usage(input=3000), None)
        made = desk.took(limits)  # the first is over
        desk.book.settle(made, Usage(input=2000), None)
        denied = desk.take(limits)
        assert isinstance(denied, Denied) and denied.denial is Denial.TOKENS_DAY
        desk.book.settle(desk.took(), Usage(input=10), None)
        assert (desk.now["tokens_day"], desk.now["concurrent"]) == (5010, 0)
        writes = Writes(desk.store, monkeypatch)
        await asyncio.sleep(0)
        assert writes.count == 0  # nothing was left for the end of the turn

    in_a_loop(main)


def test_a_mark_goes_only_after_what_ended_in_this_turn_is_settled(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its mark nobody would find what a worker that dies now still holds."""

    def marks() -> int:
        with desk.store.read() as txn:
            return txn.count("users.held")

    async def main() -> None:
        writes = Writes(desk.store, monkeypatch)
        desk.book.settle(desk.took(), Usage(input=100), None)
        writes.good = writes.count
        desk.book.forget_idle()
        assert marks() == 1
        writes.good = None
        desk.book.settle_waiting()
        desk.book.settle(desk.took(), Usage(input=100), None)
        desk.book.forget_idle()
        assert (marks(), desk.now["concurrent"]) == (0, 0)

    in_a_loop(main)


def test_ends_of_a_turn_that_cannot_be_written_wait(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        one, two, three = desk.took(), desk.took(), desk.took()
        writes = Writes(desk.store, monkeypatch)
        writes.good = writes.count
        desk.book.settle(one, Usage(input=100), None)
        desk.book.settle(two, Usage(input=20), None)
        await asyncio.sleep(0)
        desk.book.settle(three, Usage(input=3), None)
        await asyncio.sleep(0)
        assert writes.count == 1  # one attempt; the rest is left to `settle_waiting`
        writes.good = None
        desk.book.settle_waiting()
        assert (desk.now["tokens_day"], desk.now["concurrent"]) == (123, 0)

    in_a_loop(main)


def test_a_record_that_cannot_be_read_keeps_nobody_else_from_being_settled(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        broken = desk.book.reserve("u_broken", "codex", Limits(), 0, None)
        assert isinstance(broken, Reservation)
        mine = desk.took()
        desk.store.write(lambda txn: txn.put("users.use", b"u_broken", b"no such thing"))
        desk.book.settle(broken, Usage(input=9), None)
        desk.book.settle(mine, Usage(input=100), None)
        await asyncio.sleep(0)
        assert (desk.now["tokens_day"], desk.now["concurrent"]) == (100, 0)
        assert "could not be counted" in caplog.text

    in_a_loop(main)


@pytest.mark.parametrize("good", [3, 4])
def test_one_of_many_that_cannot_be_read_settles_nobody_twice_when_the_store_fails(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, good: int
) -> None:
    """The whole is tried, then each alone; after `good` attempts the disk is full."""

    async def main() -> None:
        broken = desk.book.reserve("u_broken", "codex", Limits(), 0, None)
        assert isinstance(broken, Reservation)
        made = [desk.took() for _ in range(3)]
        desk.store.write(lambda txn: txn.put("users.use", b"u_broken", b"no such thing"))
        writes = Writes(desk.store, monkeypatch)
        writes.good = good
        desk.book.settle(broken, Usage(input=9), None)
        for one in made:
            desk.book.settle(one, Usage(input=100), None)
        await asyncio.sleep(0)
        assert writes.count == 5
        writes.good = None
        assert desk.now["tokens_day"] == (good - 2) * 100
        desk.book.settle_waiting()
        assert (desk.now["tokens_day"], desk.now["concurrent"]) == (300, 0)

    in_a_loop(main)


def test_reports_of_one_turn_are_written_together_and_at_once_before_the_next_request(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        limits, other = Limits(tokens_day=100_000), desk.another()
        one, two = desk.took(limits), desk.took(limits)
        writes = Writes(desk.store, monkeypatch)
        desk.book.progress(one, 10_000, 0.5)
        desk.book.progress(two, 30_000, None)
        desk.book.progress(two, 20_000, 0.25)  # of numbers that go back the larger counts
        assert writes.count == 0
        await asyncio.sleep(0)
        assert writes.count == 1
        held = other.read(desk.user)[0].held
        assert (held.tokens, held.seen_tokens, held.seen_cost) == (40_000, 40_000, 0.75)
        desk.book.progress(one, 90_000, 0.5)
        denied = desk.take(limits)
        assert isinstance(denied, Denied) and denied.denial is Denial.TOKENS_DAY
        desk.book.progress(two, 30_000, 0.5)
        desk.book.settle(one, Usage(input=95_000), 1.0)
        desk.book.release(two)
        use, _ = desk.book.read(desk.user)
        assert (use.day_tokens, use.day_cost, use.by) == (95_000, 1.0, {})

    in_a_loop(main)


def test_a_report_is_not_written_when_its_request_ends_in_the_same_turn(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        made, other = desk.took(), desk.took()
        writes = Writes(desk.store, monkeypatch)
        desk.book.progress(made, 50_000, 0.5)
        desk.book.settle(made, Usage(input=50_010), None)  # price not known: what was reported
        await asyncio.sleep(0)
        assert writes.count == 1
        use, _ = desk.book.read(desk.user)
        assert (use.day_tokens, use.day_cost) == (50_010, 0.5)
        assert use.held == other.hold

    in_a_loop(main)


def test_reports_that_cannot_be_written_are_made_up_for(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        made = desk.took()
        writes = Writes(desk.store, monkeypatch)
        writes.good = 0
        desk.book.progress(made, 50_000, 0.5)
        await asyncio.sleep(0)
        writes.good = None
        assert desk.book.read(desk.user)[0].held.seen_tokens == 0
        desk.book.progress(made, 60_000, 0.75)
        held = desk.book.read(desk.user)[0].held
        assert (held.tokens, held.seen_tokens, held.seen_cost) == (60_000, 60_000, 0.75)
        desk.book.settle(made, Usage(input=61_000), 0.75)
        use, _ = desk.book.read(desk.user)
        assert (use.day_tokens, use.day_cost, use.by) == (61_000, 0.75, {})

    in_a_loop(main)


def test_a_book_that_closes_leaves_nothing_and_writes_at_once_from_then_on(desk: Desk) -> None:
    async def main() -> None:
        other = desk.another()
        one, two = desk.took(), desk.took()
        desk.book.settle(one, Usage(input=100), None)
        desk.book.close()
        assert other.read(desk.user)[0].day_tokens == 100
        desk.book.settle(two, Usage(input=10), None)
        assert other.read(desk.user)[0].day_tokens == 110

    in_a_loop(main)


def test_counters_that_go_missing_between_reserving_and_settling_are_made_from_the_ledger(store: Store) -> None:
    desk = Desk(store, Books((NOON - 600, 500, 0.5)))

    async def main() -> None:
        friend = f"{desk.user}b"
        theirs = desk.book.reserve(friend, "codex", Limits(), 0, None)
        assert isinstance(theirs, Reservation)
        mine = desk.took()
        for user in (desk.user, friend):
            store.write(lambda txn, user=user: txn.delete("users.use", user.encode()))  # type: ignore[misc]
        desk.book.settle(mine, Usage(input=20), 0.25)
        desk.book.settle(theirs, Usage(input=3), 0.25)
        await asyncio.sleep(0)
        assert (desk.now["tokens_day"], desk.now["cost_day"]) == (520, 0.75)
        assert desk.book.read(friend)[0].day_tokens == 503

    in_a_loop(main)


def test_what_a_killed_worker_held_is_settled_at_what_it_last_reported(tmp_path: Path) -> None:
    dying = child(
        tmp_path,
        """
        for tokens in (0, 1000, 70_000):
            made = book.reserve("u_1", "codex", Limits(concurrent=3), 5000, None)
            if tokens:
                book.progress(made, tokens, tokens / 1e6)
        print("ready", flush=True)
        sys.stdin.read()
        """,
    )
    assert dying.stdout is not None and dying.stdout.readline() == "ready\n"
    store = open_state(tmp_path)
    desk = Desk(store)
    desk.user, desk.clock.now = "u_1", time.time()
    assert desk.book.recover() == 0  # it lives
    assert isinstance(desk.take(Limits(concurrent=3)), Denied)
    os.kill(dying.pid, signal.SIGKILL)
    os.waitid(os.P_PID, dying.pid, os.WEXITED | os.WNOWAIT)  # dead, and not yet buried by its parent
    assert desk.book.recover() == 1
    dying.communicate()
    assert (desk.now["concurrent"], desk.now["tokens_day"]) == (0, 71_000)
    assert desk.now["cost_day"] == pytest.approx(0.071)
    assert desk.book.recover() == 0
    desk.took(Limits(concurrent=3))
    store.close()


def test_what_a_worker_recorded_but_was_killed_before_settling_is_counted(tmp_path: Path) -> None:
    dying = child(
        tmp_path,
        """
        async def main():
            for tokens in (1000, 200):
                made = book.reserve("u_1", "codex", Limits(), 5000, None)
                book.settle(made, Usage(input=tokens), 0.5)
                await asyncio.sleep(0)
            made = book.reserve("u_1", "codex", Limits(), 5000, None)
            book.settle(made, Usage(input=30), 0.25)
            print("ready", flush=True)  # and the turn never ends
            sys.stdin.read()

        asyncio.run(main())
        """,
    )
    assert dying.stdout is not None and dying.stdout.readline() == "ready\n"
    dying.kill()
    dying.communicate()
    store = open_state(tmp_path)
    now = time.time()
    desk = Desk(store, Books((now - 2, 1200, 1.0), (now - 1, 30, 0.25)))
    desk.user, desk.clock.now = "u_1", now
    assert desk.now["tokens_5h"] == 1200
    assert desk.book.recover() == 1
    for window in ("tokens_5h", "tokens_week", "tokens_month"):
        assert desk.now[window] == 1230
    assert (desk.now["cost_month"], desk.now["concurrent"]) == (1.25, 0)
    store.close()


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["under way", "ended", "after a pause"])
def test_what_the_only_worker_counted_in_memory_is_counted_when_it_is_killed(tmp_path: Path, moment: str) -> None:
    """The store is behind by any number of requests; their records are in the ledger."""
    dying = child(
        tmp_path,
        f"""
        from pool_server.users.limits import reservations
        book = Reservations(store, Calendar(zone("UTC")), shares, time.time, None, many=False)

        async def request(tokens):
            made = await book.reserve_soon("u_1", "codex", Limits(concurrent=9), 5000, None)
            book.settle(made, Usage(input=tokens), 0.5)
            return made

        async def main():
            for _ in range(10):
                await request(100)
            if "{moment}" == "after a pause":
                book._rows.commit()  # nothing is held now, in the store neither
                reservations._BEHIND_S = book._rows._within_s = 3600.0
                await request(30)
            if "{moment}" == "under way":
                await book.reserve_soon("u_1", "codex", Limits(concurrent=9), 5000, None)
            print("ready", flush=True)
            sys.stdin.read()

        asyncio.run(main())
        """,
    )
    assert dying.stdout is not None and dying.stdout.readline() == "ready\n"
    dying.kill()
    dying.communicate()
    store = open_state(tmp_path)
    now = time.time()
    desk = Desk(store, Books((now - 2, 1000, 5.0), (now - 1, 30, 0.5)))
    desk.user, desk.clock.now = "u_1", now
    assert desk.book.recover() == 1
    for window in ("tokens_5h", "tokens_week", "tokens_month"):
        assert desk.now[window] == 1030
    assert (desk.now["cost_month"], desk.now["concurrent"]) == (5.5, 0)
    store.close()


def dead_with(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Reservations:
    """A worker that has used 100 tokens, was killed while it held something, and a living one to look after it."""
    desk.book.settle(desk.took(), Usage(input=100), None)
    desk.book.progress(desk.took(), 7, 0.0)
    dead = desk.book._worker
    monkeypatch.setattr("pool_server.core.processes.alive", lambda worker: worker != dead)
    return desk.another()


def test_the_ledger_is_not_believed_about_a_dead_worker_while_others_hold(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it knows of them they have perhaps not settled yet, and would count it a second time."""
    ledger = Books()
    desk = Desk(store, ledger)
    desk.book = living = dead_with(desk, monkeypatch)
    made = desk.took()
    ledger.events = ((NOON - 1, 100, 0.0), (NOON, 5000, 0.0))  # the second is what `made` will be settled at
    assert living.recover() == 1
    assert desk.now["tokens_day"] == 107
    living.settle(made, Usage(input=5000), None)
    assert desk.now["tokens_day"] == 5107


def test_nor_when_somebody_takes_room_while_it_is_asked(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Books()
    taken: list[Reservation | Denied] = []

    def used(user: str, since: float, key: str = "") -> dict[str, float]:
        if ledger.events and not taken:
            taken.append(other.reserve(user, "codex", Limits(), 0, None))
        return ledger(user, since)

    desk = Desk(store, used)
    desk.book = dead_with(desk, monkeypatch)
    other = desk.another()
    ledger.events = ((NOON - 1, 100, 0.0), (NOON, 5000, 0.0))
    assert desk.book.recover() == 1
    assert taken and desk.now["tokens_day"] == 107


def test_what_a_worker_has_just_ended_is_no_hold_beside_the_dead_one(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Books()
    desk = Desk(store, ledger)
    desk.book = living = dead_with(desk, monkeypatch)

    async def main() -> None:
        living.settle(desk.took(), Usage(input=20), None)
        ledger.events = ((NOON - 1, 100, 0.0), (NOON, 50, 0.0))
        assert living.recover() == 1
        assert desk.now["tokens_day"] == 150

    in_a_loop(main)


def test_a_dead_worker_is_settled_at_what_it_reported_where_the_ledger_knows_less(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Books()
    desk = Desk(store, ledger)
    desk.book = dead_with(desk, monkeypatch)
    ledger.events = ((NOON - 1, 100, 0.0),)
    assert desk.book.recover() == 1
    assert desk.now["tokens_day"] == desk.now["tokens_5h"] == 107


def test_what_dead_workers_left_can_be_settled_a_few_users_at_a_time(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    for book in (desk.book, desk.another()):
        for user in ("u_a", "u_b", "u_c"):
            book.progress(cast(Reservation, book.reserve(user, "codex", Limits(), 0, None)), 10, None)
    monkeypatch.setattr("pool_server.core.processes.alive", lambda worker: False)
    living = desk.another()
    assert [living.recover(4), living.recover(4), living.recover(4)] == [4, 2, 0]
    for user in ("u_a", "u_b", "u_c"):
        use, _ = living.read(user)
        assert (use.day_tokens, use.by) == (20, {})


def test_the_ledger_is_not_asked_about_users_for_whom_nothing_ran(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Books()
    desk = Desk(store, ledger)
    desk.book.settle(desk.took(), Usage(input=100), None)
    asked = ledger.asked
    monkeypatch.setattr("pool_server.core.processes.alive", lambda worker: False)
    assert desk.another().recover() == 1
    assert ledger.asked == asked


def test_a_settlement_after_being_taken_for_dead_counts_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    made = desk.took(tokens=5000)
    desk.book.progress(made, 1000, 0.1)
    other = desk.another()
    monkeypatch.setattr("pool_server.core.processes.alive", lambda worker: False)
    assert other.recover() == 1
    assert (desk.now["tokens_day"], desk.now["concurrent"]) == (1000, 0)
    desk.book.progress(made, 1500, 0.2)
    desk.book.settle(made, Usage(input=1800), 0.3)
    assert desk.now["tokens_day"] == 1800
    assert desk.now["cost_day"] == pytest.approx(0.3)


def test_requests_at_the_same_time_are_counted_here_while_the_store_cannot_be_written(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk turns nobody away whose limits this worker can keep by itself."""
    limits = Limits(concurrent=3)
    before = desk.took(limits)
    writes = Writes(desk.store, monkeypatch)
    writes.good = 0
    made = [desk.took(limits), desk.took(limits)]
    for other in (limits, Limits(concurrent=9, tokens_day=10**9), Limits(requests_per_minute=9), Limits(cost_day=9.0)):
        refused = desk.take(other)
        assert isinstance(refused, Denied) and refused.denial is Denial.STORE
    desk.book.release(made.pop())
    made.append(desk.took(limits))
    desk.book.settle(before, Usage(input=5), None)
    made.append(desk.took(limits))
    assert isinstance(desk.take(limits), Denied)
    for one in made:
        desk.book.settle(one, Usage(input=7), None)
    writes.good = None
    desk.book.settle_waiting()
    assert (desk.now["tokens_day"], desk.now["concurrent"]) == (26, 0)
    assert not desk.book._uncounted
    for _ in range(3):
        desk.took(limits)
    stopped = desk.take(limits)
    assert isinstance(stopped, Denied) and stopped.denial is Denial.CONCURRENT
