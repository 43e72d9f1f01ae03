from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pool_server.core.enums import Denial
from pool_server.core.models import Usage
from pool_server.core.processes import alive, name
from pool_server.core.settings import COUNTED_BY_DENIAL, Limits
from pool_server.storage import Store, StoreFullError
from pool_server.users import Denied, Reservation
from pool_server.users.limits.counters import FLOOR_TOKENS, SOON, Hold
from pool_server.users.limits.reservations import Reservations

from .desk import Books, Desk, child, open_state
from .site import NOON


def test_a_request_is_reserved_and_settled_once(desk: Desk) -> None:
    made = desk.took(Limits(tokens_day=100_000), 10_000, 0.5)
    assert desk.now["concurrent"] == 1 and desk.now["tokens_day"] == 0
    desk.book.settle(made, Usage(input=1000, cache_read=5000, output=200, reasoning=100), 0.25)
    desk.book.settle(made, Usage(input=9999), 9.0)
    desk.book.release(made)
    now = desk.now
    assert (now["concurrent"], now["requests_per_minute"]) == (0, 1)
    assert now["tokens_5h"] == now["tokens_day"] == now["tokens_week"] == now["tokens_month"] == 6200
    assert now["cost_day"] == now["cost_week"] == now["cost_month"] == 0.25


def test_a_released_request_used_nothing(desk: Desk) -> None:
    made = desk.took(Limits(tokens_day=5000), 5000)
    assert isinstance(desk.take(Limits(tokens_day=5000)), Denied)
    desk.book.release(made)
    desk.book.settle(made, Usage(input=5000), 1.0)
    assert desk.now["tokens_day"] == 0 and desk.now["cost_day"] == 0
    desk.took(Limits(tokens_day=5000))


@pytest.mark.parametrize(
    ("denial", "limit", "words"),
    [
        (Denial.REQUESTS_PER_MINUTE, 1, "1 request a minute"),
        (Denial.REQUESTS_PER_MINUTE, 60, "60 requests a minute"),
        (Denial.CONCURRENT, 1, "1 request at the same time"),
        (Denial.TOKENS_DAY, 1, "1 token a day"),
        (Denial.TOKENS_5H, 1000, "1,000 tokens in 5 hours"),
        (Denial.COST_DAY, 1, "$1.00 a day"),
    ],
)
def test_a_limit_is_told_in_the_right_number(denial: Denial, limit: float, words: str) -> None:
    assert COUNTED_BY_DENIAL[denial].amount(limit) == words


def test_a_denial_names_the_limit_and_when_it_frees(desk: Desk) -> None:
    desk.book.settle(desk.took(), Usage(input=50_000), None)
    denied = desk.take(Limits(tokens_day=50_000))
    assert isinstance(denied, Denied)
    assert (denied.denial, denied.status) == (Denial.TOKENS_DAY, 429)
    assert denied.message == "your limit of 50,000 tokens a day is reached"
    assert denied.retry_at == desk.book.read(desk.user)[1].day_end
    desk.clock.now = denied.retry_at
    desk.took(Limits(tokens_day=50_000))


def test_concurrent_requests_are_counted_over_all_workers(desk: Desk) -> None:
    other = desk.another()
    limits = Limits(concurrent=2)
    first = desk.took(limits)
    assert isinstance(other.reserve(desk.user, "codex", limits, 0, None), Reservation)
    for book in (desk.book, other):
        denied = book.reserve(desk.user, "codex", limits, 0, None)
        assert isinstance(denied, Denied) and denied.denial is Denial.CONCURRENT
    desk.book.settle(first, Usage(), None)
    assert isinstance(other.reserve(desk.user, "codex", limits, 0, None), Reservation)


def test_a_stream_that_outgrows_its_reservation_stops_the_next_request(desk: Desk) -> None:
    limits = Limits(tokens_day=100_000)
    made = desk.took(limits, 10_000)
    desk.book.progress(made, 60_000, None)
    second = desk.took(limits)
    desk.book.progress(made, 120_000, None)
    denied = desk.take(limits)
    assert isinstance(denied, Denied) and denied.retry_at == NOON + SOON
    desk.book.settle(second, Usage(), None)
    desk.book.settle(made, Usage(output=130_000), None)
    assert desk.now["tokens_day"] == 130_000


def test_an_unknown_price_is_not_free(desk: Desk) -> None:
    desk.book.settle(desk.took(), Usage(input=10), None)
    assert desk.now["cost_day"] == pytest.approx(0.02)
    made = desk.took()
    desk.book.progress(made, 10, 0.5)
    desk.book.settle(made, Usage(input=10), None)
    assert desk.now["cost_day"] == pytest.approx(0.52)


step = st.tuples(st.sampled_from("rrrpse"), st.integers(0, 30_000), st.floats(0.0, 1.0))


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(steps=st.lists(step, max_size=40), most=st.integers(0, 100_000), cap=st.floats(0.0, 2.0))
def test_any_order_of_events_passes_a_limit_by_one_request_at_most(
    store: Store, steps: list[tuple[str, int, float]], most: int, cap: float
) -> None:
    desk, limits = Desk(store), Limits(tokens_day=most, cost_day=cap)
    books = [desk.book, desk.another()]
    running: list[tuple[Reservations, Reservation, int, float]] = []
    spent_tokens, spent_cost, largest_tokens, largest_cost = 0, 0.0, 0, 0.0
    for kind, tokens, part in steps:
        book = books[tokens % 2]
        if kind == "r":
            made = book.reserve(desk.user, "codex", limits, tokens, part)
            if isinstance(made, Reservation):
                running.append((book, made, made.tokens, made.cost))
            continue
        if not running:
            continue
        book, made, reserved, cost = running[tokens % len(running)]
        if kind == "p":
            book.progress(made, int(reserved * part / 2), cost * part / 2)
            continue
        running.remove((book, made, reserved, cost))
        if kind == "e":
            book.release(made)
            continue
        used, paid = int(reserved * max(0.5, part)), cost * max(0.5, part)
        book.settle(made, Usage(input=used), paid)
        spent_tokens, spent_cost = spent_tokens + used, spent_cost + paid
        largest_tokens, largest_cost = max(largest_tokens, used), max(largest_cost, paid)
        assert spent_tokens <= most + largest_tokens
        assert spent_cost <= cap + largest_cost + 1e-9
    for book, made, _, _ in running:
        book.release(made)
    use, _ = desk.book.read(desk.user)
    assert use.held == Hold() and not use.by
    assert use.day_tokens == spent_tokens
    assert use.day_cost == pytest.approx(spent_cost)


@pytest.mark.parametrize("most", [1_500, 100_000, 1_000_000])
def test_requests_that_outgrow_their_estimates_pass_a_limit_by_one_request_once_that_is_known(
    desk: Desk, most: int
) -> None:
    """Estimates of 100 tokens, requests of 20,000: the floor and what was learned from the first hold the line."""
    limits, size = Limits(tokens_day=most), 20_000
    desk.book.settle(desk.took(limits, 100), Usage(input=size), None)
    total = size
    while total < most:
        parallel = [made for _ in range(100) if isinstance(made := desk.take(limits, 100), Reservation)]
        for made in parallel:
            desk.book.settle(made, Usage(input=size), None)
        total += size * len(parallel)
    assert most <= total < most + size


def test_a_small_limit_lets_one_request_in_at_a_time(desk: Desk) -> None:
    limits = Limits(tokens_day=FLOOR_TOKENS // 2)
    made = desk.took(limits, 10)
    denied = desk.take(limits, 10)
    assert isinstance(denied, Denied) and denied.retry_at == NOON + SOON
    desk.book.settle(made, Usage(input=10), None)
    desk.took(limits, 10)


def test_missing_counters_are_made_from_the_ledger(store: Store) -> None:
    hour = 3600.0
    ledger = Books((NOON - 30 * hour, 1000, 1.0), (NOON - 4.2 * hour, 100, 0.5), (NOON - 600, 10, 0.25))
    desk = Desk(store, ledger)
    now = desk.now
    asked = ledger.asked
    assert desk.now == now and ledger.asked == asked  # made once, then kept
    assert (now["tokens_5h"], now["tokens_day"], now["tokens_week"]) == (110, 110, 1110)
    assert (now["cost_day"], now["cost_week"]) == (0.75, 1.75)
    desk.book.settle(desk.took(), Usage(input=1), 0.0)
    assert desk.now["tokens_week"] == 1111
    before = ledger.asked
    desk.book.settle(desk.took(), Usage(input=1), 0.0)
    assert desk.now["tokens_day"] == 112
    assert ledger.asked == before  # known now
    desk.clock.now += 1.5 * hour  # the oldest of the rolling window has left it, the rest not
    assert 12 <= desk.now["tokens_5h"] < 112
    idle = Desk(store, ledger := Books())
    assert idle.now["tokens_month"] == 0 and ledger.asked == 1


def test_counters_of_another_life_of_the_machine_are_made_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(store, Books((NOON - 60, 500, 0.0)))
    desk.book.settle(desk.took(), Usage(input=40), None)
    assert desk.now["tokens_day"] == 540
    desk.took(tokens=9000)
    monkeypatch.setattr("pool_server.core.processes.epoch", lambda: "next")
    desk.used = Books((NOON - 60, 560, 0.0))
    desk.book = desk.another()
    assert desk.now["tokens_day"] == 560
    assert desk.now["concurrent"] == 0


def test_limits_fail_closed_and_the_unlimited_go_on(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    running = desk.took(Limits(tokens_day=100_000), 10)
    write = desk.store.write

    def full(fn: Callable[..., Any]) -> Any:
        raise StoreFullError("no space left")

    monkeypatch.setattr(desk.store, "write", full)
    for limits in (Limits(tokens_day=100_000), Limits(requests_per_minute=9), Limits(cost_month=1.0)):
        denied = desk.take(limits)
        assert isinstance(denied, Denied)
        assert (denied.denial, denied.status) == (Denial.STORE, 503)
    unlimited = desk.took(Limits(providers=["codex"]))
    desk.book.progress(running, 5000, 0.1)
    desk.book.settle(running, Usage(input=700), 0.1)
    desk.book.settle(unlimited, Usage(input=30), 0.1)
    desk.book.settle_waiting()
    monkeypatch.setattr(desk.store, "write", write)
    assert desk.now["tokens_day"] == 0
    desk.book.settle_waiting()
    assert (desk.now["tokens_day"], desk.now["concurrent"]) == (730, 0)
    desk.book.settle_waiting()
    assert desk.now["tokens_day"] == 730


def test_workers_in_parallel_pass_a_limit_by_one_request_together(tmp_path: Path) -> None:
    body = """
        sys.stdin.readline()
        done = 0
        for _ in range(150):
            made = book.reserve("u_1", "codex", Limits(tokens_day=100_000), 1000, None)
            if isinstance(made, Reservation):
                book.settle(made, Usage(input=4000), None)
                done += 1
        print(json.dumps(done), flush=True)
        sys.stdin.read()
    """
    workers = [child(tmp_path, body) for _ in range(3)]
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    done = [json.loads(worker.communicate()[0]) for worker in workers]
    assert 25 <= sum(done) <= 26
    store = open_state(tmp_path)
    desk = Desk(store)
    desk.user, desk.clock.now = "u_1", time.time()
    assert (desk.now["tokens_day"], desk.now["concurrent"]) == (4000 * sum(done), 0)
    store.close()


def test_workers_are_told_apart_from_dead_ones() -> None:
    mine = name()
    assert alive(mine) and name() != mine
    pid, started, boot, chance = mine.split(".")
    assert alive(f"{pid}.{started}.{boot}.{chance}")
    assert not alive(f"{pid}.{int(started) + 1}.{boot}.{chance}")  # the pid was used again
    assert not alive(f"{pid}.{started}.another.{chance}")  # in another life of the machine
    assert not alive(f"{pid}.{started}.{chance}")  # a name of an older version of the program
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert not alive(f"{gone.pid}.{started}.{boot}.{chance}")
    assert not alive("nonsense")


def test_marks_of_idle_users_go_and_of_running_ones_stay(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def marks() -> int:
        with desk.store.read() as txn:
            return txn.count("users.held")

    one, two = desk.took(), desk.took()
    desk.book.settle(one, Usage(), None)
    desk.book.forget_idle()
    assert marks() == 1
    desk.book.settle(two, Usage(), None)
    assert marks() == 1
    desk.book.forget_idle()
    assert marks() == 0
    again = desk.took()
    assert marks() == 1
    write = desk.store.write
    monkeypatch.setattr(desk.store, "write", lambda fn: (_ for _ in ()).throw(StoreFullError("no space left")))
    desk.book.settle(again, Usage(input=5), None)
    monkeypatch.setattr(desk.store, "write", write)
    desk.book.forget_idle()
    assert marks() == 1  # it is not settled yet, and if this worker died now, somebody must know
    desk.book.settle_waiting()
    desk.book.forget_idle()
    assert (marks(), desk.now["tokens_day"]) == (0, 5)
