from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.core.models import Usage
from pool_server.users.limits import fair_share

HOUR = 3600.0
WINDOW = 5 * HOUR

uses = st.dictionaries(st.sampled_from("abcdefgh"), st.floats(0.1, 1e6), min_size=1)


@given(uses, st.floats(0.0, 1.0), st.data())
def test_the_level_hands_out_the_supply_and_nobody_gets_more_than_they_ask(
    use: dict[str, float], part: float, data: st.DataObject
) -> None:
    weights = {who: data.draw(st.floats(0.1, 10)) for who in use}
    supply = part * sum(use.values())
    height = fair_share.level(use, weights, supply)
    handed_out = sum(min(use[who], weights[who] * height) for who in use)
    assert handed_out == pytest.approx(min(supply, sum(use.values())))


@given(uses, st.floats(0.0, 20.0))
def test_nobody_at_or_under_the_equal_share_ever_waits(use: dict[str, float], room: float) -> None:
    equal = sum(use.values()) / len(use)
    fair = fair_share.allowed(use, {}, room, 20.0)
    assert fair >= equal * (1 - 1e-9)
    assert any(amount <= fair * (1 + 1e-9) for amount in use.values())


@given(uses, st.floats(0.0, 100.0), st.floats(0.0, 100.0))
def test_less_room_never_lets_more_through(use: dict[str, float], one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert fair_share.allowed(use, {}, low, 20.0) <= fair_share.allowed(use, {}, high, 20.0) * (1 + 1e-9)


def test_enough_room_is_open_to_all() -> None:
    assert fair_share.allowed({"a": 1e9, "b": 1.0}, {}, 20.0, 20.0) == float("inf")


def test_whoever_is_alone_never_waits() -> None:
    assert fair_share.allowed({"a": 1e9}, {}, 0.0, 20.0) >= 1e9


def test_a_larger_weight_is_a_larger_share() -> None:
    use = {"patron": 600.0, "guest": 300.0}
    fair = fair_share.allowed(use, {"patron": 2.0, "guest": 1.0}, 0.0, 20.0)
    assert fair == 300.0  # a unit of weight: the patron's 600 are within twice that
    assert fair_share.allowed(use, {}, 0.0, 20.0) == 450.0  # as equals the first would wait


def test_use_ages_and_says_when_it_is_fair_again() -> None:
    buckets: fair_share.Buckets = []
    for hour, amount in ((0, 60.0), (1, 30.0), (2, 10.0)):
        buckets = fair_share.add(buckets, amount, hour * HOUR, WINDOW)
    assert fair_share.recent(buckets, 2 * HOUR, WINDOW) == 100.0
    when = fair_share.frees_at(buckets, 40.0, 2 * HOUR, WINDOW)
    assert when == fair_share.BUCKET + WINDOW
    assert fair_share.recent(buckets, when, WINDOW) == 40.0
    assert fair_share.add(buckets, 1.0, 20 * HOUR, WINDOW) == [(int(20 * HOUR), 1.0)]


def test_a_cached_token_weighs_less_than_one_that_is_written() -> None:
    assert fair_share.weigh(Usage(cache_read=1000)) < fair_share.weigh(Usage(input=1000))
    assert fair_share.weigh(Usage(input=1000)) < fair_share.weigh(Usage(output=1000))


class Provider:
    """A provider with so much room in each five-hour window, and the friends that share it."""

    def __init__(self, room: float) -> None:
        self.size = self.room = room
        self.use: dict[str, fair_share.Buckets] = {}
        self.served: dict[str, float] = {}
        self.refused: dict[str, int] = {}

    def ask(self, who: str, amount: float, now: float) -> None:
        percent = 100 * self.room / self.size
        use = {name: fair_share.recent(buckets, now, WINDOW) for name, buckets in self.use.items()}
        if self.room < amount or use.get(who, 0.0) > fair_share.allowed(use, {}, percent, 20.0):
            self.refused[who] = self.refused.get(who, 0) + 1
            return
        self.room -= amount
        self.use[who] = fair_share.add(self.use.get(who, []), amount, now, WINDOW)
        self.served[who] = self.served.get(who, 0.0) + amount


def simulate(*, modest_every_min: int) -> Provider:
    """One window: a greedy friend asks whenever possible, nine modest ones every so often."""
    rng = random.Random(7)
    provider = Provider(10_000.0)
    for minute in range(300):
        now = minute * 60.0
        crowd = ["greedy"] * 60
        crowd += [f"modest{n}" for n in range(9) if (minute + 3 * n) % modest_every_min == 0]
        rng.shuffle(crowd)
        for who in crowd:
            provider.ask(who, 2.0 if who == "greedy" else 10.0, now)
    return provider


@pytest.mark.slow
def test_a_greedy_friend_waits_and_nine_modest_ones_do_not() -> None:
    provider = simulate(modest_every_min=15)  # nine modest friends want 1,800 of 10,000
    assert not [who for who in provider.refused if who != "greedy"]
    assert provider.refused["greedy"] > 0
    assert sum(provider.served[f"modest{n}"] for n in range(9)) == 1800.0
    assert provider.served["greedy"] >= 7_500.0  # what the others did not want, but for a little kept for them


def test_room_nobody_else_wants_is_not_kept_from_the_greedy() -> None:
    provider = Provider(10_000.0)
    for minute in range(300):
        for _ in range(60):
            provider.ask("greedy", 2.0, minute * 60.0)
    assert provider.served["greedy"] == pytest.approx(10_000.0)


@given(path=st.lists(st.floats(-5e7, 5e7), min_size=1, max_size=6))
def test_no_path_of_the_clock_makes_anybody_wait_longer_than_the_window(path: list[float]) -> None:
    buckets: fair_share.Buckets = []
    now, window_s = 1.79e9, 5 * 3600.0
    for step in path:
        now += step
        buckets = fair_share.add(buckets, 10.0, now, window_s)
        assert fair_share.frees_at(buckets, 5.0, now, window_s) - now <= window_s + fair_share.BUCKET
        assert [at for at, _ in buckets] == sorted(at for at, _ in buckets)
