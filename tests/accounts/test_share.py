"""The share of each window that an owner gives: others are served to that very percent, the owner beyond it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_server.accounts.credentials import files
from pool_server.core.enums import Refusal
from pool_server.providers import CredentialRejectedError
from tests.accounts.kit import DAY, HOUR, NOW, Pool, ask, claude, week, window

ADA = "claude:ada"


def pool_of(folder: Path, share: Any, workers: int = 1, **more: Any) -> Pool:
    file = claude(owner="ada", terms={"share": share}, ends=NOW + 30 * DAY, **more)
    return Pool(folder, {"claude_ada.json": file}, workers=workers)


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


class Vendor:
    """An account that is used by requests of random sizes, and says with the head of each answer, or when it is asked,
    how much was used by those that have ended."""

    def __init__(self, folder: Path, share: float, workers: int) -> None:
        self.pool = pool_of(folder, {"5h": share, "7d": 100}, workers=workers)
        self.workers = [self.pool.accounts, *(self.pool.worker(leader=False) for _ in range(workers - 1))]
        self.used, self.open = 0.0, list[tuple[int, float]]()
        self.say(0)

    def say(self, by: int) -> None:
        self.pool.clock.now += 0.01
        seen = [window(self.used, 4 * HOUR, at=self.pool.clock.now), week(self.used / 10, at=self.pool.clock.now)]
        self.workers[by].observe(ADA, seen)

    def ask(self, user: str, by: int, size: float) -> bool:
        decision = self.workers[by].select(ask(user))
        if decision.account is not None:
            self.workers[by].begin(ADA, "claude-sonnet-4-5", ask().operation)
            self.open.append((by, size))
        return decision.account is not None

    def end(self, number: int) -> None:
        by, size = self.open.pop(number % len(self.open))
        self.pool.clock.now += 0.01
        self.used += size
        self.workers[by].end(ADA)

    @property
    def promised(self) -> float:
        return self.used + sum(size for _, size in self.open)


STEPS = st.lists(
    st.tuples(st.sampled_from(["bob", "cyd", "ada", "end", "end", "say"]), st.integers(0, 7), st.floats(0.5, 1.0)),
    min_size=30, max_size=80,
)  # fmt: skip


@pytest.mark.parametrize("workers", [1, 2])
@settings(max_examples=15, deadline=None)
@given(share=st.sampled_from([5, 30, 50]), size=st.sampled_from([0.2, 1.0, 2.0]), steps=STEPS)
def test_requests_in_parallel_pass_a_share_by_two_at_most(
    tmp_path_factory: pytest.TempPathFactory, workers: int, share: int, size: float, steps: Any
) -> None:
    """By one of each worker, which do not hear of each other here (that takes a moment), and one more, since the vendor
    shows a request with the next one; what the owner began elsewhere meanwhile is not known."""
    vendor = Vendor(tmp_path_factory.mktemp("share"), share, workers)
    for what, number, part in steps:
        by = number % workers
        if what == "end":
            if vendor.open:
                vendor.end(number)
        elif what == "say":
            vendor.say(by)
        elif what != "ada" or workers == 1:
            before = vendor.promised
            if vendor.ask(what, by, size * part):
                assert what == "ada" or before < share + workers * size, "what is promised is the share, and one or two"
            else:
                assert what != "ada"
    while vendor.open:
        vendor.end(0)
    for by in range(workers):
        vendor.say(by)
    assert vendor.ask("bob", 0, size) is (vendor.used < share), "what was left of it is open again"


def test_a_burst_at_the_boundary_waits_for_what_it_cannot_see(tmp_path: Path) -> None:
    vendor = Vendor(tmp_path, 50, 1)
    vendor.used = 49.9
    vendor.say(0)
    assert [vendor.ask("bob", 0, 1.0) for _ in range(8)] == [True, *[False] * 7]
    told = vendor.pool.accounts.select(ask("bob"))
    assert told.refused == {Refusal.RESERVED: 1} and told.retry_at is not None
    assert vendor.pool.clock.now < told.retry_at < vendor.pool.clock.now + 10
    assert vendor.ask("ada", 0, 1.0), "it is hers"


@pytest.mark.parametrize("late", [0, 1])
def test_one_request_after_the_other_has_the_whole_share(tmp_path: Path, late: int) -> None:
    """Also where the vendor shows a request with the next one only: then it is passed by that one."""
    vendor, served = Vendor(tmp_path, 50, 1), 0
    vendor.used = 20.0
    vendor.say(0)
    while vendor.ask("bob", 0, 5.0):
        vendor.used += 5.0 * (1 - late)
        vendor.say(0)
        vendor.used -= 5.0 * (1 - late)
        vendor.end(0)
        served += 1
        assert served < 20
    assert vendor.used == 50 + 5 * late


def test_far_from_it_a_share_holds_nobody_up(tmp_path: Path) -> None:
    vendor = Vendor(tmp_path, 50, 1)
    for _ in range(30):  # each of which uses a fiftieth of a percent
        assert vendor.ask("bob", 0, 0.02)
        vendor.say(0)
        vendor.end(0)
    assert all(vendor.ask("bob", 0, 0.02) for _ in range(200))


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
