"""The share of each window that an owner gives: others are served to that very percent, the owner beyond it."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from pool_server.accounts.credentials import files
from pool_server.accounts.health.share_use import SAFETY, UNKNOWN_RISE
from pool_server.core import processes
from pool_server.core.enums import Refusal, Source
from pool_server.providers import CredentialRejectedError
from tests.accounts.kit import DAY, HOUR, NOW, SONNET, Pool, ask, claude, week, window

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
    """An account that is used by requests of random sizes through several workers, and says with the head of each
    answer how much was used: by those that have ended (`late`), or with what those in flight will use."""

    def __init__(self, folder: Path, share: float, workers: int, *, late: bool = True) -> None:
        self.pool = pool_of(folder, {"5h": share, "7d": 100}, workers=workers)
        self.workers = [self.pool.accounts, *(self.pool.worker(leader=False) for _ in range(workers - 1))]
        self.used, self.told, self.open = 0.0, 0.0, list[tuple[int, float]]()
        self.late = late
        self.dead = set[str]()
        self.say(0)

    def say(self, by: int, source: Source = Source.HEADERS) -> None:
        self.pool.clock.now += 0.01
        self.told, at = self.used if self.late else self.promised, self.pool.clock.now
        seen = [window(self.told, 4 * HOUR, at=at, source=source), week(self.told / 10, at=at, source=source)]
        self.workers[by].observe(ADA, seen)

    def ask(self, user: str, by: int, size: float) -> bool:
        decision = self.workers[by].select(ask(user))
        return decision.account is not None and self.begin(user, by, size)

    def begin(self, user: str, by: int, size: float) -> bool:
        begun = self.workers[by].begin(ADA, SONNET, ask().operation, user)
        if begun:
            self.open.append((by, size))
        return begun

    def end(self, number: int) -> None:
        by, size = self.open.pop(number % len(self.open))
        self.pool.clock.now += 0.01
        self.used += size
        self.workers[by].end(ADA)

    def kill(self, by: int) -> None:
        """A worker dies with what it had in flight, which the vendor has counted; another one starts in its place."""
        self.used += sum(size for worker, size in self.open if worker == by)
        self.open = [one for one in self.open if one[0] != by]
        self.dead.add(self.workers[by]._registry._worker)
        self.workers[by] = self.pool.worker(leader=False)
        self.pool.clock.now += 0.01
        with patch.object(processes, "ended", self.dead.__contains__):
            for worker in self.workers:
                worker._registry.keep_reservations()

    @property
    def promised(self) -> float:
        return self.used + sum(size for _, size in self.open)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["bob", "cyd", "ada", "both", "end", "end", "end", "say", "poll", "kill"]),
        st.integers(0, 7), st.floats(0.5, 1.0),
    ),
    min_size=30, max_size=80,
)  # fmt: skip


QUICK = (Phase.explicit, Phase.reuse, Phase.generate)  # making a history of some 50 writes smaller takes minutes


class History:
    """Steps of friends, the owner and workers, each friend's held against the rule."""

    def __init__(self, vendor: Vendor, share: float, size: float) -> None:
        self.vendor, self.share, self.size = vendor, share, size
        self.hidden = size if vendor.late else 0.0  # a lone request that its own answer does not show
        self.unsaid = False  # requests have ended since the vendor said anything

    def do(self, what: str, number: int, part: float) -> None:
        vendor, by, size = self.vendor, number % len(self.vendor.workers), self.size * part
        match what:
            case "end" if vendor.open:
                vendor.end(number)
                self.unsaid = True
            case "say" | "poll":
                vendor.say(by, Source.USAGE_ENDPOINT if what == "poll" else Source.HEADERS)
                self.unsaid = False
            case "kill":
                vendor.kill(by)
                self.unsaid = True
            case "ada":
                assert vendor.ask("ada", by, size), "it is hers"
            case "both":  # two workers choose at the same moment
                chosen = [worker.select(ask("bob")).account for worker in vendor.workers[:2]]
                for worker, found in enumerate(chosen):
                    if found is not None:
                        self.begins("bob", worker, size)
            case "bob" | "cyd":
                if vendor.workers[by].select(ask(what)).account is None or not self.begins(what, by, size):
                    self.refused()

    def begins(self, user: str, by: int, size: float) -> bool:
        before, alone = self.vendor.promised, not self.vendor.open
        if not self.vendor.begin(user, by, size):
            return False
        use = self.vendor.workers[by]._index.accounts[ADA].health.share_use
        assert use is not None and use.in_flight == len(self.vendor.open), "of all workers"
        each = SAFETY * use.rises.get("5h", UNKNOWN_RISE)
        most = self.share + 1e-6
        assert self.vendor.told < most if alone else self.vendor.told + each * use.in_flight <= most
        if self.size <= each:  # else nobody could know
            assert before < most + self.hidden if alone else before + size <= most + self.hidden
        return True

    def refused(self) -> None:
        assert self.vendor.open or self.unsaid or self.vendor.used >= self.share, "refused by nothing"


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("workers", [1, 3])
@settings(max_examples=8, deadline=None, phases=QUICK)
@given(share=st.sampled_from([5, 30, 50]), size=st.sampled_from([0.2, 1.0, 2.0]), steps=STEPS)
def test_what_is_known_never_passes_a_share_and_nothing_keeps_nobody_out(
    tmp_path_factory: pytest.TempPathFactory, workers: int, late: bool, share: int, size: float, steps: Any
) -> None:
    """Beside others a request is let in when it fits in any case, here where none is larger than what it is taken for;
    alone while anything is left. A vendor that shows a request with the next one only hides a lone one."""
    vendor = Vendor(tmp_path_factory.mktemp("share"), share, workers, late=late)
    history = History(vendor, share, size)
    for step in steps:
        history.do(*step)
    while vendor.open:
        vendor.end(0)
    for by in range(workers):
        vendor.say(by)
    assert vendor.ask("bob", 0, size) is (vendor.used < share), "what was left of it is open again"


def test_what_nobody_reports_keeps_the_next_one_out_for_a_minute(tmp_path: Path) -> None:
    """Where only answers report, the one that is let in then tells."""
    vendor = Vendor(tmp_path, 50, 1)
    vendor.used = 47.0
    vendor.say(0)
    assert vendor.ask("bob", 0, 1.0) and not vendor.ask("cyd", 0, 1.0)
    assert vendor.ask("ada", 0, 1.0)
    vendor.end(0)
    vendor.end(0)
    assert not vendor.ask("bob", 0, 1.0)
    vendor.pool.clock.now += 61
    assert vendor.ask("bob", 0, 1.0) and not vendor.ask("cyd", 0, 1.0)


def test_two_workers_do_not_give_away_the_same_room(tmp_path: Path) -> None:
    vendor = Vendor(tmp_path, 50, 2)
    vendor.used = 49.0
    vendor.say(0)
    assert [worker.select(ask("bob")).account for worker in vendor.workers] == [ADA, ADA], "both see it"
    assert [vendor.begin("bob", by, 1.0) for by in (0, 1)] == [True, False], "one has it"
    assert vendor.workers[1].select(ask("bob")).refused == {Refusal.RESERVED: 1}, "and the other one knows by now"
    assert vendor.begin("ada", 1, 1.0)


def test_a_worker_that_says_nothing_for_a_minute_has_nothing_under_way(tmp_path: Path) -> None:
    """As one of another machine, of which nobody knows whether it lives."""
    vendor = Vendor(tmp_path, 50, 2)
    vendor.used = 49.0
    vendor.say(0)
    assert vendor.ask("bob", 1, 1.0) and not vendor.ask("cyd", 0, 1.0)
    for _ in range(10):
        vendor.pool.clock.now += 10
        for worker in vendor.workers:
            worker._registry.keep_reservations()
        assert not vendor.ask("cyd", 0, 1.0), "it says so again and again"
    vendor.pool.clock.now += 61
    vendor.workers[0]._registry.keep_reservations()
    vendor.say(0)
    assert vendor.ask("cyd", 0, 1.0)


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
