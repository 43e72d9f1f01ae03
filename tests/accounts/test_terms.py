"""An owner's terms: their own account first, shared until a day, with these people; and nobody's reserve touched."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_server.accounts.credentials import files
from pool_server.core.enums import ChoiceReason, Refusal
from pool_server.providers import CredentialRejectedError
from tests.accounts.kit import DAY, HOUR, NOW, Pool, ask, claude, key, quota, week, window


def pool_of(folder: Path, **more: Any) -> Pool:
    """Ada's and Bob's accounts and one of the pool's own."""
    made = {
        "claude_ada.json": claude("sk-ant-oat01-adaaa", owner="ada", **more),
        "claude_bob.json": claude("sk-ant-oat01-bobbb", owner="bob"),
        "claude_pool.json": claude("sk-ant-oat01-poool"),
    }
    pool = Pool(folder, made)
    for name, used in (("ada", 80.0), ("bob", 20.0), ("pool", 5.0)):
        pool.accounts.observe(f"claude:{name}", [window(used), week(used)])
    return pool


def chosen(pool: Pool, user: str, **more: Any) -> tuple[str | None, ChoiceReason | None]:
    decision = pool.accounts.select(ask(user, **more))
    return decision.account, decision.reason


def test_the_own_account_comes_first_though_others_have_more_headroom(tmp_path: Path) -> None:
    pool = pool_of(tmp_path)
    assert chosen(pool, "ada") == ("claude:ada", ChoiceReason.OWN)
    assert chosen(pool, "bob") == ("claude:bob", ChoiceReason.OWN)
    assert chosen(pool, "cyd")[0] == "claude:pool"


def test_when_it_has_none_the_pool_serves(tmp_path: Path) -> None:
    pool = pool_of(tmp_path)
    pool.accounts.fail("claude:ada", quota(HOUR), "claude-sonnet-4-5", ask().operation)
    assert chosen(pool, "ada")[0] == "claude:pool"
    assert chosen(pool, "ada", exclude=frozenset({"claude:pool"}))[0] == "claude:bob"


def test_a_conversation_keeps_its_cache(tmp_path: Path) -> None:
    pool = pool_of(tmp_path)
    asked = ask("ada", "s1")
    pool.accounts.bind(asked, "claude:pool")
    assert chosen(pool, "ada", session="s1") == ("claude:pool", ChoiceReason.PINNED)
    assert chosen(pool, "ada", session="s2") == ("claude:ada", ChoiceReason.OWN)


def test_own_first_can_be_turned_off(tmp_path: Path) -> None:
    pool = pool_of(tmp_path, terms={"own_first": False})
    assert chosen(pool, "ada")[0] == "claude:pool"
    pool.write("claude_ada.json", claude("sk-ant-oat01-adaaa", owner="ada"))
    pool.reload()
    assert chosen(pool, "ada")[0] == "claude:ada", "as soon as the file says so"


def test_a_failed_own_account_is_not_tried_twice(tmp_path: Path) -> None:
    pool = pool_of(tmp_path)
    assert chosen(pool, "ada", exclude=frozenset({"claude:ada"}))[0] == "claude:pool"


def test_after_its_day_it_serves_its_owner_alone(tmp_path: Path) -> None:
    pool = Pool(tmp_path, {"claude_ada.json": claude(owner="ada", terms={"until": NOW + DAY}, ends=NOW + 9 * DAY)})
    assert chosen(pool, "bob")[0] == "claude:ada"
    pool.clock.now += DAY
    decision = pool.accounts.select(ask("bob"))
    assert decision.account is None and decision.refused == {Refusal.NOT_SHARED: 1}
    assert chosen(pool, "ada")[0] == "claude:ada"
    assert pool.accounts.explain(ask("bob"))[0].refusal == "not_shared"


@pytest.mark.parametrize(
    "terms", [[], "x", {"until": "soon"}, {"until": []}, {"own_first": "yes"}, {"colour": 1}, {"until": True}]
)
def test_terms_that_cannot_be_reject_the_file(terms: Any) -> None:
    with pytest.raises(CredentialRejectedError, match="terms"):
        files.options({"terms": terms})


def test_a_day_is_read_in_every_form() -> None:
    for said in ("2027-01-31", "2027-01-31T00:00:00Z", 1801353600, 1801353600000):
        assert files.options({"terms": {"until": said}}).terms.until == 1801353600.0


@pytest.mark.parametrize(
    ("hours", "open_at"),
    [
        (["22:00-07:00"], [*range(7), 22, 23]),
        (["09:00-12:00", "20:00-24:00"], [9, 10, 11, 20, 21, 22, 23]),
        ("00:00-24:00", list(range(24))),
        ("", list(range(24))),
    ],
)
def test_others_are_served_at_its_hours_and_its_owner_always(tmp_path: Path, hours: Any, open_at: list[int]) -> None:
    pool = Pool(tmp_path, {"claude_ada.json": claude(owner="ada", terms={"hours": hours}, ends=NOW + 9 * DAY)})
    midnight = NOW - NOW % DAY + DAY
    served = []
    for hour in range(24):
        pool.clock.now = midnight + hour * HOUR
        served += [hour] if chosen(pool, "bob")[0] else []
        assert chosen(pool, "ada")[0] == "claude:ada"
        assert bool(chosen(pool, "")[0]) == (hour in served), "nobody is not the owner"
    assert served == open_at


@pytest.mark.parametrize(
    "hours",
    [["22-07"], ["25:00-07:00"], ["22:00-07:60"], [7], {"a": 1}, ["22:00-07:00"] * 13, ["08:00-08:00"], "9:00-9:00"],
)
def test_hours_that_cannot_be_reject_the_file(hours: Any) -> None:
    with pytest.raises(CredentialRejectedError, match="terms"):
        files.options({"terms": {"hours": hours}})


PEOPLE = [f"u{number}" for number in range(10)]


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(PEOPLE), min_size=60, max_size=120), st.randoms(use_true_random=False))
def test_ten_friends_and_six_accounts(tmp_path_factory: pytest.TempPathFactory, demand: list[str], rng: Any) -> None:
    """Own first holds, no reserve is touched by others, and nobody is refused while an account open to them has any."""
    reserves = (0.0, 0.3, 0.6, 0.0, 0.9, 0.2)
    made = {
        f"claude_{number}.json": key(api_key=f"sk-ant-api03-{number}{number}", owner=PEOPLE[number], reserve=reserve)
        for number, reserve in enumerate(reserves)
    }
    pool = Pool(tmp_path_factory.mktemp("terms"), made)
    left = dict.fromkeys(range(6), 100.0)
    for number in left:
        pool.accounts.observe(f"claude:{number}", [window(0.0)])
    served: Counter[str] = Counter()
    for user in demand:
        drains = [pool.accounts.describe(f"claude:{one}").state for one in left]
        decision = pool.accounts.select(ask(user))
        own = PEOPLE.index(user) if PEOPLE.index(user) < 6 else None
        if decision.account is None:
            assert all(left[one] <= (0.0 if one == own else 100 * reserves[one]) + 1e-9 for one in left), (
                "refused with headroom left"
            )
            continue
        number = int(decision.account.partition(":")[2])
        if own is not None and left[own] > 0 and drains[own] == "ready":
            assert number == own, "one's own comes first"
        if number != own:
            assert left[number] > 100 * reserves[number], "a reserve was touched"
        left[number] = max(0.0, left[number] - rng.choice((1.0, 5.0, 10.0)))
        pool.accounts.observe(decision.account, [window(100.0 - left[number])])
        if left[number] <= 0:
            pool.accounts.fail(decision.account, quota(HOUR), "", ask().operation)
        served[user] += 1
    assert served
