"""Guesses from many networks of one owner, and what they leave untouched."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.core.settings import PoolUsers
from pool_server.users import RefusedError
from pool_server.users.identity.throttle import (
    ALL,
    DAY_S,
    KNOWN_S,
    PEER,
    WIDE,
    WIDER,
    Kind,
    Throttle,
    banned_until,
    network,
    scopes,
    stale,
    wider,
)
from pool_server.users.models import Tries

from .site import NOON, Site

BOTH_STORES = True


@pytest.fixture
def throttle(site: Site) -> Throttle:
    return site.throttle()


def judged(throttle: Throttle, peers: Iterable[str], *, kind: Kind = "admin", wrong: bool = True) -> int:
    """How many of the tries, one after the other, are judged; each peer has as many tries as it stands there."""

    async def main() -> int:
        count = 0
        for peer in peers:
            try:
                async with throttle.attempt(kind, peer) as attempt:
                    count += 1
                    if wrong:
                        await attempt.failed()
                    else:
                        await attempt.passed()
            except RefusedError as refused:
                assert refused.denied.status == 429
                assert refused.denied.retry_at is not None
        return count

    return asyncio.run(main())


def households(number: int) -> list[str]:
    """/64s of one /56."""
    return [f"2001:db8:0:ab{last:02x}::1" for last in range(number)]


def sites(number: int) -> list[str]:
    """/56s of one /48."""
    return [f"2001:db8:0:{last:02x}00::1" for last in range(number)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["admin", "friend"])
@pytest.mark.parametrize(
    ("peers", "most"),
    [
        (households(40), 30),
        ([peer for peer in households(40) for _ in range(4)], 30),
        (sites(60), 45),
        ([f"2001:db8:0:{last:04x}::1" for last in range(0, 65536, 97)], 45),
        ([f"192.0.2.{last}" for last in range(60)], 30),
        ([f"::ffff:192.0.2.{last}" for last in range(60)], 30),
        ([f"2001:db8:{last:x}::1" for last in range(600)], 300),
        ([f"10.{last // 200}.{last % 200}.1" for last in range(600)], 300),
    ],
    ids=["/56", "/56 four each", "/48", "/48 spread", "/24", "/24 mapped", "all v6", "all v4"],
)
def test_a_wider_network_has_an_allowance_of_its_own(
    throttle: Throttle, kind: Kind, peers: Iterable[str], most: int
) -> None:
    assert 20 <= judged(throttle, peers, kind=kind) <= most


def test_the_allowance_comes_back_and_ever_later(throttle: Throttle, site: Site) -> None:
    assert judged(throttle, households(40)) == WIDE.tries
    site.clock.now += WIDE.ban_s
    assert judged(throttle, households(40)) == WIDE.tries
    site.clock.now += WIDE.ban_s
    assert judged(throttle, households(40)) == 0
    site.clock.now += WIDE.ban_s
    assert judged(throttle, households(1)) == 1


def test_a_known_network_is_stopped_by_its_own_wrong_tries_alone(throttle: Throttle, site: Site) -> None:
    home, flat = "2001:db8:0:ab99::1", "2001:db8:0:ab98::1"
    assert judged(throttle, [home], kind="friend", wrong=False) == 1
    assert judged(throttle, households(40), kind="friend") == WIDE.tries
    assert judged(throttle, (f"198.51.{last}.1" for last in range(250)), kind="friend") == 250
    judged(throttle, (f"203.0.{last}.1" for last in range(250)), kind="friend")
    assert judged(throttle, [flat, "192.0.2.9"], kind="friend", wrong=False) == 0, "nobody new may try now"
    assert judged(throttle, ["192.0.2.9"], kind="admin", wrong=False) == 1, "admins are counted apart"
    assert judged(throttle, [home] * 3, kind="friend", wrong=False) == 3
    assert judged(throttle, [home] * 9, kind="friend") == PEER.tries
    site.clock.now += KNOWN_S + DAY_S
    assert judged(throttle, households(40), kind="friend") == WIDE.tries
    assert judged(throttle, [home], kind="friend") == 0, "it has long not been seen"


def test_who_is_right_uses_nothing_up(throttle: Throttle) -> None:
    assert judged(throttle, (peer for _ in range(9) for peer in households(40)), wrong=False) == 360
    assert judged(throttle, [f"2001:db8:0:abff::{last}" for last in range(9)]) == PEER.tries


def test_tries_that_are_judged_at_once_in_two_processes_stay_within_the_allowance(site: Site) -> None:
    workers = [site.throttle() for _ in range(2)]
    open_, most = 0, 0

    async def one(number: int, peer: str) -> None:
        nonlocal open_, most
        async with workers[number % 2].attempt("friend", peer) as attempt:
            open_ += 1
            most = max(most, open_)
            await asyncio.sleep(0.01)
            await attempt.failed()

    async def main() -> list[BaseException | None]:
        tries = (one(number, peer) for number, peer in enumerate(households(100)))
        return await asyncio.gather(*tries, return_exceptions=True)

    refused = [result for result in asyncio.run(main()) if isinstance(result, RefusedError)]
    assert most == WIDE.tries == 100 - len(refused)
    assert min(result.denied.retry_at or 0 for result in refused) == NOON + 5


def test_hanging_up_before_the_judgement_is_a_wrong_try(throttle: Throttle) -> None:
    async def leave(peer: str) -> bool:
        async def guess() -> None:
            async with throttle.attempt("friend", peer):
                began.set()
                await asyncio.sleep(60)

        began = asyncio.Event()
        task = asyncio.ensure_future(guess())
        await asyncio.wait({task, asyncio.ensure_future(began.wait())}, return_when=asyncio.FIRST_COMPLETED)
        task.cancel()
        return isinstance((await asyncio.gather(task, return_exceptions=True))[0], asyncio.CancelledError)

    async def main() -> int:
        return sum([await leave("192.0.2.7") for _ in range(20)])

    assert asyncio.run(main()) == PEER.tries


def test_a_try_whose_process_died_is_forgotten(throttle: Throttle, site: Site) -> None:
    for _ in range(PEER.tries):
        asyncio.run(throttle._begin(scopes("admin", "192.0.2.7", ""), note=True))
    assert judged(throttle, ["192.0.2.7"]) == 0
    site.clock.now += 61
    assert judged(throttle, ["192.0.2.7"] * 9) == PEER.tries


@pytest.mark.parametrize("step", [-400 * DAY_S, -2 * DAY_S])
def test_a_clock_that_was_ahead_bans_nobody_for_long(throttle: Throttle, site: Site, step: float) -> None:
    judged(throttle, ["192.0.2.7"] * 9)
    site.clock.now += step
    assert judged(throttle, ["192.0.2.7"]) == 1


@given(st.ip_addresses())
def test_each_network_lies_within_the_next(address: object) -> None:
    own = network(str(address))
    nets = [ipaddress.ip_network(own), *(ipaddress.ip_network(name) for name, _ in wider(str(address)))]
    for inner, outer in pairwise(nets):
        assert inner.subnet_of(outer)  # type: ignore[arg-type]
    allowances = [PEER.tries, *(rule.tries for _, rule in wider(str(address))), ALL.tries]
    assert allowances == sorted(allowances)
    assert WIDER.tries < 2 * WIDE.tries, "they grow more slowly than the number of networks"


@pytest.mark.parametrize("peer", ["", "/run/pool.sock", "x" * 600])
def test_what_is_no_address_is_counted_by_its_own_name(throttle: Throttle, peer: str) -> None:
    assert wider(peer) == []
    assert judged(throttle, [peer] * 9) == PEER.tries


def test_a_known_network_is_kept_and_forgotten_in_the_end() -> None:
    raw = msgspec.msgpack.encode(Tries(good=NOON))
    assert not stale(raw, NOON + KNOWN_S - 1)
    assert stale(raw, NOON + KNOWN_S + 1)
    assert banned_until(Tries(until=NOON + DAY_S + 5), NOON) is None


def test_a_record_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    site = Site(tmp_path)  # whose embedded store has one
    old = msgspec.msgpack.encode([[NOON - 1] * 4, 0.0, 0])
    site.state.write(lambda txn: txn.put("users.throttle", b"admin\0peer\x00192.0.2.7", old))
    assert judged(site.throttle(), ["192.0.2.7"] * 9) == 1


def test_guesses_at_the_door_and_at_the_admins_page(tmp_path: Path) -> None:
    site = Site(tmp_path, pool_users=PoolUsers(admin_password="deep end"))

    async def tries(call: Callable[[str], object]) -> int:
        count = 0
        for peer in households(40):
            try:
                await call(peer)  # type: ignore[misc]
            except RefusedError as refused:
                count += refused.denied.status == 401
        return count

    door = site.users
    codes = asyncio.run(
        tries(lambda peer: door.sign_in.friend_login(peer=peer, code="wrong", name="Eve" + peer[-5:-3]))
    )
    keys = asyncio.run(tries(lambda peer: door.sign_in.friend_login(peer=peer, key="a.b.c")))
    assert 20 <= codes + keys <= 30
    assert 20 <= asyncio.run(tries(lambda peer: door.sign_in.admin_login("wrong", peer=peer))) <= 30
    site.close()
