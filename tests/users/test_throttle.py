from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.core.enums import Denial
from pool_server.storage import Store, StoreFullError
from pool_server.users import STATE_TABLES, RefusedError
from pool_server.users.embedded_door import EmbeddedDoor
from pool_server.users.identity.throttle import (
    KNOWN_S,
    NAME,
    PEER,
    Throttle,
    banned_until,
    is_known,
    network,
    stale,
    wrong,
)
from pool_server.users.models import Tries

from .site import NOON, Clock, Site


@pytest.mark.parametrize(
    ("peer", "counted_as"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3::9", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::9", "2001:db8:1:3::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("/run/pool.sock", "/run/pool.sock"),
    ],
)
def test_whom_a_peer_is_counted_as(peer: str, counted_as: str) -> None:
    assert network(peer) == counted_as


def test_a_network_is_known_for_a_while_and_never_from_the_future() -> None:
    """A clock that was once ahead makes nobody known until it gets there."""
    assert [is_known(Tries(good=NOON + s), NOON) for s in (-KNOWN_S - 1, -KNOWN_S + 1, 0, 1, 400 * 86_400)] == [
        False, True, True, False, False,
    ]  # fmt: skip


def test_the_fifth_wrong_try_bans_and_further_bans_are_longer() -> None:
    tries, now = Tries(), NOON
    for _ in range(4):
        tries = wrong(tries, PEER, now)
        assert banned_until(tries, now) is None
    for ban in (900.0, 1800.0, 3600.0):
        while banned_until(tries, now) is None:
            tries = wrong(tries, PEER, now)
        assert tries.until == now + ban
        assert banned_until(tries, tries.until - 1) is not None
        now = tries.until
    assert banned_until(tries, now) is None


def test_tries_far_apart_and_bans_long_ago_count_for_nothing() -> None:
    tries, now = Tries(), NOON
    for _ in range(20):
        tries = wrong(tries, PEER, now)
        now += PEER.window_s / 4 + 1
    assert banned_until(tries, now) is None
    tries = Tries([now] * 4, now - 90_000, 7)
    assert wrong(tries, PEER, now).until == now + PEER.ban_s


@given(st.lists(st.floats(0, 4000), max_size=60))
def test_a_ban_never_lasts_longer_than_a_day_and_is_always_ended(gaps: list[float]) -> None:
    for rule in (PEER, NAME):
        tries, now = Tries(), NOON
        for gap in gaps:
            now += gap
            tries = wrong(tries, rule, now)
            assert tries.until <= now + rule.max_ban_s
            assert len(tries.wrong) < rule.tries


@pytest.fixture
def throttle(site: Site) -> Throttle:
    return site.throttle()


def guess(throttle: Throttle, kind: str, peer: str, name: str = "") -> float | None:
    async def main() -> float | None:
        async with throttle.attempt(kind, peer, name) as attempt:  # type: ignore[arg-type]
            return await attempt.failed()

    return asyncio.run(main())


def test_friends_and_admins_and_peers_and_names_are_counted_apart(throttle: Throttle, site: Site) -> None:
    for _ in range(5):
        until = guess(throttle, "friend", "192.0.2.7", "anna")
    assert until == NOON + PEER.ban_s
    with pytest.raises(RefusedError) as info:
        guess(throttle, "friend", "192.0.2.7")
    assert info.value.denied.denial is Denial.THROTTLED
    assert (info.value.denied.status, info.value.denied.retry_at) == (429, until)
    assert guess(throttle, "admin", "192.0.2.7") is None
    assert guess(throttle, "friend", "192.0.2.8", "anna") is None
    site.clock.now += PEER.ban_s
    assert guess(throttle, "friend", "192.0.2.7") is None


def test_a_household_cannot_guess_on_from_its_other_addresses(throttle: Throttle) -> None:
    for last in range(5):
        guess(throttle, "friend", f"2001:db8::{last}")
    with pytest.raises(RefusedError):
        guess(throttle, "friend", "2001:db8::ffff")
    assert guess(throttle, "friend", "2001:db8:0:1::1") is None


def test_guesses_at_one_name_from_everywhere_end_too(throttle: Throttle) -> None:
    for last in range(NAME.tries):
        guess(throttle, "friend", f"192.0.2.{last}", "anna")
    with pytest.raises(RefusedError) as info:
        guess(throttle, "friend", "198.51.100.1", "anna")
    assert info.value.denied.retry_at == NOON + NAME.ban_s
    assert guess(throttle, "friend", "198.51.100.1", "berta") is None


def test_tries_made_at_once_take_turns(throttle: Throttle) -> None:
    let_through = 0

    async def one() -> None:
        nonlocal let_through
        async with throttle.attempt("friend", "192.0.2.7") as attempt:
            let_through += 1
            await asyncio.sleep(0)
            await attempt.failed()

    async def main() -> list[BaseException | None]:
        return await asyncio.gather(*(one() for _ in range(20)), return_exceptions=True)

    results = asyncio.run(main())
    assert let_through == 5
    assert sum(isinstance(result, RefusedError) for result in results) == 15


def test_a_crowd_of_tries_is_turned_away_instead_of_queued(throttle: Throttle) -> None:
    async def one() -> None:
        async with throttle.attempt("friend", "192.0.2.7"):
            await asyncio.sleep(0)

    async def main() -> list[BaseException | None]:
        return await asyncio.gather(*(one() for _ in range(100)), return_exceptions=True)

    refused = [result for result in asyncio.run(main()) if isinstance(result, RefusedError)]
    assert len(refused) == 100 - 32
    assert asyncio.run(main()).count(None) == 32  # and the turns were given back


def test_counts_outlive_the_process(tmp_path: Path) -> None:
    for round_ in range(5):
        store = Store.open(tmp_path, tables=STATE_TABLES, durable=False)
        until = guess(Throttle(EmbeddedDoor(store, store), Clock()), "admin", "192.0.2.7")
        store.close()
        assert (until is not None) == (round_ == 4)


def test_guessing_is_not_free_when_nothing_can_be_written(
    throttle: Throttle, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fn: Callable[..., object]) -> None:
        raise StoreFullError("no space left")

    monkeypatch.setattr(site.state, "write", full)
    with pytest.raises(RefusedError) as info:
        guess(throttle, "friend", "192.0.2.7")
    assert info.value.denied.status == 503


def test_old_records_are_stale_and_bans_are_not(throttle: Throttle, site: Site) -> None:
    for _ in range(5):
        guess(throttle, "friend", "192.0.2.7")
    with site.state.read() as txn:
        raw = dict(txn.scan("users.throttle"))[b"friend\0peer\x00192.0.2.7"]
    assert not stale(raw, NOON + PEER.ban_s)
    assert stale(raw, NOON + PEER.ban_s + 86_401)
