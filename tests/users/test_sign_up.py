"""How many new people come in a day: by the shared code, by personal ones, at once, tomorrow."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.core.settings import PoolUsers
from pool_server.users import RefusedError
from pool_server.users.identity.codes import networks_of, refused
from pool_server.users.models import NewPerson

from .site import NOON, PASSPHRASE, SHELL, Site

BOTH_STORES = True

DAY = 86_400.0


async def came(site: Site, number: int, peer: str, *, code: str = "open sesame", start: int = 0) -> list[int]:
    """The status of each of so many who want to come."""

    async def one(name: str) -> int:
        try:
            await site.users.sign_in.friend_login(peer=peer, code=code, name=name, passphrase=PASSPHRASE)
        except RefusedError as error:
            assert error.denied.retry_at is not None
            return error.denied.status
        return 200

    return [await one(f"Friend {start + n}") for n in range(number)]


def test_five_a_day_come_from_a_network_and_others_from_elsewhere(site: Site) -> None:
    async def main() -> None:
        assert await came(site, 7, "192.0.2.7") == [200] * 5 + [429] * 2
        assert await came(site, 1, "192.0.2.8", start=10) == [200]
        assert await came(site, 1, "2001:db8::1", start=20) == [200]
        back = await site.users.sign_in.friend_login(peer="192.0.2.7", name="Friend 0", passphrase=PASSPHRASE)
        assert not back.is_new, "whoever has come before comes in"
        site.clock.now += DAY
        assert await came(site, 6, "192.0.2.7", start=30) == [200] * 5 + [429]

    site.run(main)


@pytest.mark.slow
@pytest.mark.parametrize(
    "peers",
    [[f"2001:db8:0:ab{n:02x}::1" for n in range(12)], [f"192.0.2.{n}" for n in range(12)],
     [f"2001:db8:0:{n:02x}00::1" for n in range(12)]],
    ids=["/56", "/24", "/48"],
)  # fmt: skip
def test_a_wider_network_has_twice_as_many(site: Site, peers: list[str]) -> None:
    async def main() -> None:
        told = [(await came(site, 1, peer, start=number))[0] for number, peer in enumerate(peers)]
        assert told == [200] * 10 + [429] * 2

    site.run(main)


def test_in_all_and_from_a_proxy_that_says_nothing(tmp_path: Path) -> None:
    site = Site(tmp_path, pool_users=PoolUsers(new_people_per_day=8, new_people_per_network=2))

    async def main() -> None:
        assert await came(site, 6, "127.0.0.1") == [200] * 6
        assert await came(site, 3, "::1", start=10) == [200, 200, 429]
        assert await came(site, 1, "192.0.2.1", start=20) == [429]
        made = await site.users.people.create_user("By the admin", actor=SHELL)
        assert made["id"]

    site.run(main)
    site.close()


def test_nobody_new_comes_by_a_code_where_the_admin_says_so(tmp_path: Path) -> None:
    site = Site(tmp_path, pool_users=PoolUsers(new_people_per_day=0))

    async def main() -> None:
        with pytest.raises(RefusedError) as told:
            await site.users.sign_in.friend_login(
                peer="192.0.2.1", code="open sesame", name="Eve", passphrase=PASSPHRASE
            )
        assert told.value.denied.status == 429
        assert site.users.people.named("Eve") is None

    site.run(main)
    site.close()


def test_a_personal_code_lets_in_as_many_as_it_says(site: Site) -> None:
    async def main() -> None:
        for_seven = await site.users.codes.create(actor=SHELL, uses=7)
        for_any = await site.users.codes.create(actor=SHELL, uses=None)
        assert await came(site, 7, "192.0.2.7", code=for_seven["code"]) == [200] * 7
        assert await came(site, 6, "192.0.2.7", code=for_any["code"], start=10) == [200] * 5 + [429]

    site.run(main)


def test_many_at_once_in_two_workers_are_no_more(site: Site) -> None:
    async def main() -> None:
        workers = [site.users, site.worker()]

        async def one(number: int) -> Any:
            peer = f"192.0.2.{number % 2}"
            return await workers[number % 2].sign_in.friend_login(
                peer=peer, code="open sesame", name=f"Friend {number}", passphrase=PASSPHRASE
            )

        results = await asyncio.gather(*(one(number) for number in range(16)), return_exceptions=True)
        assert sum(not isinstance(result, Exception) for result in results) == 10
        await workers[1].close()

    site.run(main)


@given(
    st.lists(st.tuples(st.floats(-2 * DAY, DAY), st.ip_addresses(v=4)), max_size=30),
    st.ip_addresses(v=4),
    st.integers(0, 6),
    st.integers(0, 20),
)
def test_whoever_is_refused_may_come_within_a_day(
    before: list[tuple[float, Any]], peer: Any, per_network: int, per_day: int
) -> None:
    settings = PoolUsers(new_people_per_network=per_network, new_people_per_day=per_day)
    people = [NewPerson(NOON + at, networks_of(str(address))) for at, address in before if at > -DAY]
    error = refused(people, str(peer), settings, NOON)
    if error is None:
        assert len(people) < per_day
        assert per_network > 0 or not networks_of(str(peer))
    elif error.retry_at is not None:
        assert NOON < error.retry_at <= NOON + DAY
